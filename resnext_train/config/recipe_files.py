"""Find recipes: as a path, or by name among the shipped ones. Imports no torch."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path, PurePath

from resnext_train.errors import InputError


def shipped_recipes() -> Path:
    """Return the folder of the shipped recipes: inside the package (a wheel) or next to it (a checkout)."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_recipe(name: str) -> Path:
    """Return the file of `--config NAME`.

    The first of: an existing path NAME or NAME.yaml; the shipped DATASET/NAME.yaml; the shipped imagenet/NAME.yaml;
    NAME.yaml in another data set's folder, if only one has it; the shipped recipe of a path in a folder configs/, such
    as configs/imagenet/NAME.yaml.

    Raises:
        InputError: no such recipe (the message lists the nearest names), a folder, or an ambiguous name.
    """
    shipped, file = shipped_recipes(), _with_ending(name)
    places = [Path(name), Path(file), *(folder / file for folder in _shipped_folders())]
    if within := _within_configs(file):
        places.append(shipped / within)
    for candidate in places:
        if is_file(candidate):
            return candidate
    known = shipped_names()
    matches = [k for k in known if f"{k}.yaml".endswith("/" + file)]
    if len(matches) == 1:
        return shipped / f"{matches[0]}.yaml"
    if matches:
        raise InputError(f"recipe {name} is ambiguous: give one of {', '.join(matches)}")
    wanted = file.removesuffix(".yaml")
    folder = wanted.rpartition("/")[0]
    beside = [k for k in known if folder and k.rpartition("/")[0] == folder]
    near = (beside and nearest_names(wanted, beside)) or nearest_names(wanted, known)
    if os.path.isdir(name):  # noqa: PTH112  unlike Path.is_dir: False for any odd name
        raise InputError(f"recipe {name} is a folder; give the file of a recipe, or continue a run by --resume {name}")
    hint = f"did you mean {' or '.join(near)}?" if near else "`resnext info` lists the shipped recipes"
    raise InputError(f"recipe {name} not found, neither as a path nor among the shipped recipes; {hint}")


def shipped_names() -> list[str]:
    """Return the names of all shipped recipes for `--config`: those of ImageNet-1K without a folder."""
    shipped = shipped_recipes()
    paths = (p.relative_to(shipped).with_suffix("") for p in shipped.rglob("*.yaml") if not p.name.startswith("_"))
    return sorted(str(path).removeprefix("imagenet/") for path in paths)


def find_base(name: str, recipe: Path) -> Path | None:
    """Return the file of `base: NAME` in `recipe`: in its folder, or shipped."""
    places = [folder / file for folder in (recipe.parent, *_shipped_folders()) for file in (name, _with_ending(name))]
    return next((place for place in places if is_file(place)), None)


def run_name(name: str) -> str:
    """Return the default name of a run of the recipe `name`: its file name without the ending.

    Shipped recipes keep their data set's folder, except ImageNet-1K's, because data sets share file names.
    """
    path, shipped = find_recipe(name).resolve(), shipped_recipes().resolve()
    if path.is_relative_to(shipped):
        return str(path.relative_to(shipped).with_suffix("")).removeprefix("imagenet/")
    return path.stem


def nearest_names(name: str, known: list[str], most: int = 3) -> list[str]:
    """Return those of `known` that someone who wrote `name` may mean, the likeliest first; folders count for little.

    A name may stop early: resnext50 is near to resnext50_32x4d. Of names as near as each other, the shorter comes
    first, and then the one of higher cardinality, as the networks that the ResNeXt paper recommends.
    """
    last = PurePath(name).name.lower()

    def distance(candidate: str) -> float:
        bare = candidate.rpartition("/")[2]
        family = bare.partition("_")[0]
        likeness = (difflib.SequenceMatcher(None, last, part).ratio() for part in (bare, candidate, family))
        return 1 - max(*likeness, 0.99 if last and bare.startswith(last) else 0)

    def numbers(candidate: str) -> list[int]:
        return [-int(n) for n in re.findall(r"\d+", candidate)]

    near = [(distance(k), len(k), numbers(k), k) for k in known]
    limit = min(0.35, min(near)[0] + 0.1)
    ranked: dict[str, str] = {}
    for likely, *_, candidate in sorted(near):
        if likely < limit:
            ranked.setdefault(candidate.rpartition("/")[2], candidate)
    leads = {bare.partition("_")[0]: bare for bare in reversed(ranked)}.values()  # the likeliest of each network
    return [ranked[bare] for bare in sorted(ranked, key=lambda bare: bare not in leads)][:most]


def is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  unlike Path.is_file: False for a path too long or not permitted


def _within_configs(file: str) -> PurePath | None:
    """Return the part of a relative path behind its folder configs/."""
    parts = PurePath(file).parts
    if "configs" not in parts[:-1] or PurePath(file).is_absolute() or ".." in parts:
        return None
    return PurePath(*parts[len(parts) - parts[::-1].index("configs") :])


def _shipped_folders() -> tuple[Path, Path]:
    """Return where a shipped recipe's name starts from: ImageNet-1K's need no folder."""
    return shipped_recipes(), shipped_recipes() / "imagenet"


def _with_ending(name: str) -> str:
    return name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
