"""Evaluate stored networks, one or an ensemble, on the images of a recipe."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from resnext_train.compute.backend import deterministic_algorithms, torch_refusals_explained
from resnext_train.compute.metrics import EvalCounts
from resnext_train.compute.precision import Precision, resolve_precision
from resnext_train.config import FolderData, Recipe
from resnext_train.data.build_loaders import (
    Evaluation,
    build_color_transform,
    build_eval_loader,
    build_evaluation,
    check_memory,
    normalisation_text,
)
from resnext_train.data.build_sources import build_train, build_val, split_folder
from resnext_train.data.loader_workers import worker_deaths_explained
from resnext_train.data.sources.class_subset import read_class_names
from resnext_train.data.sources.image_source import ImageSource
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.same_recipe import check_same_recipe
from resnext_train.errors import InputError
from resnext_train.evaluation.build_scoring import build_scoring
from resnext_train.evaluation.evaluate import evaluate
from resnext_train.evaluation.image_results import ResultSink
from resnext_train.evaluation.inference_network import inference_network
from resnext_train.evaluation.member import Member
from resnext_train.evaluation.result_stream import ResultStream
from resnext_train.evaluation.wilson import wilson_interval
from resnext_train.inference.evaluation_outputs import EvaluationOutputs
from resnext_train.inference.evaluation_request import EvaluationRequest
from resnext_train.inference.predictor import built_network, doubt_about
from resnext_train.inference.recalibration import recalibrate
from resnext_train.inference.stored_network import StoredNetwork, read_network
from resnext_train.models.architecture import title_of
from resnext_train.regular_file import user_path
from resnext_train.run_dir.console import evaluation_shown, print_line, print_warning
from resnext_train.run_dir.result_file import write_json


class EvaluationResult(NamedTuple):
    """What `resnext eval` writes by --json and prints."""

    values: dict[str, Any]
    """On ranks other than 0 only counts."""
    lines: list[str]
    """On rank 0, accuracies and measures for people."""
    tables: list[str]
    """On rank 0, classes and confusions for people."""


def evaluate_networks(request: EvaluationRequest, context: DistContext) -> EvaluationResult:
    """Evaluate on all ranks, and write the files that the request names. Call it with the same request on all ranks.

    Raises:
        InputError: a file, a recipe or the images cannot be used, or networks do not go together.
    """
    names = " ".join(map(str, request.checkpoints))
    given = f"--ckpt {names} --weights {request.weights}"
    context.check_agreement("was given", given, "all processes of an evaluation need the same command")
    stored = context.run_on_all_ranks(
        lambda: [read_network(p, request.recipe, request.overrides, request.weights) for p in request.checkpoints]
    )
    for one in stored:
        check_same_recipe(one.recipe.to_dict(), context)
    recipe = stored[0].recipe
    if request.recipe is None:
        _check_same_views(stored)
    source = context.local_rank0_first(lambda: build_val(recipe.data))
    classes = context.run_on_all_ranks(lambda: _classes(stored, source, request.classes))
    evaluation = context.run_on_all_ranks(lambda: build_evaluation(recipe.eval, source, classes))
    for one in stored:
        context.run_on_all_ranks(one.check_view_sizes)
    context.run_on_all_ranks(lambda: check_memory(recipe, context, train=False))
    precision = context.run_on_all_ranks(lambda: resolve_precision(recipe.train.precision, context.device))
    context.check_agreement("would compute", f"in {precision.name}", "set train.precision to one that all have")
    # As in the run that the checkpoint is of: cuBLAS may otherwise compute in another order.
    deterministic = deterministic_algorithms(recipe.train.deterministic)
    outputs = context.run_on_all_ranks(lambda: _outputs(request, stored[0], evaluation) if context.is_main else None)
    try:
        with deterministic, torch_refusals_explained(), worker_deaths_explained():
            networks = [_Network(one, len(classes), context) for one in stored]
            recalibrated = _recalibrated(networks, request, precision, context)
            members = [network.member(evaluation) for network in networks]
            counts, seconds = _evaluated(members, evaluation, recipe, precision, context, outputs)
        arch = " + ".join(title_of(one.recipe.model) for one in stored)
        correct = f"{counts[0].top1_correct} of {counts[0].count} images correct"
        header = [f"{arch}: {counts[0].top1:.2f} % accuracy", f"{correct}, {names}"]
        context.run_on_all_ranks(lambda: outputs.close(header) if outputs else None)
    except BaseException:
        if outputs:
            outputs.abort()
        raise
    values = {
        **counts[0].to_dict(),
        "images_per_s": counts[0].count / seconds,
        "protocol": f"{evaluation.description}, {normalisation_text(recipe.data)}, {precision.name}",
        "eval": recipe.eval.model_dump(mode="json"),
        "images": evaluation.images.storage.text,
        "data": str(split_folder(recipe.data, "val")) if isinstance(recipe.data, FolderData) else recipe.data.source,
        "checkpoint": names,
        "arch": arch,
        **(_weights(stored[0]) if len(stored) == 1 else {}),
        **({"members": _members(stored, counts[1:])} if len(stored) > 1 else {}),
        **({"unlabelled": evaluation.unlabelled} if evaluation.labels is not None else {}),
        **({"recalibrated_bn": recalibrated} if recalibrated else {}),
        **(outputs.values() if outputs else {}),
    }
    if request.out and context.is_main:
        write_json(Path(request.out) / "result.json", "--out", values)
    return EvaluationResult(values, *(outputs.lines() if outputs else ([], [])))


def _outputs(request: EvaluationRequest, stored: StoredNetwork, evaluation: Evaluation) -> EvaluationOutputs:
    titles = stored.titles_of(evaluation.classes)
    return EvaluationOutputs(evaluation, titles, [request.predictions] if request.predictions else [], request.out)


def _check_same_views(stored: list[StoredNetwork]) -> None:
    """Refuse networks whose recipes show them other images: one decode serves all of them."""
    first = stored[0]
    for other in stored[1:]:
        sides = [one.recipe.eval.short_side for one in (first, other)]
        if sides[0] != sides[1]:
            raise InputError(
                f"{first.path} was evaluated with a short side of {sides[0]} pixels, {other.path} with {sides[1]}; "
                f"choose one for all, as in eval.resize={sides[0]} eval.crop_ratio=null"
            )
        for key in ("protocol", "crop", "scales", "average", "interpolation", "classes", "labels"):
            values = [getattr(one.recipe.eval, key) for one in (first, other)]
            if values[0] != values[1]:
                raise InputError(
                    f"{first.path} was evaluated with eval.{key}={values[0]}, {other.path} with {values[1]}; "
                    f"choose one for all, as in eval.{key}={values[0]}"
                )


def _classes(stored: list[StoredNetwork], source: ImageSource, listed: str | None) -> tuple[str, ...]:
    """Return the classes of all networks, in the order of the outputs of the first one that has names for them.

    Raises:
        InputError: they differ, or --classes is given for networks that know theirs.
    """
    known = next((one for one in stored if one.classes), None)
    if known and listed:
        raise InputError(f"--classes is for foreign weights; {known.path} knows the names of its classes")
    classes = known.classes if known else None
    if classes is None:
        classes = tuple(read_class_names(user_path(listed), "--classes")) if listed else source.classes
        stated = stored[0].recipe.model.num_classes
        if stated not in ("auto", len(classes)):
            raise InputError(
                f"model.num_classes is {stated} but {listed or 'the data'} has {len(classes)} classes, and foreign "
                "weights hold no class names; list all their classes with --classes"
            )
    for one in stored:
        one.check_classes(len(classes))
        if one.classes and set(one.classes) != set(classes):
            raise InputError(f"{one.path} has other classes than {stored[0].path}; an ensemble needs the same")
    return classes


class _Network:
    """A stored network, built on this rank's device."""

    def __init__(self, stored: StoredNetwork, classes: int, context: DistContext) -> None:
        self.stored, self.context = stored, context
        self.model, origin = built_network(stored, context.device, classes)
        if context.is_main and not stored.is_ours:
            print_line(f"weights: {origin}")
            if doubt := doubt_about(stored, origin):
                print_warning(f"warning: {doubt}")

    def member(self, evaluation: Evaluation) -> Member:
        """Return the network as it is evaluated, with its outputs in the order of the evaluation's classes."""
        own, outputs = self.stored.classes, evaluation.outputs
        if own is not None:
            place = {name: i for i, name in enumerate(own)}
            positions = [place[name] for name in evaluation.classes]
            outputs = None if positions == list(range(len(own))) else torch.tensor(positions)
        if outputs is not None:
            outputs = outputs.to(self.context.device)
        return Member(inference_network(self.model), build_color_transform(self.stored.recipe), outputs)


