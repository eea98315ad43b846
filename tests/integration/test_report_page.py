"""The page of a report in a browser: on a phone and on a desk, light and dark, by keyboard, printed, and live."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from helpers.browser import Scheme, open_browser, open_page
from helpers.run_folders import write_run
from helpers.shared import made_once
from resnext_train.report.page.html_report import write_html
from resnext_train.report.page.palette import DARK, LIGHT
from resnext_train.report.page.watch import LiveReport, open_server
from resnext_train.report.report_content import build_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

PHONE, DESK = 390, 1440


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


def make_pages(folder: Path) -> None:
    """Pages of 1, 3 and 60 runs; their names say in which order their accuracies are."""
    folder.mkdir()
    for number in (1, 3, 60):
        runs = folder / str(number)
        for i in range(number):
            last = 9.5 + i  # so that a sort by text would put 9.50 behind 10.50
            accuracies = np.linspace(5, last, 4).tolist()
            wrong = range(0, 600, 2) if i < 2 else None
            write_run(runs / f"a_run_of_some_length_{i:02d}", accuracies, seed=i, wrong=wrong)
        write_html(folder / f"{number}.html", build_report([runs]))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "report_pages", make_pages)


def address(pages: Path, runs: int) -> str:
    return (pages / f"{runs}.html").as_uri()


def rgb(color: str) -> str:
    return "rgb({}, {}, {})".format(*(int(color[i : i + 2], 16) for i in (1, 3, 5)))


WIDER_THAN_THE_WINDOW = """() => {
    const end = document.documentElement.clientWidth + 1;
    return [...document.body.querySelectorAll("*")]
      .filter((e) => !e.closest(".scroll *, svg *, .skip") && e.getBoundingClientRect().right > end)
      .map((e) => e.outerHTML.slice(0, 80));
  }"""

UNSEEN_FIGURES = """() => [...document.querySelectorAll("figure")].filter((figure) => {
    const box = figure.querySelector("svg, img").getBoundingClientRect();
    return box.width < 100 || box.height < 60 || figure.querySelector("figcaption").getBoundingClientRect().height < 10;
  }).map((figure) => figure.id)"""

SMALLEST_TEXT = """() => Math.min(...[...document.querySelectorAll("svg.plot")].map((svg) =>
    Math.min(...[...svg.querySelectorAll("text")].map((t) => +t.getAttribute("font-size")))
    * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_all_of_it_fits_the_window(browser: Browser, pages: Path, width: int, scheme: Scheme) -> None:
    for runs in (1, 3, 60):
        with open_page(browser, address(pages, runs), width, scheme) as page:
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert page.evaluate(WIDER_THAN_THE_WINDOW) == []
            assert page.evaluate(UNSEEN_FIGURES) == []
            assert page.locator("figure").count() == 5 + 3 * min(runs, 2)
            assert page.evaluate(SMALLEST_TEXT) >= 8
            theme = DARK if scheme == "dark" else LIGHT
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == rgb(theme.surface)
            if runs == 3:
                curve = page.locator("#error [data-run='1'] path").first
                assert curve.evaluate("e => getComputedStyle(e).stroke") == rgb(theme.series[1])


def tab_to(page: Page, wanted: str, most: int = 60) -> None:
    """Press Tab until the element of id `wanted` has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == wanted:
            return
    pytest.fail(f"{most} times Tab do not lead to {wanted}")


def column(page: Page, table: str, head: str) -> list[str]:
    heads = [text.strip() for text in page.locator(f"#{table} thead th").all_inner_texts()]
    place = next(i for i, text in enumerate(heads) if text.startswith(head))
    return [row.split("\t")[place].strip() for row in page.locator(f"#{table} tbody tr").all_inner_texts()]


def test_all_of_it_is_reached_by_keyboard(browser: Browser, pages: Path) -> None:
    with open_page(browser, address(pages, 3), DESK) as page:
        tab_to(page, "skip", 1)
        assert page.locator("#skip").bounding_box()["y"] >= 0  # type: ignore[index]
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.reload()
        tab_to(page, "theme")
        for expected in (DARK, LIGHT):
            page.keyboard.press("Enter")
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == rgb(expected.surface)
        tab_to(page, "pick-1")
        curve = page.locator("#error [data-run='1']").first
        assert page.locator("#figures.dim [data-run='1'].on").count() > 0  # it stands out while it has the focus
        page.keyboard.press("Space")
        assert curve.is_hidden()
        page.keyboard.press("Space")
        assert curve.is_visible()
        tab_to(page, "scroll-results")
        tab_to(page, "sort-rows-results-0")
        page.keyboard.press("Enter")
        assert page.locator("#rows-results th[aria-sort=ascending]").count() == 1
        tab_to(page, "open-a_run_of_some_length_01", 80)
        page.keyboard.press("Enter")
        assert page.locator("#confusion-2").is_visible()


def test_numbers_are_sorted_as_numbers(browser: Browser, pages: Path) -> None:
    with open_page(browser, address(pages, 60), DESK) as page:
        accuracies = [f"{9.5 + i:.2f}" for i in range(60)]
        assert column(page, "rows-results", "Best accuracy") == accuracies
        button = page.locator("#rows-results thead button", has_text="Best accuracy")
        button.click()
        assert column(page, "rows-results", "Best accuracy") == accuracies[::-1]
        button.click()
        assert column(page, "rows-results", "Best accuracy") == accuracies
        assert page.locator("#rows-results th[aria-sort]").get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize(
    ("texts", "rising"),
    [
        (
            ["3 d 04 h", "12 min 05 s", "42 s", "–", "1 h 00 min"],
            ["42 s", "12 min 05 s", "1 h 00 min", "3 d 04 h", "–"],
        ),
        (["4.26 G", "600.00 M", "–", "0.55 G"], ["0.55 G", "600.00 M", "4.26 G", "–"]),
        (["+0.30", "−1.20", "−0.10", "0"], ["−1.20", "−0.10", "0", "+0.30"]),
        (["25,028,904", "270,896", "1,001"], ["1,001", "270,896", "25,028,904"]),
        (["10.00 ± 0.10", "9.99 ± 3.00"], ["9.99 ± 3.00", "10.00 ± 0.10"]),
        (["0.02", "3.1e-05"], ["3.1e-05", "0.02"]),
    ],
    ids=["times", "operations", "signs", "thousands", "means", "powers"],
)
def test_units_and_signs_are_understood(browser: Browser, pages: Path, texts: list[str], rising: list[str]) -> None:
    with open_page(browser, address(pages, 60), DESK) as page:
        page.evaluate(
            """(texts) => {
                const place = [...document.querySelectorAll("#rows-results thead th")]
                    .findIndex((head) => head.textContent.startsWith("Best accuracy"));
                [...document.querySelectorAll("#rows-results tbody tr")].forEach((row, i) => {
                    if (i >= texts.length) row.remove();
                    else row.cells[place].textContent = texts[i];
                });
            }""",
            texts,
        )
        button = page.locator("#rows-results thead button", has_text="Best accuracy")
        button.click()
        button.click()
        assert column(page, "rows-results", "Best accuracy") == rising


def test_all_and_none(browser: Browser, pages: Path) -> None:
    with open_page(browser, address(pages, 60), DESK) as page:
        curves = page.locator("#error .run:not(.off)")
        assert curves.count() == 2 * 60
        page.locator("#show-none").click()
        assert curves.count() == 0
        page.locator("#pick-7").check()
        assert curves.count() == 2
        page.locator("#show-all").click()
        assert curves.count() == 2 * 60


def test_on_paper_it_is_light_and_unfolded(browser: Browser, pages: Path) -> None:
    with open_page(browser, address(pages, 3), DESK, "dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert (
            page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--surface')") == LIGHT.surface
        )
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == rgb(LIGHT.surface)
        assert page.locator("#theme").is_hidden()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("#confusion-1 svg").is_visible()
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == rgb(LIGHT.surface)
        assert page.pdf()[:5] == b"%PDF-"


def test_without_scripts_all_is_there(browser: Browser, pages: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address(pages, 3))
    assert page.locator("#error svg").is_visible()
    assert page.locator("#picker").is_visible()
    for useless in ("#theme", "#pick-0", "#show-all"):
        assert page.locator(useless).is_hidden()
    context.close()


def test_a_live_page_renews_itself_under_its_reader(browser: Browser, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = write_run(runs / "first", [10.0, 20.0], epochs=9, status="running", wrong=range(9))
    write_run(runs / "second", [30.0], wrong=range(9))
    with open_server(LiveReport([runs]), 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            with open_page(browser, f"http://127.0.0.1:{server.server_address[1]}/", DESK) as page:
                page.locator("#pick-1").uncheck()
                page.locator("#open-first").click()
                page.locator("#rows-results thead button").first.click()
                page.locator("#open-second").focus()
                page.evaluate("scrollTo(0, 500)")
                event = {"event": "epoch", "step": 60, "epoch": 3, "val_count": 1000, "val_top1_correct": 770}
                with (first / "log.jsonl").open("a") as log:
                    log.write(json.dumps(event) + "\n")
                page.locator("#summary", has_text="77.00 %").wait_for()
                assert page.evaluate("document.activeElement.id") == "open-second"
                assert page.evaluate("scrollY") == 500
                assert page.locator("#details-first").get_attribute("open") is not None
                assert page.locator("#details-second").get_attribute("open") is None
                assert not page.locator("#pick-1").is_checked()
                assert page.locator("#error [data-run='1']").first.is_hidden()
                assert page.locator("#rows-results th[aria-sort]").count() == 1
        finally:
            server.shutdown()
