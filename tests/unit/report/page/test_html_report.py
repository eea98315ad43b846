"""The page of a report: one file that is complete, safe and the same for the same runs, whatever the runs hold."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from datetime import datetime, timezone
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from helpers.run_folders import write_evaluation, write_run
from resnext_train.report.page.html_report import write_html
from resnext_train.report.page.palette import LIGHT
from resnext_train.report.report_content import Report, build_report
from resnext_train.report.tables.table import Column, Table

SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """The elements of a page, by tag, with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]] = self.texts.get(self._open[-1], "") + data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(attribute)) is not None]


def written(out: Path, *paths: Path) -> str:
    write_html(out, build_report(paths))
    return out.read_text().replace("\u00a0", " ")


def inline_svgs(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(part) for part in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    for seed in range(3):
        accuracies = np.linspace(20, 60 + seed, 8).tolist()
        write_run(folder / f"seed{seed}", accuracies, seed=seed, ema=accuracies, wrong=range(7 * seed, 400))
    return folder


@pytest.fixture(scope="module")
def page(three: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("out") / "page.html", three)


def test_it_needs_nothing_else(page: str) -> None:
    parsed = Page(page)
    addresses = [*parsed.values("src"), *parsed.values("href")]
    assert len(addresses) > 10
    assert not [a for a in addresses if not a.startswith(("#", "data:"))]
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_its_policy_allows_its_own_style_and_script_alone(page: str) -> None:
    parsed = Page(page)
    (policy,) = [m["content"] for m in parsed.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed[f"{tag}-src"] == f"'sha256-{digest}'"
    assert "connect-src" not in allowed
    assert not parsed.values("style")
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]


def test_its_ids_are_unique_and_lead_somewhere(page: str) -> None:
    parsed = Page(page)
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    targets = [href[1:] for href in parsed.values("href") if href.startswith("#")]
    targets += re.findall(r"url\(#([^)]+)\)", page)
    targets += " ".join(parsed.values("aria-labelledby") + parsed.values("aria-describedby")).split()
    assert set(targets) <= set(ids)


def test_its_headings_are_in_order(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(page).elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_each_figure_has_a_caption(page: str) -> None:
    parsed = Page(page)
    figures = len(parsed.all("figure"))
    assert figures == len(parsed.all("figcaption"))
    # Errors, learning rate, speed, waiting and memory; and of each run its classes, confusions and mistakes.
    assert figures == 5 + 3 * 3
    assert all(image["alt"] for image in parsed.all("img"))


def test_its_pictures_are_drawn_in_the_colours_of_the_page(page: str) -> None:
    svgs = inline_svgs(page)
    assert len(svgs) == 5 + 3 * 2
    for svg in svgs:
        values = [value for element in svg.iter() for value in element.attrib.values()]
        assert not [value for value in values if re.fullmatch("#[0-9a-f]{6}", value)]
        assert not {element.tag.removeprefix(SVG) for element in svg.iter()} & {"script", "style", "metadata", "image"}


def test_runs_can_be_told_in_the_curves(page: str) -> None:
    errors = inline_svgs(page)[0]
    runs = [group.get("data-run") for group in errors.iter("g") if group.get("class") == "run"]
    assert sorted(map(str, runs)) == [*"000111222"]  # training, validation and average of each
    colours = {
        str(group.get("data-run")): path.get("stroke")
        for group in errors.iter("g")
        if group.get("class") == "run"
        for path in group.iter("path")
    }
    assert colours == {str(i): f"var(--series-{i})" for i in range(3)}


def test_a_curve_has_the_numbers_of_the_log(tmp_path: Path) -> None:
    accuracies = [50.0, 40.0, 55.0, 70.0]
    text = written(tmp_path / "page.html", write_run(tmp_path / "run", accuracies))
    (curve,) = [
        path
        for group in inline_svgs(text)[0].iter("g")
        if group.get("data-run") == "0"
        for path in group.iter("path")
        if not path.get("stroke-dasharray")
    ]
    points = np.array([float(n) for n in re.findall(r"[\d.]+", str(curve.get("d")))]).reshape(-1, 2)
    assert len(points) == 4
    assert np.diff(points[:, 0]) == pytest.approx([points[1, 0] - points[0, 0]] * 3, abs=0.11)
    # Errors of 50, 60, 45 and 30 %: down is more in SVG.
    assert np.diff(points[:, 1]) / (points[1, 1] - points[0, 1]) == pytest.approx([1, -1.5, -1.5], abs=0.01)
    assert points[1, 1] < points[0, 1]


@pytest.mark.slow
def test_the_plots_are_also_files(three: Path, tmp_path: Path) -> None:
    text = written(tmp_path / "my page.html", three)
    folder = tmp_path / "my page_plots"
    assert "<code>my page_plots</code>" in text
    names = {path.stem for path in folder.glob("*.svg")}
    assert names == {path.stem for path in folder.glob("*.png")}
    assert {"error", "learning_rate", "speed", "data_wait", "memory", "classes-1", "confusion-3"} <= names
    drawn = ElementTree.parse(folder / "error.svg")
    texts = [element.text for element in drawn.iter(f"{SVG}text")]
    assert {"top-1 error, %", "epoch", "training", "validation", "seed0", "seed1", "seed2"} <= set(texts)
    with Image.open(folder / "error.png") as image:
        assert image.width == 936
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    assert set(LIGHT.series[:3]) <= {f"#{bytes(colour).hex()}" for colour in colours}


def test_the_same_runs_give_the_same_bytes(three: Path, tmp_path: Path) -> None:
    report = build_report([three / "seed1"])
    for name in "ab":
        (tmp_path / name).mkdir()
        write_html(tmp_path / name / "page.html", report)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()} for name in "ab"]
    assert files[0] == files[1]


