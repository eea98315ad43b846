"""Stage H: compiled steps are close to eager ones, and each size of micro-batch is compiled once."""

from __future__ import annotations

from typing import Any

import torch
from torch._dynamo.utils import counters

from resnext_train.data.build_loaders import build_color_transform, build_eval_loader
from resnext_train.distributed.dist_context import DistContext
from resnext_train.evaluation.build_scoring import build_scoring
from resnext_train.evaluation.evaluate import evaluate
from resnext_train.evaluation.inference_network import inference_network
from resnext_train.evaluation.member import Member
from scripts.gpu_check.parity import cosine
from scripts.gpu_check.ranks import run_ranks
from scripts.gpu_check.report import Host, Report
from scripts.gpu_check.small_run import SmallRun, small_recipe

_STEPS = 5
_MICRO = 16


def take_steps(context: DistContext, mode: str) -> dict[str, Any]:
    """Take five steps, a partial one, evaluate, and take a whole and a partial step again; count graphs meanwhile."""
    if context.device.type == "cpu":
        _leave_out_the_compiler()
    micro_batches = 2 * context.world_size
    partial = _MICRO * micro_batches - micro_batches - 1  # two sizes: 15 and 14
    run = SmallRun(
        context,
        small_recipe(
            *(f"train.batch_size={_MICRO * micro_batches}", f"train.micro_batch={_MICRO}", "train.last_batch=keep"),
            *(f"data.train_images={_STEPS * _MICRO * micro_batches + partial}", f"train.compile={mode}"),
            *("data.val_images=100", "eval.batch_size=64"),
        ),
    )
    per_epoch = run.setup.steps_per_epoch
    assert per_epoch == _STEPS + 1
    loaded = iter(run.loader(2 * per_epoch))
    graphs, first = {}, None
    for number in range(2 * per_epoch):
        run.take(loaded, number)
        if first is None:
            first = {name: t for name, t in run.tensors().items() if name.startswith("gradient ")}
        graphs[number + 1] = _graphs()
        if number == per_epoch:  # the first whole step after a partial one
            counts = _evaluate(run)
            graphs[-1] = _graphs()
    return {
        "first": first,
        "after_first": graphs[1],
        "after_whole": graphs[_STEPS],
        "after_partial": graphs[per_epoch],
        "after_whole_again": graphs[per_epoch + 1],
        "after_evaluation": graphs[-1],
        "at_end": graphs[2 * per_epoch],
        "loss": run.mean_loss(),
        "counts": counts,
    }


def _graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def _evaluate(run: SmallRun) -> list[int]:
    setup = run.setup
    loader = build_eval_loader(setup.recipe, setup.evaluation.images, run.context, print)
    member = Member(inference_network(run.step.model), build_color_transform(setup.recipe))
    scoring = build_scoring(setup.recipe.eval, setup.evaluation, setup.precision)
    (counts,) = evaluate([member], loader, scoring, run.context)
    return [counts.count, counts.top1_correct, counts.top5_correct]


def _leave_out_the_compiler() -> None:
    """Use all of torch.compile but its last stage, the C++ compiler, which takes a minute."""
    compile_whole = torch.compile

    def compile_without(*args: Any, mode: str, **options: Any) -> Any:
        return compile_whole(*args, backend="aot_eager", **options)

    torch.compile = compile_without  # type: ignore[assignment]


def compare_compiled(host: Host, report: Report) -> None:
    """Compare each mode of `train.compile` with eager steps."""
    modes = ["default", "reduce-overhead"]
    if host.device == "cpu":
        modes = modes[:1]
        report.leave_out("the C++ compiler (on a CPU it takes a minute)")
    world_size = host.gpus or 1
    report.record(ranks=world_size)
    eager = run_ranks(take_steps, world_size, host, "off")[0]
    report.record(eager_graphs=eager["at_end"], eager_loss=eager["loss"], eager_counts=eager["counts"])
    for mode in modes:
        compiled = run_ranks(take_steps, world_size, host, mode)[0]
        stages = [f"after_{name}" for name in ("first", "whole", "partial", "whole_again", "evaluation")] + ["at_end"]
        report.record(**{f"{mode}_graphs": {stage: compiled[stage] for stage in stages}})
        report.record(**{f"{mode}_loss": compiled["loss"], f"{mode}_counts": compiled["counts"]})
        least = min(cosine(compiled["first"][name], t) for name, t in eager["first"].items())
        report.at_least(f"{mode}_least_cosine", least, 0.99)
        report.require(compiled["after_first"] > 0, f"{mode}: nothing was compiled")
        new = compiled["after_partial"] - compiled["after_whole"]
        report.require(
            compiled["after_whole"] == compiled["after_first"], f"{mode}: compiled again in steps of the same size"
        )
        sizes = 2  # of the partial step
        report.require(
            new <= sizes * compiled["after_first"], f"{mode}: {new} more graphs for {sizes} new sizes of micro-batches"
        )
        report.require(
            compiled["after_whole_again"] == compiled["after_partial"], f"{mode}: compiled again after a partial step"
        )
        report.require(
            compiled["at_end"] == compiled["after_whole_again"], f"{mode}: compiled for or after the evaluation"
        )
