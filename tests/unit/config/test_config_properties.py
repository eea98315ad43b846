"""Whatever a recipe file or an override holds: a recipe, or one sentence; soon, and without running anything of it."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.commands import train
from resnext_train.config import Recipe, duration_in_steps, load_recipe, recipe_from_dict, shipped_recipes
from resnext_train.config.yaml_reader import parse
from resnext_train.errors import InputError
from resnext_train.models.architecture import check_model

# To search beyond these cases: python -m pytest --hypothesis-profile=deep tests/unit/config/test_config_properties.py
SHIPPED = sorted(shipped_recipes().rglob("*.yaml"))
SECONDS = 10.0
"""Far more than any recipe takes on a busy machine, far less than what an alias to aliases to aliases would."""


@pytest.fixture(scope="module", autouse=True)
def _scratch() -> Iterator[None]:
    """A working folder to write to, which a recipe that runs code would leave a file in."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield
        assert not Path("evil").exists(), "a recipe ran a command"


def loads_or_refuses(content: bytes, *overrides: str) -> Recipe | str:
    """The recipe, or the sentence with which the loader and the command refuse it."""
    path = Path("recipe.yaml")
    path.write_bytes(content)
    started = time.perf_counter()
    try:
        recipe = load_recipe(str(path), overrides)
        check_model(recipe.model)
    except InputError as error:
        sentence = str(error)
        first, *more = sentence.split("\n  ")  # of several mistakes, a line for each
        assert all(line.isprintable() for line in (first, *more)), sentence
        assert len(first) < 2000
        assert len(more) < 20
        assert all(len(line) < 500 for line in more)
        if not any(override.startswith("-") for override in overrides):  # which argparse takes for options
            said = io.StringIO()
            with contextlib.redirect_stderr(said):
                code = train(["--config", str(path), "--dry-run", *overrides])
            assert code == 2
            begin, _, end = said.getvalue().partition(sentence)
            place = r"(override .*: |recipe\.yaml(, line \d+)?: )?"  # of a network that is none
            assert re.fullmatch(f"resnext train: error: {place}", begin), said.getvalue()
            assert end == "\n"
        return sentence
    finally:
        assert time.perf_counter() - started < SECONDS
    assert duration_in_steps(recipe.schedule.warmup, 5005) >= 0
    again = Path("again.yaml")
    again.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(again)) == recipe, "what a run folder keeps of it reads back"
    return recipe


@given(
    st.sampled_from(SHIPPED),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=12)), min_size=1, max_size=6),
)
def test_bytes_inserted_deleted_and_replaced(path: Path, cuts: list[tuple[float, int, bytes]]) -> None:
    content = shipped(path).encode()
    for where, deleted, inserted in cuts:
        at = int(where * len(content))
        content = content[:at] + inserted + content[at + deleted :]
    loads_or_refuses(content)


