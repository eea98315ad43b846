"""The most confident mistakes, and the sheet of their pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from helpers.image_results import chunked, results_of
from resnext_train.data.decode.jpeg_header import BadImageError
from resnext_train.errors import InputError
from resnext_train.evaluation.mistake_sheet import draw_sheet
from resnext_train.evaluation.mistakes import ConfidentMistakes, Mistake
from resnext_train.evaluation.sheet_text import SheetFont

TITLES = ["tench, Tinca tinca", "crane"]
HEADER = ["resnext50_32x4d", "accuracy 61.4 %"]


def test_they_are_the_wrong_images_of_highest_probability_whatever_the_chunks() -> None:
    results = results_of(300, 7, skipped=(9,))
    results = results._replace(scores=results.scores.round(1))  # so that many are equal
    wrong = [
        Mistake(int(number), int(label), int(best[0]), float(score[0]), int(rank))
        for number, label, rank, _, best, score in zip(*results, strict=True)
        if rank > 0
    ]
    for most, sizes in ((48, [299]), (48, [7] * 42 + [5]), (1, [100, 0, 199]), (1000, [299])):
        sink = ConfidentMistakes(most)
        for chunk in chunked(results, sizes):
            sink.add(chunk)
        assert sink.mistakes() == sorted(wrong, key=lambda m: (-m.score, m.number))[:most]
    assert len(wrong) > 48


def test_mistakes_of_a_diverged_network_come_last() -> None:
    results = results_of(40, 3)
    scores = results.scores.copy()
    scores[:20] = np.nan
    sink = ConfidentMistakes(100)
    sink.add(results._replace(scores=scores))
    assert [m.score >= 0 for m in sink.mistakes()] == sorted((m.score >= 0 for m in sink.mistakes()), reverse=True)
    assert sink.mistakes()[-1].score < 0


def colored(color: tuple[int, int, int], height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    return np.full((height, width, 3), color, np.uint8)


def mistakes(n: int) -> list[Mistake]:
    return [Mistake(i, i % 2, 1 - i % 2, 0.9, 1) for i in range(n)]


def count(sheet: Path, color: tuple[int, int, int]) -> int:
    with Image.open(sheet) as image:
        assert image.format == "PNG"
        return int((np.asarray(image.convert("RGB")) == color).all(2).sum())


def test_every_picture_is_on_the_sheet_in_its_shape(tmp_path: Path) -> None:
    """Small ones enlarged, large ones reduced, arrays and Pillow's images alike."""
    pictures = {0: colored((255, 0, 0)), 1: colored((0, 0, 255), 400, 200), 2: colored((0, 255, 255), 3, 900)}
    sheet = tmp_path / "sheet.png"
    draw_sheet(
        sheet,
        mistakes(4),
        lambda i: pictures[i] if i < 3 else Image.new("L", (10, 10), 200),
        lambda i: f"/data/{i}.png",
        TITLES,
        HEADER,
    )
    side = 192
    assert count(sheet, (255, 0, 0)) == side * side
    assert count(sheet, (0, 0, 255)) == side * side // 2
    assert count(sheet, (0, 255, 255)) == side * 1
    assert count(sheet, (200, 200, 200)) >= side * side


def test_48_pictures_are_six_rows_of_eight_on_a_light_background(tmp_path: Path) -> None:
    draw_sheet(tmp_path / "s.png", mistakes(48), lambda i: colored((255, 0, 0), 8, 8), str, TITLES, HEADER)
    assert count(tmp_path / "s.png", (255, 0, 0)) == 48 * 192 * 192
    with Image.open(tmp_path / "s.png") as image:
        pixels = np.asarray(image)
    assert 8 * 192 < image.width < 8 * 240
    assert pixels[0, 0].min() > 240
    columns = (pixels == (255, 0, 0)).all(2).any(0)
    assert int((np.diff(columns.astype(int)) == 1).sum()) == 8


