"""Run `resnext bench step`: time a recipe's step on images in memory, beside a bare loop, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.optim import SGD

from resnext_train.bench.bare_loop import BareLoop
from resnext_train.bench.interleaved_timing import Lap, Runner, in_turns, rate_of
from resnext_train.bench.launch_count import budget, count_launches, options_of
from resnext_train.bench.machine_speed import copy_bytes_per_s, matmul_flop_per_s, wait_for
from resnext_train.bench.step_cost import flop_of, traffic_of
from resnext_train.bench.step_timer import PARTS, StepTimer, timed_step
from resnext_train.config import Recipe, SyntheticData
from resnext_train.data.build_loaders import build_train_loader, memory_format
from resnext_train.data.device_loader import on_device
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.transforms.color_transform import mapped_as_on_gpus
from resnext_train.distributed.dist_context import DistContext
from resnext_train.models.architecture import title_of
from resnext_train.models.build_model import build_model
from resnext_train.training.build_step import build_train_step
from resnext_train.training.setup import Setup, set_up
from resnext_train.training.step_event import peak_memory

LAP_SECONDS = 0.3
"""A lap has as many steps as take about so long."""

_LR = 1e-4
"""Small, because the images are the same in all steps."""

Result = dict[str, Any]
"""All measurements, as `--json` writes them:

measured         network, `crop` in pixels (where crops grow, of the last epochs), `device`, `precision`, `layout`,
                 `compile` and `checkpoint_activations` (of our step; the bare loop has neither), `threads`;
                 `world_size`; images of a step over all ranks, its number of micro-batches and the images of one;
                 `rounds`, and steps in a lap
rates            images/s over all ranks: of our `step`, and of the `bare` loop in the same memory layout
ratio            our median over that of the bare loop
step_ms, ms      milliseconds of our median lap's step, and of each part of it, which add up to it. `all_reduce` is what
                 summing gradients over ranks adds to the step, by comparison with steps that do not
launches         dispatcher calls of a step by part, as on a GPU and not compiled; `launches_beyond` forward, loss,
                 backward and optimizer, and the `launch_budget` for these. DDP's copies lie within backward
peak_memory_bytes  on a GPU of the tensors of our step alone; on a CPU of the whole process so far
flop_per_step, bytes_per_step  of this rank; `flop_per_s`, `bytes_per_s` by its step; `machine`: a matrix product's in
                 the same precision, and a copy's; `of_machine`: the quotients
