"""Measure what options of later recipes cost when they are on: in a step, and on a core that makes the input.

Each option is timed in turns with the same recipe without it. Prints the two tables of docs/recipes.md. Run it on an
idle machine:

    python -m scripts.option_costs --data /path/to/imagenet
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import median

from resnext_train.bench.bench_step import StepBench
from resnext_train.bench.image_sample import evenly
from resnext_train.bench.interleaved_timing import in_turns
from resnext_train.bench.step_timer import StepTimer, timed_step
from resnext_train.bench.timed_pipelines import one_thread, timed, training_pipeline
from resnext_train.config import Recipe
from resnext_train.data.build_sources import build_train
from resnext_train.distributed.dist_context import DistContext, connect

BATCH = 16
"""Images of a timed step."""

PLAIN = (
    *("augment.brightness=0", "augment.contrast=0", "augment.saturation=0", "augment.lighting=0"),
    *("augment.aspect_law=log", "augment.interpolation=bilinear", "optimizer.decay_1d=false"),
    *(f"train.batch_size={BATCH}", f"train.micro_batch={BATCH}"),
)
"""Overrides of the recipe that options are compared with: crop and flip, SGD, cross-entropy."""

OF_IMAGES = {
    "mixup": ["mix.mixup=0.2"],
    "CutMix": ["mix.cutmix=1.0"],
    "erasing of every image, constant": ["erase.probability=1.0"],
    "erasing of every image, pixel": ["erase.probability=1.0", "erase.value=pixel"],
    "label smoothing": ["train.label_smoothing=0.1"],
    "BCE": ["train.loss=bce"],
    "stochastic depth": ["model.stochastic_depth=0.05"],
    "BlurPool": ["model.blur_pool=true"],
    "activation checkpointing": ["train.checkpoint_activations=true"],
}
OF_STEPS = {
    "EMA, at each step": ["ema.decay=0.999"],
    "AdamW": ["optimizer.name=adamw"],
    "LAMB": ["optimizer.name=lamb"],
    "clipping": ["optimizer.clip_norm=1.0"],
}
OF_INPUT = {
    "`randaugment`": ["auto_augment.name=randaugment"],
    "`timm_randaugment`": ["auto_augment.name=timm_randaugment"],
    "`trivial_augment_wide`": ["auto_augment.name=trivial_augment_wide"],
    "erasing of every image": ["erase.probability=1.0"],
    "repeated augmentation": ["augment.repeats=3"],
    "`aspect_law: uniform`": ["augment.aspect_law=uniform"],
    "bicubic": ["augment.interpolation=bicubic"],
    "crops of 160 pixels": ["augment.size=160"],
}
"""Overrides of each option, by its name in the table."""

OF_NETWORK = {"forward", "backward"}
"""Parts of a step whose time varies by more than the other options add."""

MICRO_BATCHES = 6
"""Micro-batches in a lap of the input."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of the step and, with --data, that of the input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of images")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each option (default: 7)")
    parser.add_argument("--config", default="resnext50_32x4d", help="recipe to add them to (default: resnext50_32x4d)")
    given = parser.parse_args(arguments)
    with connect(60.0) as context:
        step_table(given.config, context, given.rounds)
    if given.data:
        with one_thread():
            input_table(given.config, given.data, given.rounds)


def step_table(config: str, context: DistContext, rounds: int) -> None:
    """Print what options add to a step of 256 images."""
    plain = StepBench(Recipe.load(config, *PLAIN), context)
    print("| Option | Added milliseconds | of a step of 256 images |\n|---|---|---|", flush=True)
    for options, unit, images in ((OF_IMAGES, "an image", BATCH), (OF_STEPS, "a step", 1)):
        for name, overrides in options.items():
            with_option = StepBench(Recipe.load(config, *PLAIN, *overrides), context)
            off, on = _parts(plain, with_option, rounds)
            changes_network = any(text.startswith(("model.", "train.check")) for text in overrides)
            parts = off.keys() if changes_network else off.keys() - OF_NETWORK
            added = sum(on[part] - off[part] for part in parts) / images
            share = added * (256 if images > 1 else 1) / (sum(off.values()) / BATCH * 256)
            print(f"| {name} | {1000 * added:+.2f} {unit} | {100 * share:+.2f} % |", flush=True)


def _parts(plain: StepBench, other: StepBench, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the median seconds of each part of a step of both, which take turns."""
    timers = [(bench, StepTimer(bench.context.device)) for bench in (plain, other)]
    measured: list[list[dict[str, float]]] = [[], []]
    for number in range(rounds + 1):
        for (bench, timer), of_bench in zip(timers, measured, strict=True):
            parts = timed_step(timer, 1, bench.take_step)
            bench.step.read_metrics()
            if number:
                of_bench.append(parts)
    off, on = ({part: median(parts[part] for parts in of_bench) for part in of_bench[0]} for of_bench in measured)
    return off, on


def input_table(config: str, data: str, rounds: int) -> None:
    """Print how much longer a core takes for an image."""
    recipes = {
        name: Recipe.load(config, *PLAIN, f"data.root={data}", *more) for name, more in {"": [], **OF_INPUT}.items()
    }
    plain = recipes.pop("")
    sample, *_ = evenly(build_train(plain.data), BATCH * MICRO_BATCHES, skip=True)
    print("\n| Option | of an input core |\n|---|---|", flush=True)
    for name, recipe in recipes.items():
        runners = {
            key: timed(training_pipeline(one, sample, BATCH), 0, MICRO_BATCHES)
            for key, one in {"off": plain, "on": recipe}.items()
        }
        laps = in_turns(name, runners, 2 * rounds, shown=False)
        off, on = (median(lap.seconds / lap.images for lap in laps[key]) for key in ("off", "on"))
        print(f"| {name} | {100 * (on / off - 1):+.1f} % |", flush=True)


if __name__ == "__main__":
    main()