HOSTILE = "<script>alert(1)</script>$x^2$_&\"'"


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    names = [HOSTILE.replace("/", "⁄"), "line\nend\x1b[31m\x01", "_under", "zebra 斑马 \u202e", "a" * 150]
    for name in names:
        write_run(tmp_path / "runs" / name, wrong=range(3) if name == "_under" else None)
    write_run(tmp_path / "runs" / "bytes\udcff")
    classes = tmp_path / "runs" / "_under" / "evaluation"
    for file in ("classes.csv", "confusion.csv"):
        content = (classes / file).read_text().replace("class_0001", '"' + HOSTILE.replace('"', '""') + '"')
        (classes / file).write_text(content)
    text = written(tmp_path / "page.html", tmp_path / "runs")
    parsed = Page(text)
    assert len(parsed.all("script")) == 1
    assert "<script>alert" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "bytes\\udcff" in text
    assert any(HOSTILE.replace("/", "⁄") == value for value in parsed.values("data-name"))
    in_figures = [element.text or "" for svg in inline_svgs(text) for element in svg.iter("text")]
    assert [t for t in in_figures if t.startswith("<script>alert(")], "a class's name, shortened"
    for path in (tmp_path / "page_plots").glob("*.svg"):
        assert not [e for e in ElementTree.parse(path).iter() if e.tag.endswith("script")]


def test_tables_of_any_text_are_escaped(tmp_path: Path) -> None:
    table = Table("x", HOSTILE, HOSTILE, (Column(HOSTILE), Column("n", True)), ((HOSTILE, ""), ("b", "1")))
    when = datetime(2024, 5, 6, 7, 8, tzinfo=timezone.utc)
    write_html(tmp_path / "page.html", Report(HOSTILE, (), (table,), when, HOSTILE))
    text = (tmp_path / "page.html").read_text()
    parsed = Page(text)
    assert parsed.texts["title"].strip() == HOSTILE
    assert parsed.texts["h2"].startswith(HOSTILE)
    assert "<script>alert" not in text
    assert "6 May 2024, 07:08 UTC" in text
    assert "–" in parsed.texts["td"]


def damage(run: Path, kind: str) -> None:
    evaluation = run / "evaluation"
    if kind == "empty":
        shutil.rmtree(run)
        run.mkdir()
        (run / "log.jsonl").touch()
    elif kind == "only a recipe":
        for path in (run / "log.jsonl", run / "summary.json", run / "state.json"):
            path.unlink()
    elif kind == "binary":
        for path in (*run.glob("*.*"), *evaluation.iterdir()):
            path.write_bytes(np.random.default_rng(0).bytes(500))
    elif kind == "cut":
        for path in (*run.glob("*.*"), *evaluation.iterdir()):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "other types":
        text = re.sub(r": -?[\d.]+(e-?\d+)?(?=[,}])", ': {"a": ["x"]}', (run / "log.jsonl").read_text())
        (run / "log.jsonl").write_text(re.sub(r'"step": \{.*?\}', '"step": 3', text))
        (run / "summary.json").write_text('{"best": [1], "last": "x", "seconds": "long", "network": 3}')
    elif kind == "folders":
        for path in (run / "summary.json", evaluation / "classes.csv", evaluation / "mistakes.png"):
            path.unlink()
            path.mkdir()
    else:
        (run / "state.json").write_text('{"status": "running", "step": 20}')
        (run / "summary.json").unlink()