"""


class StepBench:
    """A recipe's step and a bare loop over the same images, for turns of both."""

    def __init__(self, recipe: Recipe, context: DistContext) -> None:
        """Build both; raises InputError where the recipe does not fit the ranks or the device."""
        self.context = context
        self.setup = set_up(_without_files(recipe), context)
        self.batches = [_pinned(batch, context) for batch in _first_step(self.setup)]
        self.step = build_train_step(self.setup, fine_tune=False)
        self.step.statistics.__enter__()  # for good: nobody uses the network afterwards
        self._number = 0
        self._bare: dict[torch.memory_format, tuple[BareLoop, list[ImageBatch]]] = {}

    def take_step(self) -> None:
        """Take a step of ours, with the copy of its images to the device."""
        images = self.setup.plan.batch_size
        self.step(on_device(iter(self.batches), self.context.device), self._number, images, _LR)
        self._number += 1

    def take_bare_step(self, other_layout: bool = False) -> None:
        """Take a step of the bare loop, whose images are on the device, in the recipe's memory layout or the other."""
        layouts = [torch.channels_last, torch.contiguous_format]
        layout = layouts[(memory_format(self.setup.recipe) == layouts[0]) == other_layout]
        if layout not in self._bare:
            setup, device = self.setup, self.context.device
            model = build_model(setup.recipe.model, setup.num_classes, setup.recipe.train.seed)
            model.to(device, memory_format=layout)  # type: ignore[call-overload]
            optimizer = SGD(model.parameters(), _LR, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True)
            loop = BareLoop(model, optimizer, setup.precision, self.context)
            batches = [batch.to(device) for batch in self.batches]
            self._bare[layout] = loop, [b._replace(images=b.images.contiguous(memory_format=layout)) for b in batches]
        loop, batches = self._bare[layout]
        loop(batches)

    def runners(self, steps: int, layouts: bool) -> dict[str, Runner]:
        """Return what is timed in turns, in laps of `steps` steps; with `layouts` the bare loop in both layouts."""
        takes: dict[str, Callable[[], object]] = {"step": self.take_step, "bare": self.take_bare_step}
        if layouts:
            takes["bare_other_layout"] = partial(self.take_bare_step, other_layout=True)
        timer = StepTimer(self.context.device)
        runners = {name: self._lap(take, steps, timer) for name, take in takes.items()}
        if self.context.world_size > 1:
            runners["local"] = self._undone(self._lap(self._take_local_step, steps, timer))
        return runners

    def _take_local_step(self) -> None:
        with self.step.without_sync():
            self.take_step()

    def _undone(self, run: Runner) -> Runner:
        """Return `run` with weights, buffers, momentum and loss scale put back after it.

        Steps that sum no gradients let ranks drift apart, until the next ones overflow on one and not on another.
        """
        optimizer = self.step.optimizer

        def run_and_undo(number: int) -> Lap:
            held = [tensor for state in optimizer.optimizer.state.values() for tensor in state.values()]
            tensors = [*self.step.model.state_dict().values(), *held]
            before, scale = [tensor.clone() for tensor in tensors], optimizer.scaler.state_dict()
            lap = run(number)
            for tensor, old in zip(tensors, before, strict=True):
                tensor.copy_(old)
            optimizer.scaler.load_state_dict(scale)
            return lap

        return run_and_undo

    def _lap(self, take: Callable[[], object], steps: int, timer: StepTimer) -> Runner:
        def run(number: int) -> Lap:
            wait_for(self.context.device)
            began = time.perf_counter()
            parts = timed_step(timer, steps, take)
            seconds = time.perf_counter() - began
            self.step.read_metrics()  # as a run does at its log lines; here, outside of the time
            return Lap(self.setup.plan.batch_size * steps, seconds, parts)

        return run


def measure_step(recipe: Recipe, context: DistContext, rounds: int, layouts: bool = False) -> Result:
    """Measure on all ranks; the result is this rank's. With `layouts` the bare loop is timed in the other layout, too.

    Raises:
        InputError: the recipe does not fit the ranks or the device.
    """
    device = context.device
    bench = StepBench(recipe, context)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        bench.take_step()
    wait_for(device)
    peak = peak_memory(device)
    began = time.perf_counter()
    bench.take_step()
    wait_for(device)
    longest = max(context.gather(time.perf_counter() - began))
    steps = max(1, min(50, round(LAP_SECONDS / longest)))
    laps = in_turns("measuring", bench.runners(steps, layouts), rounds, shown=context.is_main)
    ours, bare = rate_of(laps["step"]), rate_of(laps["bare"])
    parts = _parts(laps, steps)
    return {
        "measured": _measured(bench.setup, rounds, steps),
        "rates": {name: rate_of(laps[name]) for name in ("step", "bare", "bare_other_layout") if name in laps},
        "ratio": ours["median"] / bare["median"],
        "step_ms": sum(parts.values()),
        "ms": parts,
        **_launches(bench),
        "peak_memory_bytes": peak,
        **_machine(bench, sum(parts.values()) / 1000),
    }


