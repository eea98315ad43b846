"""Stage D: within a step the host never waits for the GPU, and launches little beside the network's own work."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from resnext_train.bench.launch_count import backward_budget, budget, count_launches
from resnext_train.data.transforms.color_transform import mapped_as_on_gpus
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.flag_sync import StepFlags
from resnext_train.verify.gpu_syncs import gpu_syncs_forbidden
from scripts.gpu_check.ranks import PATIENCE, run_ranks
from scripts.gpu_check.report import Host, Report
from scripts.gpu_check.small_run import SmallRun, small_recipe

_WARM, _WATCHED = 3, 4
_KERNELS = ("cudaLaunchKernel", "cuLaunchKernel", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaGraphLaunch")


def count_launches_of_a_step(context: DistContext, micro_batches: int, precision: str) -> dict[str, Any]:
    """Count the calls of a third step of `micro_batches` micro-batches on each rank, and a GPU's kernels."""
    all_of_them = micro_batches * context.world_size
    run = SmallRun(
        context,
        small_recipe(
            *(f"train.batch_size={8 * all_of_them}", "train.micro_batch=8", f"data.train_images={8 * all_of_them}"),
            f"train.precision={precision}",
        ),
    )
    batches = list(run.loader(1))
    with nullcontext() if context.device.type == "cuda" else mapped_as_on_gpus():
        for number in range(2):
            run.take(iter(batches), number)
        calls = count_launches(lambda: run.take(iter(batches), 2))
    kernels = None
    if context.device.type == "cuda":
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            run.take(iter(batches), 3)
            torch.cuda.synchronize()
        kernels = sum(event.count for event in profiled.key_averages() if event.key.startswith(_KERNELS))
    parameters = len(list(run.step.model.parameters()))
    return {
        "by_part": calls.totals(),
        "beyond": calls.beyond,
        "budget": budget(micro_batches),
        "backward": calls.backward,
        "backward_budget": backward_budget(parameters, micro_batches, context.world_size),
        "kernels": kernels,
    }


def take_steps_without_syncs(context: DistContext, precision: str) -> str | None:
    """Take steps with a loader process, pinned copies and the exchange of flags; return what waited, if any did."""
    micro_batches = 2 * context.world_size
    run = SmallRun(
        context,
        small_recipe(
            *(f"train.batch_size={16 * micro_batches}", "train.micro_batch=16", "data.workers=1"),
            *(f"data.train_images={16 * micro_batches * (_WARM + _WATCHED)}", f"train.precision={precision}"),
        ),
    )
    context.start_training(PATIENCE)
    loaded = iter(run.loader(_WARM + _WATCHED))
    flags = StepFlags(0, save=False, best_lost=0, saves_failing=False)
    for number in range(_WARM):  # the first copy constants and make the loss scale
        run.take(loaded, number)
        context.all_reduce_flags(flags)
    torch.cuda.synchronize()
    waited = None
    try:
        with gpu_syncs_forbidden():
            for number in range(_WARM, _WARM + _WATCHED):
                run.take(loaded, number)
                context.all_reduce_flags(flags)
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        frame = error.__traceback__
        while (
            frame is not None and frame.tb_next is not None and "torch" not in frame.tb_next.tb_frame.f_code.co_filename
        ):
            frame = frame.tb_next
        place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else "an unknown place"
        waited = f"{place}: {error}"
    context.gather(waited)  # or the first to wait would leave while others still communicate
    return waited


def count_syncs_and_launches(host: Host, report: Report) -> None:
    """Hold the budget of launches on one rank and on all; on GPUs forbid syncs in all precisions."""
    precisions = ["fp32", "bf16"] if host.device == "cpu" or torch.cuda.is_bf16_supported(False) else ["fp32"]
    precisions += ["fp16"] if host.device == "cuda" else []
    for precision in precisions:
        cases = [(1, 1), (1, 4)] + ([(host.ranks, 2)] if host.ranks > 1 else [])
        single = 0  # calls of a backward pass on a single rank, the first case
        for world_size, micro_batches in cases if precision == precisions[-1] else cases[:1]:
            counted = run_ranks(count_launches_of_a_step, world_size, host, micro_batches, precision)[0]
            case = f"{precision}, {micro_batches} micro-batches on each of {world_size} ranks"
            report.record(**{f"launches: {case}": counted})
            report.require(
                counted["beyond"] <= counted["budget"], f"{case}: {counted['beyond']} calls, over {counted['budget']}"
            )
            single = single or counted["backward"]
            added, limit = counted["backward"] - micro_batches * single, counted["backward_budget"]
            report.require(added <= limit, f"{case}: backward makes {added} more calls than alone, over {limit}")
    if host.device == "cpu":
        report.leave_out("syncs (they need a GPU)")
        return
    for precision in precisions:
        waited = [text for text in run_ranks(take_steps_without_syncs, host.ranks, host, precision) if text]
        report.record(**{f"{precision}_ranks_that_waited": len(waited)})
        report.require(not waited, f"{precision}: the host waits for the GPU at {waited[:1]}")
