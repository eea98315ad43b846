"""Stage C: a step that is not finite changes nothing, on any rank, and the next one is a good step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from resnext_train.data.image_batch import ImageBatch
from resnext_train.distributed.dist_context import DistContext
from scripts.gpu_check.ranks import equal_on_all, run_ranks, same_bits
from scripts.gpu_check.report import Host, Report
from scripts.gpu_check.small_run import SmallRun, small_recipe

_BACK_OFFS = 45
"""More halvings of the loss scale than bring 2^40 to where nothing overflows."""


def _recipe_options(context: DistContext) -> tuple[str, ...]:
    micro_batches = 2 * context.world_size
    return (f"train.batch_size={16 * micro_batches}", "train.micro_batch=16", f"data.train_images={64 * micro_batches}")


def _spoilt(batch: ImageBatch) -> ImageBatch:
    """Return the micro-batch with colours of its second image that are not numbers."""
    assert batch.color_maps is not None
    maps = batch.color_maps.clone()
    maps[1] = float("nan")
    return batch._replace(color_maps=maps)


def take_spoilt_steps(context: DistContext) -> dict[str, Any]:
    """Take a step with a NaN on the last rank, a good one, one with a NaN, a good one."""
    run = SmallRun(context, small_recipe(*_recipe_options(context)))
    micro_batches = iter(run.loader(4))
    states = [run.kept()]
    for number in range(4):
        own = [next(micro_batches), next(micro_batches)]
        if number % 2 == 0 and context.rank == context.world_size - 1:
            own[1] = _spoilt(own[1])
        run.take(iter(own), number)
        states.append(run.kept())
    skipped = [[s.step, s.micro_batches] for s in run.step.read_metrics()]
    return {
        "kept": [same_bits(before, after) for before, after in pairwise(states)],
        "finite": _all_finite(states[-1]),
        "skipped": skipped,
        "last": states[-1],
    }


def overflow(context: DistContext) -> dict[str, Any]:
    """Start with a loss scale that overflows in fp16, and take steps until one is good."""
    run = SmallRun(context, small_recipe(*_recipe_options(context), "train.precision=fp16"))
    scaler = run.step.optimizer.scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**40})
    batches = list(run.loader(1))
    kept, scales = [], [scaler.get_scale()]
    for number in range(_BACK_OFFS):
        before = run.kept()
        run.take(iter(batches), number)
        kept.append(same_bits(before, run.kept()))
        scales.append(scaler.get_scale())
        if not kept[-1]:
            break
    last = run.kept()
    return {"kept": kept, "scales": scales, "finite": _all_finite(last), "last": last}


def _all_finite(state: dict[str, torch.Tensor]) -> bool:
    return all(bool(t.isfinite().all()) for t in state.values())


def skip_steps(host: Host, report: Report) -> None:
    """Let the last of the ranks spoil steps; then, on GPUs, let fp16 overflow."""
    ranks = run_ranks(take_spoilt_steps, host.ranks, host)
    spoilt = 2 * host.ranks - 1
    report.record(ranks=host.ranks, nan_skipped=ranks[0]["skipped"], nan_kept=ranks[0]["kept"])
    for rank, result in enumerate(ranks):
        report.require(result["kept"] == [True, False, True, False], f"rank {rank}: kept its bits {result['kept']}")
        report.require(
            result["skipped"] == [[0, [spoilt]], [2, [spoilt]]], f"rank {rank} has skipped {result['skipped']}"
        )
        report.require(result["finite"], f"rank {rank} holds what is not finite")
    report.require(equal_on_all([r["last"] for r in ranks]), "the ranks differ after the steps with a NaN")
    if host.device == "cpu":
        report.leave_out("fp16's overflow (it needs a GPU)")
        return
    torch.cuda.empty_cache()
    ranks = run_ranks(overflow, host.ranks, host)
    first = ranks[0]
    report.record(fp16_scales=first["scales"], fp16_skipped=sum(first["kept"]))
    report.require(first["kept"][0], "fp16: the first step did not overflow or has changed something")
    report.require(not first["kept"][-1], f"fp16: no good step within {_BACK_OFFS}")
    halves = [before / 2 if kept else before for before, kept in zip(first["scales"], first["kept"], strict=False)]
    report.require(first["scales"][1:] == halves, "fp16: the loss scale did not halve with each skipped step alone")
    report.require(all(r["finite"] for r in ranks), "fp16: what is not finite was kept")
    report.require(all(r["scales"] == first["scales"] for r in ranks), "fp16: the ranks' loss scales differ")
    report.require(equal_on_all([r["last"] for r in ranks]), "fp16: the ranks differ")
