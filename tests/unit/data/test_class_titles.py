"""Titles of classes: from a file that a user names, from the data's own, from ImageNet's lists."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from resnext_train.data import class_titles
from resnext_train.data.class_titles import find_titles, imagenet_wnids, short_title, short_titles, timm_file
from resnext_train.errors import InputError

TENCH, CRANE, CRANE_TOO = "n01440764", "n02012849", "n03126707"


@pytest.fixture
def no_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "timm" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        "cat\tHauskatze, Felis catus\ndog  Hund\n",
        "\ufeff# comment\r\ndog\t Hund \r\n\r\ncat\tHauskatze,  Felis catus\r\n",
        '{"cat": "Hauskatze, Felis catus", "dog": "Hund"}',
    ],
)
def test_a_named_file_has_lines_or_a_json_object(text: str, tmp_path: Path) -> None:
    file = written(tmp_path / "names", text)
    assert find_titles(["dog", "emu", "cat"], file) == ("Hund", "emu", "Hauskatze, Felis catus")


def test_a_tab_ends_a_name_that_has_spaces(tmp_path: Path) -> None:
    file = written(tmp_path / "names", "golden retriever\tGolden Retriever (Hund)\n")
    assert find_titles(["golden retriever"], file) == ("Golden Retriever (Hund)",)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cat\tCat\ndog\n", "dog"),
        (b"cat\tCat\ncat\tKatze\n", "cat"),
        (b'{"cat": "Cat", "cat": "Katze"}', "cat"),
        (b'{"cat": 3}', "cat"),
        (b'{"cat": ', "JSON"),
        (b'{"cat": ' + b"[" * 100_000, "JSON"),
        (b"emu\tEmu\n", "cat"),
        (b"", "cat"),
        (b"cat\t\xff\n", "UTF-8"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_a_bad_named_file_is_refused(content: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(InputError, match=rf"^data\.titles: {tmp_path / 'names'} ?.*{named}"):
        find_titles(["cat", "dog"], str(tmp_path / "names"))


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 40)
    for name in ("missing", "pipe", "large"):
        with pytest.raises(InputError, match=name):
            find_titles(["cat"], str(tmp_path / name))


@pytest.mark.parametrize("name", ["words.txt", "LOC_synset_mapping.txt", "titles.txt"])
@pytest.mark.parametrize("folder", [".", ".."])
def test_the_data_brings_its_own_titles(name: str, folder: str, tmp_path: Path) -> None:
    """In Tiny ImageNet's form, with a tab, and Kaggle's, with a space."""
    root = tmp_path / "data"
    root.mkdir()
    gap = " " if name.startswith("LOC") else "\t"
    written(root / folder / name, f"line\n\n{TENCH}{gap}my tench, Tinca tinca\nn00000000{gap}other\n")
    assert find_titles([TENCH, "cat"], root=root) == ("my tench, Tinca tinca", "cat")


def test_a_named_file_comes_before_the_data_and_the_data_before_imagenet(tmp_path: Path) -> None:
    written(tmp_path / "words.txt", f"{TENCH}\tof the data\n")
    file = written(tmp_path / "names", f"{TENCH} of the user\n")
    assert find_titles([TENCH], file, tmp_path) == ("of the user",)
    assert find_titles([TENCH], None, tmp_path) == ("of the data",)
    assert find_titles([CRANE], None, tmp_path) == ("crane",), "it does not know this class"


def test_titles_of_the_data_that_cannot_be_read_do_not_end_a_run(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(b"\xff\xfe\n")
    with pytest.warns(UserWarning, match=r"words\.txt"):
        assert find_titles(["cat"], root=tmp_path) is None
    written(tmp_path / "words.txt", "cat\n")
    assert find_titles(["cat"], root=tmp_path) is None, "a list of words has no titles"
    (tmp_path / "words.txt").unlink()
    os.mkfifo(tmp_path / "words.txt")
    assert find_titles(["cat"], root=tmp_path) is None


def test_imagenet_is_known_without_timm(no_timm: None) -> None:
    assert timm_file("imagenet_synset_to_lemma.txt") is None
    assert find_titles([CRANE, TENCH, "n00004475"]) == ("crane", "tench, Tinca tinca", "n00004475")
    assert find_titles(["cat", "n00004475"]) is None


def test_timm_knows_all_of_imagenet() -> None:
    pytest.importorskip("timm")
    assert find_titles(["n00004475", "cat"]) == ("organism, being", "cat")


def test_the_shipped_list_is_that_of_timm(no_timm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(imagenet_wnids()) == 1000
    shipped = find_titles(imagenet_wnids())
    monkeypatch.undo()
    lemmas, synsets = timm_file("imagenet_synset_to_lemma.txt"), timm_file("imagenet_synsets.txt")
    if lemmas is None or synsets is None:
        pytest.skip("timm is not installed")
    titles = dict(line.split("\t") for line in lemmas.read_text().splitlines())
    assert list(imagenet_wnids()) == synsets.read_text().split()
    assert shipped == tuple(titles[name] for name in imagenet_wnids())


def test_titles_of_classes_without_such_names_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_titles, "_SHIPPED", Path("/missing"))
    with warnings.catch_warnings():
        assert find_titles(["cat", "n0144076", "n014407640"]) is None


def test_short_titles_are_the_first_synonyms_and_differ() -> None:
    assert short_title("tench, Tinca tinca") == "tench"
    assert [short_title(title) for title in ("", ", x")] == ["", ", x"]
    classes = [CRANE, TENCH, CRANE_TOO]
    shown = short_titles(classes, ["crane", "tench, Tinca tinca", "crane, derrick"])
    assert shown == (f"crane ({CRANE})", "tench", f"crane ({CRANE_TOO})")
    assert short_titles(["a, b", "c"], None) == ("a, b", "c")


def test_a_title_cannot_control_a_terminal(tmp_path: Path) -> None:
    file = written(tmp_path / "names", json.dumps({"cat": "a\x1b[31m\n b"}))
    assert find_titles(["cat"], file) == (r"a\x1b[31m b",)
