"""What exported weights say of themselves: classes, preprocessing, recipe, result; written and read in one place.

A safetensors file holds it in its header, as strings; `NAME.pth` and `NAME.pt` have it beside them in `NAME.json`.

    export          FORMAT, which distinguishes our files from foreign ones
    network         name of the network, with the hyper-parameters that its name does not say
    classes         class names by output; null: unknown
    titles          class names in plain words, by output; null: unknown
    input           what a network's input is, in words
    resize, crop    evaluation: the image's short side, and the side of the centre crop, in pixels
    interpolation   resampling of the resize, antialiased
    mean, std       of R, G, B, on a scale from 0 to 1
    recipe          the whole recipe, without paths: of data, weights, lists of classes, labels
    recipe_sha256   SHA-256 of its canonical JSON, see `recipe_digest`
    weights_sha256  SHA-256 of the weights, see `weights_digest`
    weights         "ema": the average of a run's weights; "model": its last ones, where it kept an average as well
    result          the evaluation of these weights, counts and per cent, see `EvalCounts.to_dict`; null: none
    versions        of this tool, PyTorch and Python
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from resnext_train import __version__
from resnext_train.checkpoint.checkpoint_file import weights_metadata
from resnext_train.checkpoint.stored_weights import Kind
from resnext_train.config import FolderData, Recipe
from resnext_train.data.multi_labels import REAL
from resnext_train.errors import InputError
from resnext_train.models.architecture import title_of
from resnext_train.regular_file import read_regular

FORMAT = "resnext-train export 1"

INPUT = "float32 (N, 3, H, W), channels R, G, B: (pixel / 255 - mean) / std"

_LARGEST = 1 << 26
"""Bytes of the largest NAME.json that is read."""


class _Result(BaseModel):
    """What of an evaluation is shown again; it may hold more."""

    model_config = ConfigDict(strict=True, extra="allow")

    count: Annotated[int, Field(gt=0)]
    top1_correct: int
    top5_correct: int
    top1: float
    top5: float
    unreadable: int = 0


class Metadata(BaseModel):
    """The parts of the metadata that are read again."""

    model_config = ConfigDict(strict=True, frozen=True)

    export: Literal["resnext-train export 1"]
    classes: list[str] | None
    titles: list[str] | None
    recipe: dict[str, Any]
    recipe_sha256: str
    weights_sha256: str
    weights: Kind | None = None
    result: _Result | None


def make_metadata(
    recipe: Recipe,
    weights: Mapping[str, Tensor],
    classes: Sequence[str] | None,
    titles: Sequence[str] | None,
    result: Mapping[str, Any] | None,
    kind: Kind | None = None,
) -> dict[str, Any]:
    """Return the metadata of exported weights as plain types of JSON."""
    stored = recipe.to_dict()
    return {
        "export": FORMAT,
        "network": title_of(recipe.model),
        "classes": None if classes is None else list(classes),
        "titles": None if titles is None else list(titles),
        "input": INPUT,
        "resize": recipe.eval.short_side,
        "crop": recipe.eval.crop,
        "interpolation": recipe.eval.interpolation,
        "mean": list(recipe.data.mean),
        "std": list(recipe.data.std),
        "recipe": stored,
        "recipe_sha256": recipe_digest(stored),
        "weights_sha256": weights_digest(weights),
        **({"weights": kind} if kind else {}),
        "result": None if result is None else {key: _finite(value) for key, value in result.items()},
        "versions": {
            "resnext-train": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


def portable_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe without the paths of one machine, which others could not use and should not read."""
    places: dict[str, Any] = {"titles": None}
    if isinstance(recipe.data, FolderData):
        places |= {"root": None, "only_classes": None}
    labels = recipe.eval.labels if recipe.eval.labels == REAL else None
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"weights": None}),
            "data": recipe.data.model_copy(update=places),
            "eval": recipe.eval.model_copy(update={"also": {}, "classes": None, "labels": labels}),
        }
    )


def _finite(value: Any) -> Any:
    """Return `value`; None for a number that JSON has not."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON in ASCII with sorted keys; a name of a class may hold bytes that are not text."""
    return json.dumps(value, sort_keys=True, indent=indent)


def as_strings(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata for files that hold strings alone: text as it is, all else as JSON."""
    return {key: value if isinstance(value, str) else to_json(value) for key, value in metadata.items()}


def recipe_digest(recipe: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a recipe's JSON with sorted keys, without spaces, in UTF-8."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of all tensors in the order of their names: name, type, shape and bytes of each."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode(errors="surrogatepass"))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def json_beside(path: Path) -> Path:
    """Return the file that holds the metadata of the weights `path`, if these are no safetensors."""
    return path.with_suffix(".json")


def read_metadata(path: Path, weights: Mapping[str, Tensor]) -> Metadata | None:
    """Read the metadata of the `weights` in `path`, and check that they belong together; None: it has none of ours.

    Raises:
        InputError: the metadata is damaged, or belongs to other weights.
    """
    content, where = _content(path)
    if content is None or content.get("export") != FORMAT:
        if content is not None and str(content.get("export", "")).startswith("resnext-train export"):
            raise InputError(f"{where} is of another version of resnext-train: {content['export']}")
        return None
    try:
        metadata = Metadata.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{where} is damaged: {key[:120]}: {first['msg'][:1].lower()}{first['msg'][1:120]}") from error
    _check(metadata, weights, path, where)
    return metadata


def _check(metadata: Metadata, weights: Mapping[str, Tensor], path: Path, where: str) -> None:
    if recipe_digest(metadata.recipe) != metadata.recipe_sha256:
        raise InputError(f"{where} is damaged: its recipe does not match its checksum; export the weights again")
    if weights_digest(weights) != metadata.weights_sha256:
        raise InputError(
            f"{path} does not match the checksum in {where}: the weights are damaged, or others than were exported; "
            "export them again"
        )
    for name, texts in (("classes", metadata.classes), ("titles", metadata.titles)):
        if texts is not None and len(texts) != len(metadata.classes or ()):
            raise InputError(f"{where} is damaged: {len(texts)} {name} for {len(metadata.classes or ())} classes")
    if metadata.classes is not None and len(set(metadata.classes)) != max(1, len(metadata.classes)):
        raise InputError(f"{where} is damaged: its classes are none, or one is there twice")


def _content(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the metadata in or beside a file of weights, unchecked, and its place in words."""
    strings = weights_metadata(path)
    if strings is not None:
        where = f"the metadata of {path}"
        if strings.get("export") != FORMAT:
            return dict(strings), where
        return {key: value if key in _TEXTS else _parsed(value, where, key) for key, value in strings.items()}, where
    beside = json_beside(path)
    if beside == path or not beside.is_file():
        return None, ""
    try:
        text = read_regular(beside, _LARGEST).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{beside}, beside the weights, cannot be read: {error}") from error
    content = _parsed(text, f"{beside}, beside the weights,", "")
    return (content if isinstance(content, dict) else None), str(beside)


_TEXTS = {"export", "format", "network", "input", "interpolation", "recipe_sha256", "weights_sha256", "weights"}
"""Keys whose values are text, which is in a safetensors file as it is; `format` is safetensors' own."""


def _parsed(text: str, where: str, key: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is damaged: {key or 'it'} is no JSON") from error
