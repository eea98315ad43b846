"""Measure what each option of later recipes costs when it is on: in a step, and on a core that makes the input.

Each option is timed in turns with the same recipe without it. Prints two tables for docs/recipes.md. Run it on an idle
machine:

    python -m scripts.option_costs --data /path/to/imagenet
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from resnext_train.bench.bench_step import StepBench
from resnext_train.bench.image_sample import evenly
from resnext_train.bench.interleaved_timing import Lap, Runner, in_turns
from resnext_train.bench.timed_pipelines import one_thread, timed, training_pipeline
from resnext_train.config import Recipe
from resnext_train.data.build_sources import build_train
from resnext_train.distributed.dist_context import connect

PLAIN = (
    *("augment.brightness=0", "augment.contrast=0", "augment.saturation=0", "augment.lighting=0"),
    *("augment.aspect_law=log", "augment.interpolation=bilinear", "train.batch_size=32", "train.micro_batch=16"),
)
"""Overrides of ResNeXt-50's recipe, with which options are compared: crop and flip, two micro-batches of 16."""

OF_STEP = {
    "EMA, each step": ["ema.decay=0.999"],
    "mixup": ["mix.mixup=0.2"],
    "CutMix": ["mix.cutmix=1.0"],
    "BCE": ["train.loss=bce"],
    "label smoothing": ["train.label_smoothing=0.1"],
    "AdamW": ["optimizer.name=adamw"],
    "LAMB": ["optimizer.name=lamb"],
    "weight decay of matrices alone": ["optimizer.decay_1d=false"],
    "erasing of each image, constant": ["erase.probability=1.0"],
    "erasing of each image, pixel": ["erase.probability=1.0", "erase.value=pixel"],
    "stochastic depth": ["model.stochastic_depth=0.05"],
    "BlurPool": ["model.blur_pool=true"],
    "activation checkpointing": ["train.checkpoint_activations=true"],
}
OF_INPUT = {
    "RandAugment": ["auto_augment.name=randaugment"],
    "RandAugment of timm": ["auto_augment.name=timm_randaugment"],
    "TrivialAugmentWide": ["auto_augment.name=trivial_augment_wide"],
    "erasing of each image": ["erase.probability=1.0"],
    "repeated augmentation": ["augment.repeats=3"],
    "uniform aspect, as in the papers": ["augment.aspect_law=uniform"],
    "bicubic": ["augment.interpolation=bicubic"],
    "crops of 160 pixels": ["augment.size=160"],
}
"""Overrides of each option, by what the table calls it."""

MICRO_BATCHES = 3
"""Per lap of the input."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of images for the second table")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--config", default="resnext50_32x4d")
    options = parser.parse_args(arguments)

    def recipe(*overrides: str) -> Recipe:
        data = [f"data.root={options.data}"] if options.data else []
        return Recipe.load(options.config, *PLAIN, *data, *overrides)

    with connect(60.0) as context, one_thread():
        _print_table("step", OF_STEP, options.rounds, lambda more: _step(StepBench(recipe(*more), context)))
        if options.data:
            sample, *_ = evenly(build_train(recipe().data), 16 * MICRO_BATCHES, skip=True)

            def pipeline(overrides: Sequence[str]) -> Runner:
                chosen = recipe(*overrides)
                load = training_pipeline(chosen, sample, chosen.train.micro_batch)
                return timed(load, 0, MICRO_BATCHES, None)

            _print_table("input core", OF_INPUT, options.rounds, pipeline)


def _step(bench: StepBench) -> Runner:
    def run(number: int) -> Lap:
        began = time.perf_counter()
        bench.take_step()
        bench.step.read_metrics()
        return Lap(bench.setup.plan.batch_size, time.perf_counter() - began, {})

    return run


def _print_table(
    what: str, options: Mapping[str, Sequence[str]], rounds: int, runner: Callable[[Sequence[str]], Runner]
) -> None:
    print(f"| Option | Time of a {what} |\n|---|---|", flush=True)
    plain = runner([])
    for name, overrides in options.items():
        laps = in_turns(name, {"off": plain, "on": runner(overrides), "again": plain}, rounds, shown=False)
        seconds = {key: statistics.median(lap.seconds for lap in of_key) for key, of_key in laps.items()}
        off = (seconds["off"] + seconds["again"]) / 2
        noise = 100 * abs(seconds["off"] / seconds["again"] - 1)
        print(f"| {name} | {100 * (seconds['on'] / off - 1):+.1f} % (noise {noise:.1f} %) |", flush=True)


if __name__ == "__main__":
    main()