KINDS = ["empty", "only a recipe", "binary", "cut", "other types", "folders", "running"]


def test_damaged_and_young_runs_are_shown_as_far_as_they_go(tmp_path: Path) -> None:
    for kind in KINDS:
        damage(write_run(tmp_path / "runs" / kind, wrong=range(5)), kind)
    write_run(tmp_path / "runs" / "unharmed", wrong=range(5))
    text = written(tmp_path / "page.html", tmp_path / "runs")
    for name in (*KINDS, "unharmed"):
        assert f"</span>{name}</th>" in text
    drawn = {g.get("data-run") for svg in inline_svgs(text) for g in svg.iter("g") if g.get("class") == "run"}
    assert drawn == {str(i) for i, name in enumerate(sorted([*KINDS, "unharmed"])) if name not in NOTHING_LOGGED}
    said = dict(re.findall(r'<details id="details-([^"]+)".*?(<p class="problem">|</details>)', text, re.DOTALL))
    assert {name for name, problem in said.items() if problem.startswith("<p")} == {"binary", "cut", "folders"}


NOTHING_LOGGED = {"empty", "only a recipe", "binary", "other types"}


@pytest.mark.parametrize("kind", ["empty", "binary"])
def test_a_page_may_have_nothing_to_draw(tmp_path: Path, kind: str) -> None:
    damage(write_run(tmp_path / "harmed", wrong=[]), kind)
    text = written(tmp_path / "page.html", tmp_path / "harmed")
    assert "Run harmed" in text
    assert not inline_svgs(text)
    assert not (tmp_path / "page_plots").exists()
    assert "beside this file" not in text


def test_early_errors_do_not_squash_the_others(tmp_path: Path) -> None:
    accuracies = [5.0, 30.0, *np.linspace(60, 70, 28)]
    text = written(tmp_path / "page.html", write_run(tmp_path / "run", accuracies))
    assert "The axis ends at 45 %; errors above it, up to 97 %, are not shown." in text
    short = written(tmp_path / "short.html", write_run(tmp_path / "short", accuracies[:4]))
    assert "The axis ends" not in short


def test_learning_rates_of_all_phases_can_be_seen(tmp_path: Path) -> None:
    def caption(name: str, rates: list[float]) -> str:
        run = tmp_path / name
        run.mkdir()
        steps = [{"event": "step", "step": i + 1, "epoch": 1, "lr": rate} for i, rate in enumerate(rates)]
        (run / "log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
        found = re.search(r'id="learning_rate-caption">([^<]+)<', written(tmp_path / f"{name}.html", run))
        assert found
        return found[1]

    assert caption("constant", [0.1] * 50) == "Learning rate by epoch."
    assert caption("steps", [0.1] * 20 + [0.01] * 20 + [0.001] * 20).endswith("The axis is logarithmic.")
    cosine = [0.05 * (1 + np.cos(np.pi * i / 300)) for i in range(301)]
    assert caption("cosine", cosine).endswith("and the lowest values are below it.")


def test_skipped_steps_are_drawn_or_said_to_be_none(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert "No step was skipped" in written(tmp_path / "page.html", run)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"event": "skipped", "step": 7, "text": "step 7 was skipped"}\n')
    text = written(tmp_path / "page.html", run)
    assert "No step was skipped" not in text
    assert 'id="skipped"' in text


@pytest.mark.slow  # draws the figures of 17 runs
def test_of_many_runs_the_best_have_their_classes_shown(tmp_path: Path) -> None:
    for i in range(17):
        write_run(tmp_path / "runs" / f"run{i:02d}", [50.0 + i], wrong=range(30) if i > 11 else None)
    text = written(tmp_path / "page.html", tmp_path / "runs")
    shown = re.findall(r'<details id="details-([^"]+)"', text)
    assert shown == ["run13", "run14", "run15", "run16"]
    assert "Shown for 4 of 17 runs" in text
    assert "66.0 % best accuracy" in text


@pytest.mark.slow
def test_mistakes_are_shown_small(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_evaluation(run / "evaluation", 40, {1})
    noise = np.random.default_rng(0).integers(0, 256, (900, 1740, 3), dtype=np.uint8)
    Image.fromarray(noise).save(run / "evaluation" / "mistakes.png")
    text = written(tmp_path / "page.html", run)
    (picture,) = Page(text).all("img")
    kind, content = str(picture["src"]).split(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.size == (1400, 724)
    assert (picture["width"], picture["height"]) == ("1400", "724")
