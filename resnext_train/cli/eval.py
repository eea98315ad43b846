"""`resnext eval`: evaluate a checkpoint."""

from __future__ import annotations

import time
from typing import Any

from resnext_train.cli.json_file import write_json
from resnext_train.cli.requests import EvalRequest
from resnext_train.cli.run_command import announce, warn
from resnext_train.compute.backend import deterministic_algorithms, torch_refusals_explained
from resnext_train.compute.precision import resolve_precision
from resnext_train.config import FolderData, Recipe
from resnext_train.data.build_loaders import (
    build_color_transform,
    build_eval_loader,
    build_evaluation,
    check_memory,
    memory_format,
    normalisation_text,
    normalisation_warning,
)
from resnext_train.data.build_sources import build_val, split_folder
from resnext_train.data.loader_workers import worker_deaths_explained
from resnext_train.data.sources.class_subset import read_class_names
from resnext_train.distributed.dist_context import DistContext, connect
from resnext_train.errors import InputError
from resnext_train.evaluation import evaluate as evaluation_pass
from resnext_train.inference.stored_network import read_network
from resnext_train.models.architecture import title_of
from resnext_train.models.weight_conversion import CIFAR_PORT
from resnext_train.regular_file import user_path
from resnext_train.run_dir.console import evaluation_shown, print_warning


def evaluate(request: EvalRequest) -> None:
    """Evaluate on all ranks, and print the counts on rank 0."""
    with connect(request.patience_seconds) as context:
        result = _result(request, context)
    if context.is_main:
        _report(result, request.json)


def _result(request: EvalRequest, context: DistContext) -> dict[str, Any]:
    """Evaluate the checkpoint and return the result for printing and --json."""
    path, class_list = request.checkpoint, request.classes
    context.check_agreement("was given", f"--ckpt {path}", "all processes of an evaluation need the same command")
    stored = context.run_on_all_ranks(lambda: read_network(path, request.recipe, request.overrides))
    recipe, classes = stored.recipe, stored.classes
    if classes and class_list:
        raise InputError(f"--classes is for foreign weights; {path} knows the names of its classes")
    source = context.local_rank0_first(lambda: build_val(recipe.data))
    classes = classes or context.run_on_all_ranks(lambda: _foreign_classes(recipe, source.classes, class_list))
    stored.check_classes(len(classes))
    model, origin = stored.build(len(classes))
    if context.is_main and not stored.is_ours:
        announce(f"weights: {origin}")
        if f": {CIFAR_PORT}" in origin.removeprefix(str(path)):
            warn(normalisation_warning(path, recipe.data))
    model.to(context.device, memory_format=memory_format(recipe))  # type: ignore[call-overload]
    evaluation = context.run_on_all_ranks(lambda: build_evaluation(recipe.eval, source, classes))
    context.run_on_all_ranks(lambda: check_memory(recipe, context, train=False))
    loader = build_eval_loader(recipe, evaluation.images, context, print_warning)
    precision = context.run_on_all_ranks(lambda: resolve_precision(recipe.train.precision, context.device))
    context.check_agreement("would compute", f"in {precision.name}", "set train.precision to one that all have")
    started = time.perf_counter()
    # As in the run that the checkpoint is of: cuBLAS may otherwise compute in another order.
    deterministic = deterministic_algorithms(recipe.train.deterministic)
    with deterministic, torch_refusals_explained(), worker_deaths_explained():
        batches = evaluation_shown(loader, len(evaluation.images), context.world_size, context.is_main)
        counts = evaluation_pass.evaluate(
            model, batches, build_color_transform(recipe), precision, context, evaluation.outputs
        )
    seconds = time.perf_counter() - started
    return {
        **counts.to_dict(),
        "images_per_s": counts.count / seconds,
        "protocol": f"{evaluation.protocol}, {normalisation_text(recipe.data)}, {precision.name}",
        "images": evaluation.images.storage.text,
        "data": str(split_folder(recipe.data, "val")) if isinstance(recipe.data, FolderData) else recipe.data.source,
        "checkpoint": str(path),
        "arch": title_of(recipe.model),
    }


def _foreign_classes(recipe: Recipe, data_classes: tuple[str, ...], class_list: str | None) -> tuple[str, ...]:
    """Return class names for weights without any, from --classes or the data, if they agree with model.num_classes."""
    classes = tuple(read_class_names(user_path(class_list), "--classes")) if class_list else data_classes
    stated = recipe.model.num_classes
    if stated not in ("auto", len(classes)):
        raise InputError(
            f"model.num_classes is {stated} but {class_list or 'the data'} has {len(classes)} classes, and foreign "
            "weights hold no class names; list all their classes with --classes"
        )
    return classes


def _report(result: dict[str, Any], json_file: str | None) -> None:
    announce(f"{'network':15s}{result['arch']}, {result['checkpoint']}")
    announce(f"{'images':15s}{result['images']}, {result['data']}")
    announce(f"{'evaluation':15s}{result['protocol']}")
    for name, key in (("accuracy", "top1"), ("top-5 accuracy", "top5")):
        print(f"{name:15s}{result[key]:.3f} %  ({result[f'{key}_correct']} of {result['count']})")
    print(f"{'loss':15s}{result['loss']:.4f}   {result['images_per_s']:.0f} images/s")
    if result["unreadable"]:
        print(f"images left out, because they could not be read: {result['unreadable']}")
    if json_file:
        write_json(json_file, result, indent=2)