def test_pictures_that_cannot_be_read_leave_the_others(tmp_path: Path) -> None:
    def picture(i: int) -> NDArray[np.uint8]:
        if i == 0:
            raise BadImageError("the file ends too early")
        if i == 1:
            raise OSError(5, "Input/output error")
        return colored((255, 0, 0))

    draw_sheet(tmp_path / "s.png", mistakes(3), picture, str, TITLES, HEADER)
    assert count(tmp_path / "s.png", (255, 0, 0)) == 192 * 192

    def broken(i: int) -> NDArray[np.uint8]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw_sheet(tmp_path / "s.png", mistakes(1), broken, str, TITLES, HEADER)


def test_any_title_and_name_can_be_drawn(tmp_path: Path) -> None:
    titles = ["Münchner Kätzchen, größer " * 5, "ウサギ" * 40, "", "x" * 500, "\u202eabc\x1b"]
    found = [Mistake(i, i, (i + 1) % 5, score, 1) for i, score in enumerate([1.0, 0.5, 0.0, -1.0, 0.123])]
    names = [os.fsdecode(b"/d/\xff.png"), "", "/", "CIFAR-10 test image 7", "n" * 300]
    draw_sheet(tmp_path / "s.png", found, lambda i: colored((255, 0, 0)), names.__getitem__, titles, ["é" * 500, ""])
    assert count(tmp_path / "s.png", (255, 0, 0)) == 5 * 192 * 192


def test_the_captions_differ_where_titles_do(tmp_path: Path) -> None:
    sheets = []
    for titles in (["cat", "dog"], ["cat", "emu"], ["cat", "dog"]):
        draw_sheet(tmp_path / "s.png", mistakes(1), lambda i: colored((255, 0, 0)), str, titles, HEADER)
        sheets.append((tmp_path / "s.png").read_bytes())
    assert sheets[0] != sheets[1]
    assert sheets[0] == sheets[2]


def test_no_mistakes_are_a_sheet_too_and_a_bad_place_is_refused(tmp_path: Path) -> None:
    draw_sheet(tmp_path / "s.png", [], lambda i: colored((0, 0, 0)), str, TITLES, HEADER)
    assert count(tmp_path / "s.png", (0xFA, 0xFA, 0xFA)) > 10_000
    with pytest.raises(InputError, match=r"^--mistakes: .*no/s\.png cannot be written: "):
        draw_sheet(tmp_path / "no" / "s.png", [], lambda i: colored((0, 0, 0)), str, TITLES, HEADER)
    assert [p.name for p in tmp_path.iterdir()] == ["s.png"]


@pytest.mark.parametrize(
    "text", ["short", "a title of several words that is rather long", "x" * 100, "日本語" * 30, ""]
)
@pytest.mark.parametrize("most", [1, 2, 3])
def test_lines_fit_their_width_and_only_the_last_is_shortened(text: str, most: int) -> None:
    font = SheetFont(15)
    lines = font.wrapped(text, 120, most)
    assert len(lines) <= most
    assert all(font.width(line) <= 120 for line in lines)
    kept = "".join(lines).replace(" ", "")
    whole = text.replace(" ", "")
    assert kept == whole or (kept.endswith("…") and whole.startswith(kept[:-1]))
    assert lines == [text] or font.width(text) > 120 or not text


def test_a_long_file_name_keeps_its_end() -> None:
    font = SheetFont(13)
    name = "n01440764/ILSVRC2012_val_00000293_with_a_long_name.JPEG"
    shown = font.shortened(name, 150, keep_end=True)
    assert font.width(shown) <= 150
    start, end = shown.split("…")
    assert name.startswith(start)
    assert name.endswith(end)
    assert end.endswith(".JPEG")


def test_letters_without_any_font_lose_their_accents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnext_train.evaluation.sheet_text._OTHER_FONTS", ())
    assert SheetFont(15).drawable("Émeu größer, ウ!")[0] == "Emeu gro?er, ?!"
