"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];

  // Light and dark: as the system has it, until the reader chooses.
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const showTheme = () => {
    byId("theme").textContent = isDark() ? "Light colours" : "Dark colours";
  };
  function initTheme() {
    const button = byId("theme");
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      showTheme();
    });
    systemDark.addEventListener("change", showTheme);
    showTheme();
  }

  // Which runs the curves show, and which one stands out.
  const hiddenRuns = new Set();
  const boxes = () => all("input[data-pick]");
  function applyPicks() {
    const off = new Set();
    for (const box of boxes()) {
      box.checked = !hiddenRuns.has(box.dataset.name);
      box.closest("label").classList.toggle("off", !box.checked);
      if (!box.checked) off.add(box.dataset.pick);
    }
    for (const part of all("[data-run]")) part.classList.toggle("off", off.has(part.dataset.run));
  }
  function standOut(run) {
    for (const part of all(".run")) part.classList.toggle("on", part.dataset.run === run);
    byId("figures")?.classList.toggle("dim", run !== null);
  }
  function setAll(isShown) {
    for (const box of boxes()) {
      if (isShown) hiddenRuns.delete(box.dataset.name);
      else hiddenRuns.add(box.dataset.name);
    }
    applyPicks();
  }
  function initPicker() {
    for (const box of boxes()) {
      box.hidden = false;
      box.addEventListener("change", () => {
        if (box.checked) hiddenRuns.delete(box.dataset.name);
        else hiddenRuns.add(box.dataset.name);
        applyPicks();
        standOut(box.checked ? box.dataset.pick : null);
      });
      box.addEventListener("focus", () => standOut(box.checked && box.matches(":focus-visible") ? box.dataset.pick : null));
      box.addEventListener("blur", () => standOut(null));
      box.closest("label").addEventListener("pointerenter", () => standOut(box.checked ? box.dataset.pick : null));
      box.closest("label").addEventListener("pointerleave", () => standOut(null));
    }
    const buttons = document.querySelector(".picker .all");
    if (buttons) {
      buttons.hidden = false;
      byId("show-all").addEventListener("click", () => setAll(true));
      byId("show-none").addEventListener("click", () => setAll(false));
    }
    applyPicks();
  }

  // Tables that a click on a column's head sorts: numbers by their value, what is no number last.
  const sorted = new Map();
  const SECONDS = { d: 86400, h: 3600, min: 60, s: 1 };
  const FACTORS = { k: 1e3, M: 1e6, G: 1e9, T: 1e12 };
  function valueOf(text) {
    const clean = text.replaceAll("\u2212", "-").replace(/(\d),(?=\d{3})/g, "$1");
    const times = [...clean.matchAll(/(\d+) (d|h|min|s)\b/g)];
    if (times.length) return times.reduce((sum, [, n, unit]) => sum + n * SECONDS[unit], 0);
    const found = clean.match(/([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?: ([kMGT])\b)?/i);
    return found ? Number(found[1]) * (FACTORS[found[2]] ?? 1) : NaN;
  }
  function sortTable(table, column, isDescending) {
    const heads = [...table.tHead.rows[0].cells];
    const isNumeric = heads[column].classList.contains("number");
    const rows = [...table.tBodies[0].rows].map((row) => {
      const text = row.cells[column].textContent.trim();
      return { row, text, value: isNumeric ? valueOf(text) : NaN };
    });
    const sign = isDescending ? -1 : 1;
    const unknown = (item) => (isNumeric ? Number.isNaN(item.value) : item.text === "" || item.text === "\u2013");
    rows.sort((a, b) => {
      if (unknown(a) || unknown(b)) return unknown(a) - unknown(b);
      return sign * (isNumeric ? a.value - b.value : a.text.localeCompare(b.text, undefined, { numeric: true }));
    });
    table.tBodies[0].append(...rows.map((item) => item.row));
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    sorted.set(table.id, { name: heads[column].textContent, isDescending });
  }
  function initTables() {
    for (const table of all("table[data-sortable]")) {
      [...table.tHead.rows[0].cells].forEach((head, column) => {
        const button = document.createElement("button");
        button.type = "button";
        button.id = `sort-${table.id}-${column}`;
        button.append(...head.childNodes);
        button.addEventListener("click", () => {
          const now = head.getAttribute("aria-sort");
          const first = head.classList.contains("number"); // the largest first
          sortTable(table, column, now === null ? first : now === "ascending");
        });
        head.append(button);
      });
      const last = sorted.get(table.id);
      const column = last ? [...table.tHead.rows[0].cells].findIndex((head) => head.textContent === last.name) : -1;
      if (column >= 0) sortTable(table, column, last.isDescending);
    }
  }

  // What is folded is printed, too.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    for (const part of opened) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of opened) part.open = false;
  });

  function initContent() {
    initPicker();
    initTables();
  }

  // Of `--watch`: take the newer page's content into this one, so that place, focus and choices stay.
  function renew(text) {
    const next = new DOMParser().parseFromString(text, "text/html");
    const focused = document.activeElement?.id;
    const folds = new Map(all("details").map((part) => [part.id, part.open]));
    const lefts = new Map(all(".scroll").map((part) => [part.id, part.scrollLeft]));
    const listTop = document.querySelector(".picker ul")?.scrollTop;
    const [x, y] = [scrollX, scrollY];
    document.title = next.title;
    for (const selector of [".top > div", "#side", "#main", "footer"]) {
      document.querySelector(selector).replaceChildren(...next.querySelector(selector).childNodes);
    }
    root.dataset.version = next.documentElement.dataset.version;
    for (const part of all("details")) if (folds.has(part.id)) part.open = folds.get(part.id);
    initContent();
    for (const part of all(".scroll")) part.scrollLeft = lefts.get(part.id) ?? 0;
    const list = document.querySelector(".picker ul");
    if (list && listTop) list.scrollTop = listTop;
    if (focused && byId(focused) && document.activeElement !== byId(focused)) byId(focused).focus({ preventScroll: true });
    scrollTo({ left: x, top: y, behavior: "instant" });
  }
  async function watch() {
    const status = (text) => {
      if (byId("live").textContent !== text) byId("live").textContent = text;
    };
    try {
      if (!document.hidden) {
        const version = await (await fetch("/version", { cache: "no-store" })).text();
        if (version !== root.dataset.version) renew(await (await fetch("/", { cache: "no-store" })).text());
        status("This page renews itself while the runs go on.");
      }
    } catch {
      status("The server of this page has ended; what you see is the last state.");
    }
    setTimeout(watch, 3000);
  }

  initTheme();
  initContent();
  // Where the list is not beside the curves, it would stand before all results.
  if (byId("picker") && matchMedia("(max-width: 1159px)").matches) byId("picker").open = false;
  if (root.dataset.version) setTimeout(watch, 3000);
})();