def _recalibrated(
    networks: list[_Network], request: EvaluationRequest, precision: Precision, context: DistContext
) -> int:
    """Take BN statistics anew if it is asked for; return from how many images."""
    if not request.recalibrate_bn:
        return 0
    data = networks[0].stored.recipe.data
    source = context.local_rank0_first(lambda: build_train(data))
    taken = 0
    for network in networks:
        recipe = network.stored.recipe
        context.run_on_all_ranks(lambda: check_memory(recipe, context, train=True))  # noqa: B023  called at once
        taken = recalibrate(network.model, recipe, source, request.recalibrate_bn, precision, context, print_warning)
    return taken


def _evaluated(
    members: list[Member],
    evaluation: Evaluation,
    recipe: Recipe,
    precision: Precision,
    context: DistContext,
    sink: ResultSink | None,
) -> tuple[list[EvalCounts], float]:
    """Return the counts of the ensemble and of each member, and the seconds that all took."""
    loader = build_eval_loader(recipe, evaluation.images, context, print_warning)
    stream = ResultStream(context, sink)
    started = time.perf_counter()
    try:
        batches = evaluation_shown(loader, len(evaluation.images), context.world_size, context.is_main)
        scoring = build_scoring(recipe.eval, evaluation, precision)
        counts = evaluate(members, batches, scoring, context, stream, is_ensemble=True)
    finally:
        loader.close()
    return counts, time.perf_counter() - started


def _weights(stored: StoredNetwork) -> dict[str, Any]:
    """Return which weights were taken, where there was a choice, and after which epoch training evaluated them."""
    result = stored.result or {}
    kind = {"weights": stored.kind} if stored.kind else {}
    return {**kind, **({"epoch": result["epoch"]} if "epoch" in result else {})}


def _members(stored: list[StoredNetwork], counts: list[EvalCounts]) -> list[dict[str, Any]]:
    return [
        {
            "checkpoint": str(one.path),
            "arch": title_of(one.recipe.model),
            **_weights(one),
            **of_one.to_dict(),
            "top1_interval": list(wilson_interval(of_one.top1_correct, of_one.count)),
            "top5_interval": list(wilson_interval(of_one.top5_correct, of_one.count)),
        }
        for one, of_one in zip(stored, counts, strict=True)
    ]