def _parts(laps: dict[str, list[Lap]], steps: int) -> dict[str, float]:
    """Return the milliseconds of each part of a step, of the lap with the median time."""
    lap = _median_lap(laps["step"])
    parts = {name: 1000 * lap.stages[name] for name in PARTS}
    if "local" in laps:
        # The all-reduce runs beside the backward pass: what it adds is the difference to steps without it.
        added = 1000 * (lap.seconds - _median_lap(laps["local"]).seconds) / steps
        parts["all_reduce"] = min(max(added, 0.0), parts["backward"])
        parts["backward"] -= parts["all_reduce"]
    return parts


def _median_lap(laps: list[Lap]) -> Lap:
    return sorted(laps, key=lambda lap: lap.seconds)[(len(laps) - 1) // 2]


def _measured(setup: Setup, rounds: int, steps: int) -> dict[str, Any]:
    context, plan = setup.context, setup.plan
    gpu = context.device.type == "cuda"
    return {
        "arch": title_of(setup.recipe.model),
        "crop": setup.recipe.augment.size,
        "device": torch.cuda.get_device_name(context.device) if gpu else "cpu",
        "precision": setup.precision.name,
        "layout": "contiguous" if memory_format(setup.recipe) == torch.contiguous_format else "channels_last",
        "compile": setup.recipe.train.compile,
        "checkpoint_activations": setup.recipe.train.checkpoint_activations,
        "threads": torch.get_num_threads(),
        "world_size": context.world_size,
        "batch_size": plan.batch_size,
        "micro_batches": plan.micro_batches,
        "micro_batch": setup.recipe.train.micro_batch,
        "rounds": rounds,
        "steps": steps,
    }


def _launches(bench: StepBench) -> dict[str, Any]:
    with mapped_as_on_gpus():  # the CPU's way makes a call for each image
        calls = count_launches(bench.take_step)
    limit = budget(len(bench.batches), options_of(bench.setup.recipe))
    return {"launches": calls.totals(), "launches_beyond": calls.beyond, "launch_budget": limit}


def _machine(bench: StepBench, seconds: float) -> dict[str, Any]:
    """Compare this rank's step of `seconds` with what its device can do."""
    flop, moved = flop_of(bench.take_bare_step), traffic_of(bench.take_step)
    device = bench.context.device
    dtype = bench.setup.precision.compute_dtype(torch.float32)
    machine = {"matmul_flop_per_s": matmul_flop_per_s(device, dtype), "copy_bytes_per_s": copy_bytes_per_s(device)}
    rates = {"flop_per_s": flop / seconds, "bytes_per_s": moved / seconds}
    return {
        **{"flop_per_step": flop, "bytes_per_step": moved},
        **rates,
        "machine": machine,
        "of_machine": {
            "matmul": rates["flop_per_s"] / machine["matmul_flop_per_s"],
            "copy": rates["bytes_per_s"] / machine["copy_bytes_per_s"],
        },
    }


def _without_files(recipe: Recipe) -> Recipe:
    """Return the recipe with images that need no files: just those of one step, made in this process, of full size."""
    data, model = recipe.data, recipe.model
    classes = data.classes if isinstance(data, SyntheticData) else 1000
    if model.num_classes != "auto":
        classes = model.num_classes
    images = SyntheticData(
        source="synthetic",
        classes=classes,
        train_images=recipe.train.batch_size,
        val_images=2,
        size=min(4096, recipe.augment.size),
        workers=0,
        mean=data.mean,
        std=data.std,
    )
    return recipe.at_full_size().model_copy(update={"data": images})


def _first_step(setup: Setup) -> list[ImageBatch]:
    """Return this rank's micro-batches of the first step, on the CPU, in memory of their own."""
    cpu = DistContext(setup.context.place, torch.device("cpu"))
    loader = build_train_loader(setup.recipe, setup.splits.train, setup.plan, cpu, range(1), lambda text: None)
    return [batch._replace(images=batch.images.clone()) for batch in loader]


def _pinned(batch: ImageBatch, context: DistContext) -> ImageBatch:
    if context.device.type != "cuda":
        return batch
    return batch.map(lambda tensor: tensor.pin_memory())