def shipped(path: Path) -> str:
    """The text of a shipped recipe, as it means the same in another folder."""
    return re.sub(
        "(?m)^base: ", f"base: {path.parent.relative_to(shipped_recipes())}/", path.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_recipes_that_are_changed_here_are_good_ones(path: Path) -> None:
    assert isinstance(loads_or_refuses(shipped(path).encode(), "model.arch=resnet18"), Recipe)


EVIL = "!!python/object/apply:os.system ['touch evil']"
STRANGE = [
    "", "null", "~", "{}", "[]", "yes", "1e999", "-.inf", ".nan", "-0", "0x" + "f" * 6000, "9" * 5000, "1e5000", "1_0",
    "1:1:1", "2026-13-45", "2026-11-22", "2026-11-22T10:00:00Z", EVIL, "!!python/name:os.system", "!!python/tuple [1]",
    "!!timestamp x", "!!int ''", "!!float ''", "!!float x", "!!bool x", "!!binary x", "!!binary aGk=", "!!set {a, b}",
    "!!omap [a: 1]", "!!pairs [a: 1]", "!!null x", "!unknown x", "!!map []", "!!seq {}", "!!str [a]", "&a [*a]",
    "&a {b: *a}", "*nowhere", "{<<: {a: 1}}", "{<<: 3}", "{=: 3}", "{1: 2}", "{null: 2}", "{2026-11-22: 2}",
    "{.nan: 2}", "? [a, b]\n    : c", "? {a: b}\n    : c", "{? [a] : 1, ? [a] : 2}", '"\\ud800"', '"\\e[2J\\r\\n"',
    '"\\0"', "\ufeffa", "\u202ea", "\x85a", "\u2028", "|\n    a\n    b", ">\n    a", "'", '"', "{", "[", "]", "- ",
    "%YAML 9.9", "--- a", "...", "[" * 500 + "]" * 500, "{a: " * 500 + "1" + "}" * 500, "[" * 500, "a" * 50_000,
    "a: " * 500, "resnet" + "9" * 5000, "resnet" + "9" * 300, "1e308", "1" + "0" * 300 + " epochs",
]  # fmt: skip
"""Values as they stand in the file."""


def quoted(value: object) -> str:
    """JSON, which YAML takes for the same value."""
    return json.dumps(value, default=str)


words = st.text(max_size=20)
numbers = st.integers() | st.floats() | st.integers(-(10**400), 10**400)
values = st.one_of(
    st.sampled_from(STRANGE),
    words,
    st.recursive(
        st.none() | st.booleans() | numbers | words,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
        max_leaves=8,
    ).map(quoted),
)
sections = st.sampled_from(list(Recipe.model_fields))
keys = st.sampled_from(
    sorted({k for s in Recipe.model_json_schema()["$defs"].values() for k in s["properties"]} | {"base"})
)


@st.composite
def recipes(draw: st.DrawFn) -> str:
    """A shipped recipe whose values, keys or sections are changed in one to four places."""
    data: dict[str, Any] = parse(shipped(draw(st.sampled_from(SHIPPED))), "")
    base = data.pop("base", None)
    lines: list[tuple[str, str | dict[str, str]]] = [] if base is None else [("base", quoted(base))]
    lines += [(section, {quoted(k): quoted(v) for k, v in values.items()}) for section, values in data.items()]
    for _ in range(draw(st.integers(1, 4))):
        i = draw(st.integers(0, len(lines) - 1))
        name, held = lines[i]
        new_name = draw(st.one_of(sections, keys, words.map(quoted), values))
        change = draw(st.sampled_from(["value", "value", "value", "key", "section", "rename", "twice", "add"]))
        if change == "value" and isinstance(held, dict) and held:
            lines[i] = name, {**held, draw(st.sampled_from(sorted(held))): draw(values)}
        elif change == "key" and isinstance(held, dict):
            lines[i] = name, {**held, draw(st.one_of(keys, values)): draw(values)}
        elif change == "section":
            lines[i] = name, draw(values)
        elif change == "rename":
            lines[i] = new_name, held
        elif change == "twice":
            lines.append((name, held))
        elif change == "add":
            lines.append((new_name, {draw(keys): draw(values)}))
    return "".join(
        f"{name}: {held}\n"
        if isinstance(held, str)
        else f"{name}:\n" + "".join(f"  {k}: {v}\n" for k, v in held.items())
        for name, held in lines
    )


@given(recipes())
def test_keys_and_values_replaced_renamed_and_doubled(text: str) -> None:
    loads_or_refuses(text.encode(errors="surrogatepass"))


PLACES = [
    "{}", "model: {}", "model: {{arch: {}}}", "model: {{arch: resnet18, {}: 1}}",
    "model: {{arch: resnet18, width: {}}}", "model: {{arch: resnet18}}\n{}: {{a: 1}}",
    "model: {{arch: resnet18}}\nbase: {}", "model: {{arch: resnet18}}\ndata: {}",
    "model: {{arch: resnet18}}\nschedule: {{name: {}}}", "model: {{arch: resnet18}}\nschedule:\n  warmup: {}\n",
    "model: {{arch: resnet18}}\ntrain: {{seed: {}}}",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_every_strange_value_in_every_kind_of_place(place: str) -> None:
    for value in STRANGE:
        loads_or_refuses(place.format(value).encode())


@given(
    section=sections | words,
    key=keys | words,
    value=words | st.sampled_from(STRANGE) | values,
    equals=st.sampled_from(["=", "=", "=", "", "=="]),
)
@example("data", "root", "\udcff", "=")
@example("model", "width", "1e308", "=")
def test_overrides(section: str, key: str, value: str, equals: str) -> None:
    text = f"{section}.{key}{equals}{value}"
    if "\0" not in text:  # which no command line can hold
        loads_or_refuses(b"model: {arch: resnet18}\n", text)


def laughs(levels: int, each: int) -> str:
    """Each level is a list of aliases to the one before."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * each)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        laughs(60, 2),
        laughs(10, 9),
        f"model: {{arch: resnet18}}\naugment:\n  {laughs(40, 9).replace(chr(10), chr(10) + '  ')}\n  area: *a39",
        "a: &a {b: {c: *a}}",
        f"{laughs(40, 9)}\nk: {{? *a39 : 1}}",
        f"{laughs(40, 9)}\n{laughs(40, 9).replace('a', 'b')}\nk: {{? *a39 : 1, ? *b39 : 2}}",
        "x: &x [1]\nk: {? [*x] : 1, ? [*x, *x] : 2}",
        "a: &a {x: 1}\nb: &b {<<: [*a, *a, *a, *a]}\nc: {<<: [*b, *b, *b, *b]}",
    ],
)
def test_aliases_do_not_multiply(text: str) -> None:
    assert isinstance(loads_or_refuses(text.encode()), str)


def test_aliases_may_be_used() -> None:
    recipe = loads_or_refuses(b"model: {arch: resnet18}\ndata: {mean: &m [0.5, 0.5, 0.5], std: *m}\n")
    assert isinstance(recipe, Recipe)
    assert recipe.data.mean == recipe.data.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"model: {arch: \xff}",
        b"\xef\xbb\xbfmodel: {arch: resnet18}",
        "model: {arch: resnet18}".encode("utf-16"),
        b"\0" * 100,
        b"# " + b"x" * 3_000_000,
        b"- a\n" * 200_000,
        b"[" * 900,
        b"".join(b"k%d: 1\n" % n for n in range(60_000)),
        b"",
    ],
    ids=["no text", "latin-1", "BOM", "UTF-16", "zeros", "long", "values", "nesting", "keys", "empty"],
)
def test_files_that_are_none(content: bytes) -> None:
    told = loads_or_refuses(content)
    assert isinstance(told, Recipe) == content.startswith(b"\xef\xbb\xbf")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "a\nb", "\udcff", "\x1b[2J", "", ".", "/", "x" * 300 + ".yaml"])
def test_names_of_recipes(name: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(name)
    assert str(error.value).isprintable()
    assert isinstance(loads_or_refuses(f"base: {quoted(name)}".encode()), str)


def nested(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "section",
    [
        {1: 2},
        {("a",): 2},
        {"arch": object()},
        {"arch": b"x"},
        {"arch": "\ud800"},
        nested(99_999),
        {"width": 10**400},
        "x",
    ],
    ids=lambda value: type(value).__name__,
)
def test_recipes_from_elsewhere(section: Any) -> None:
    """As a checkpoint may hold one that nobody trained."""
    with pytest.raises(InputError, match=r"recipe in x\.pt") as error:
        recipe_from_dict({"model": section}, "recipe in x.pt")
    assert str(error.value).isprintable()
    with pytest.raises(InputError, match=r"recipe in x\.pt"):
        recipe_from_dict(section, "recipe in x.pt")
    held: dict[str, Any] = {"arch": "resnet18"}
    held["blocks"] = [held]
    with pytest.raises(InputError, match=r"recipe in x\.pt"):
        recipe_from_dict({"model": held}, "recipe in x.pt")
