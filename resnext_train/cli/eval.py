"""resnext-eval: evaluate a checkpoint."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnext_train.cli.json_file import write_json
from resnext_train.cli.run_command import announce, run_command
from resnext_train.distributed.rank import this_rank
from resnext_train.errors import InputError

if TYPE_CHECKING:
    from resnext_train.config import Recipe
    from resnext_train.distributed.dist_context import DistContext

NAME = "resnext-eval"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog=NAME,
        description="Evaluate a checkpoint: every image exactly once, on any number of processes.",
        epilog="example: resnext-eval --ckpt runs/resnext50_32x4d/checkpoints/best.pt --data /path/to/imagenet",
    )
    p.add_argument("--ckpt", required=True, metavar="PATH", help="a checkpoint of resnext-train, or foreign weights")
    p.add_argument(
        "--config",
        metavar="NAME|PATH",
        help="recipe for foreign weights; for our own checkpoints it replaces all sections but the model",
    )
    p.add_argument("--data", metavar="DIR", help="folder with val/, or of classes (default: the recipe's data)")
    p.add_argument(
        "--classes",
        metavar="PATH",
        help="for foreign weights with more classes than the data: all their classes in order, as a file with one name "
        "per line or a folder with a folder per class",
    )
    p.add_argument("--json", metavar="FILE", help="also write the result to this file")
    p.add_argument("overrides", nargs="*", metavar="section.key=value", help="replace a value of the recipe")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_intermixed_args(argv)  # overrides may stand anywhere among the options
    return run_command(NAME, lambda: _evaluate(args))


def _evaluate(args: argparse.Namespace) -> None:
    from resnext_train.config import load_recipe
    from resnext_train.models.architecture import check_model

    overrides = [*args.overrides, *([] if args.data is None else ["data.source=folder", f"data.root={args.data}"])]
    recipe = load_recipe(args.config, overrides) if args.config else None
    if recipe:
        check_model(recipe.model)
    path = Path(args.ckpt)
    if not path.is_file():
        raise InputError(f"--ckpt: checkpoint {path} not found")

    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise InputError(f"--json: the folder of {args.json} does not exist; make it first")

    from resnext_train.distributed.dist_context import connect

    with connect() as context:
        result = _result(path, recipe, overrides, context, args.classes)
    if this_rank().is_main:
        _report(result, args.json)


def _result(
    path: Path, recipe: Recipe | None, overrides: list[str], context: DistContext, class_list: str | None
) -> dict[str, Any]:
    """Evaluate the checkpoint at `path` and return the result for printing and --json."""
    import torch

    from resnext_train.checkpoint import checkpoint_file
    from resnext_train.compute.precision import resolve_precision
    from resnext_train.data.build_loaders import (
        build_color_transform,
        build_eval_loader,
        build_evaluation,
        check_memory,
    )
    from resnext_train.data.build_sources import build_val
    from resnext_train.data.loader_workers import worker_deaths_explained
    from resnext_train.evaluation.evaluate import evaluate
    from resnext_train.models.architecture import title_of
    from resnext_train.models.build_model import build_model
    from resnext_train.models.weight_conversion import classes_in, load_weights

    content = context.run_on_all_ranks(lambda: checkpoint_file.load_file(path))
    recipe, weights, classes = _read_content(content, path, recipe, overrides)
    if classes and class_list:
        raise InputError(f"--classes is for foreign weights; {path} knows the names of its classes")
    source = context.local_rank0_first(lambda: build_val(recipe.data))
    classes = classes or context.run_on_all_ranks(lambda: _foreign_classes(recipe, source.classes, class_list))
    if not checkpoint_file.is_ours(content):
        _check_classes(path, classes_in(weights, recipe.model), len(classes))
    model = build_model(recipe.model, len(classes))
    origin = load_weights(model, weights, str(path), recipe.model)
    if context.is_main and not checkpoint_file.is_ours(content):
        announce(f"weights: {origin}")
    model.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    evaluation = context.run_on_all_ranks(lambda: build_evaluation(recipe.eval, source, classes))
    context.run_on_all_ranks(lambda: check_memory(recipe, context, train=False))
    loader = build_eval_loader(recipe, evaluation.images, context, lambda text: print(text, file=sys.stderr))
    precision = resolve_precision(recipe.train.precision, context.device)
    started = time.perf_counter()
    with worker_deaths_explained():
        counts = evaluate(model, loader, build_color_transform(recipe), precision, context, evaluation.outputs)
    seconds = time.perf_counter() - started
    return {
        **counts.to_dict(),
        "images_per_s": counts.count / seconds,
        "protocol": f"{evaluation.protocol}, {precision.name}",
        "images": evaluation.images.storage.text,
        "checkpoint": str(path),
        "arch": title_of(recipe.model),
    }


def _read_content(
    content: Any, path: Path, recipe: Recipe | None, overrides: list[str]
) -> tuple[Recipe, dict[str, Any], tuple[str, ...] | None]:
    """Return recipe, weights and class names (None: unknown) of a loaded file.

    Our own checkpoints hold their recipe; --config replaces all of its sections but the model.
    """
    from resnext_train.checkpoint import checkpoint_file
    from resnext_train.config import recipe_from_dict
    from resnext_train.models.weight_conversion import find_state_dict

    if not checkpoint_file.is_ours(content):
        if recipe is None:
            raise InputError(f"{path} was not written by resnext-train: give the recipe of its weights with --config")
        return recipe, find_state_dict(content, str(path)), None
    for override in overrides:
        if override.startswith("model."):
            raise InputError(f"override {override!r}: the network of {path} cannot be changed, only evaluated")
    own = recipe_from_dict(content["recipe"], f"recipe in {path}", overrides)
    stored = recipe_from_dict(content["recipe"], f"recipe in {path}")
    used = (recipe or own).model_copy(update={"model": stored.model})
    return used, content["model"], tuple(content["classes"])


def _foreign_classes(recipe: Recipe, data_classes: tuple[str, ...], class_list: str | None) -> tuple[str, ...]:
    """Return class names for weights without any, from --classes or the data, if they agree with model.num_classes."""
    from resnext_train.data.sources.class_subset import read_class_names

    classes = tuple(read_class_names(Path(class_list).expanduser(), "--classes")) if class_list else data_classes
    stated = recipe.model.num_classes
    if stated not in ("auto", len(classes)):
        raise InputError(
            f"model.num_classes is {stated} but {class_list or 'the data'} has {len(classes)} classes, and foreign "
            "weights hold no class names; list all their classes with --classes"
        )
    return classes


def _check_classes(path: Path, outputs: int | None, known: int) -> None:
    """Refuse foreign weights whose number of outputs (None: unknown) is not the number of class names."""
    if outputs not in (None, known):
        raise InputError(
            f"{path} has {outputs} classes, but the names of {known} are known; name all of them in order by --classes"
        )


def _report(result: dict[str, Any], json_file: str | None) -> None:
    announce(f"{result['arch']} from {result['checkpoint']}: {result['protocol']}; images: {result['images']}")
    for k in ("top1", "top5"):
        print(f"{k[:3]}-{k[3:]} {result[k]:.3f} %  ({result[f'{k}_correct']} of {result['count']})")
    print(f"loss  {result['loss']:.4f}   {result['images_per_s']:.0f} images/s")
    if result["unreadable"]:
        print(f"images left out, because they could not be read: {result['unreadable']}")
    if json_file:
        write_json(json_file, result, indent=2)


if __name__ == "__main__":
    raise SystemExit(main())
