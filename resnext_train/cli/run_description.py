"""What `resnext train` says of a run before it begins."""

from __future__ import annotations

import torch

from resnext_train.compute.backend import choices
from resnext_train.config import (
    AreaAugment,
    NoAutoAugment,
    RandAugment,
    Recipe,
    RmspropSection,
    ScaleAugment,
    SgdSection,
    TimmRandAugment,
    counted_deviations,
    duration_in_steps,
    reference_of,
)
from resnext_train.data.build_loaders import normalisation_text
from resnext_train.data.decode.jpeg_decoder import decoder_names
from resnext_train.data.loader_workers import worker_text
from resnext_train.data.sampler import shard_for_rank
from resnext_train.models.architecture import title_of
from resnext_train.models.complexity import check_training, measure
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.setup import Setup


def run_description(setup: Setup, folder: RunDir) -> dict[str, str]:
    """Return what `resnext train` says at first, by subject: network, data, batch, ranks, recipe, length and place."""
    recipe, plan, context = setup.recipe, setup.plan, setup.context
    size = measure(recipe.model, setup.num_classes, recipe.eval.crop)
    for crop in setup.crop_sizes:
        check_training(recipe.model, setup.num_classes, crop)
    shards = [len(shard_for_rank(plan.micro_batches, context.world_size, r)) for r in range(context.world_size)]
    images = sorted({n * recipe.train.micro_batch for n in shards}, reverse=True)
    training, validation = len(setup.splits.train), len(setup.evaluation.images)
    storage = " and ".join(dict.fromkeys(setup.splits.storage.values()))  # once where both splits have the same
    no_jpegs = {setup.splits.train.storage.kind, setup.splits.val.storage.kind} <= {"memory", "raw"}
    decoder = "" if no_jpegs else f"; JPEGs decoded by {decoder_names()[0]}"
    return {
        "network": f"{title_of(recipe.model)}, {size.parameters:,} parameters, "
        f"{size.multiply_adds / 1e9:.2f} G multiply-adds at {recipe.eval.crop}",
        "data": f"{counted(setup.num_classes, 'class')}, {training:,} training, {validation:,} validation images; "
        f"{storage}" + (f"; {setup.splits.note}" if setup.splits.note else ""),
        "batch": f"{plan.batch_size} images a step over all processes, in "
        f"{counted(plan.micro_batches, 'micro-batch')} of {recipe.train.micro_batch}",
        "processes": f"{context.world_size} with {' or '.join(map(str, images))} images of a step each, "
        f"loader processes: {worker_text(recipe.data.workers, context.cores)}{decoder}",
        "device": f"{context.device.type}, {setup.precision.name}, {counted(torch.get_num_threads(), 'thread')}",
        "computing": _computing(setup),
        **({"gradients": _gradients(setup)} if context.world_size > 1 else {}),
        "length": f"{counted(plan.steps_per_epoch, 'step')} an epoch, {counted(setup.total_steps, 'step')} in all; "
        + _last_batch(setup),
        **_crops(setup),
        "augmentation": _augmentation(recipe),
        "evaluation": f"{setup.evaluation.description}, {normalisation_text(recipe.data)}, every "
        + (f"{recipe.eval.every_epochs} epochs" if recipe.eval.every_epochs > 1 else "epoch"),
        "optimizer": _optimizer(recipe),
        "learning rate": _lr_table(setup),
        **_loss(recipe),
        **({"average": _average(setup)} if recipe.ema.decay is not None else {}),
        **_fidelity(setup),
        "run folder": str(folder.path),
    }


def _fidelity(setup: Setup) -> dict[str, str]:
    """Count the deviations from the paper or code that the recipe names."""
    reference = reference_of(setup.recipe)
    if reference is None:
        return {}
    return {"fidelity": f"{counted_deviations(setup.deviations(), reference)}; --dry-run lists them"}


def _computing(setup: Setup) -> str:
    """Name what was chosen of all that changes speed or last bits: layout, compilation, algorithms."""
    train = setup.recipe.train
    allowed = choices(setup.context.device)
    texts = [f"{setup.layout} layout", "not compiled" if train.compile == "off" else f"compiled ({train.compile})"]
    if train.checkpoint_activations:
        texts.append("activations computed again")
    if "tf32" in allowed:
        texts.append(f"TF32 {'on' if allowed['tf32'] else 'off'}")
        texts.append(f"cuDNN's algorithms {'timed' if allowed['cudnn_benchmark'] else 'not timed'}")
    return ", ".join([*texts, "deterministic algorithms only"] if allowed["deterministic"] else texts)


def _gradients(setup: Setup) -> str:
    """Say how gradients are summed over processes."""
    train = setup.recipe.train
    rounded = "" if train.comm == "fp32" else ", a deviation from the papers: each is rounded to bf16"
    return f"summed over processes in buckets of {train.bucket_mb:g} MiB in {train.comm}{rounded}"


def counted(number: int, name: str) -> str:
    """Return a number with its noun, such as 3 classes."""
    many = f"{name}es" if name.endswith(("s", "ch")) else f"{name}s"
    return f"{number} {name if number == 1 else many}"


def _last_batch(setup: Setup) -> str:
    """Say what becomes of the partial batch at an epoch's end, see train.last_batch."""
    plan, key = setup.plan, f"train.last_batch={setup.recipe.train.last_batch}"
    if plan.dropped:
        few = plan.dropped < 2 * plan.micro_batches
        why = "too few for a step" if few else f"under half a batch, {key}" if key.endswith("auto") else key
        return f"the last {plan.dropped} images of each epoch are dropped ({why})"
    if plan.partial:
        return f"the last step of an epoch has {plan.partial} images ({key})"
    return f"each of {plan.batch_size} images"


def _crops(setup: Setup) -> dict[str, str]:
    """List the sizes of training crops by epoch where they grow, and say how often an image comes if it is repeated."""
    augment, (first, *grown) = setup.recipe.augment, setup.crop_sizes.items()
    different = setup.plan.different_images
    repeats = f"each of {different:,} images {augment.repeats} times an epoch" if augment.repeats > 1 else ""
    sizes = ", ".join([f"{first[0]} px", *(f"{size} from epoch {epoch}" for size, epoch in grown)])
    return {"crops": f"{sizes}; {repeats}" if repeats else sizes} if grown or repeats else {}


def _augmentation(recipe: Recipe) -> str:
    """List what is done to training images, but for what is off."""
    a, operations, erase, mix = recipe.augment, recipe.auto_augment, recipe.erase, recipe.mix
    if isinstance(a, AreaAugment):
        texts = [f"crops of {100 * a.area[0]:g}-{100 * a.area[1]:g} % of the area"]
    elif isinstance(a, ScaleAugment):
        texts = [f"crops at a short side of {a.short_side[0]}-{a.short_side[1]} px"]
    else:
        texts = [f"crops after padding by {a.padding} px"]
    names = ("flip", "brightness", "contrast", "saturation", "lighting")
    texts += [f"{name} {getattr(a, name):g}" for name in names if getattr(a, name)]
    if isinstance(operations, RandAugment | TimmRandAugment):
        noise = f" ± {operations.magnitude_std:g}" if isinstance(operations, TimmRandAugment) else ""
        texts.append(f"{operations.num_ops} × {operations.name} {operations.magnitude:g}{noise}")
    elif not isinstance(operations, NoAutoAugment):
        texts.append(operations.name)
    if erase.probability:
        several = f" in up to {erase.count} boxes" if erase.count > 1 else ""
        texts.append(f"erasing {erase.probability:g} by {erase.value}{several}")
    mixes = [f"{name} {alpha:g}" for name, alpha in (("mixup", mix.mixup), ("CutMix", mix.cutmix)) if alpha]
    switch = f" ({100 * mix.switch:g} % CutMix)" if len(mixes) > 1 else ""
    return ", ".join([*texts, f"{' or '.join(mixes)}{switch}"] if mixes else texts)


_OPTIMIZERS = {"sgd": "SGD", "rmsprop": "RMSProp", "adamw": "AdamW", "lamb": "LAMB"}


def _optimizer(recipe: Recipe) -> str:
    """Name the optimizer with its settings but for the learning rate."""
    section = recipe.optimizer
    texts = [_OPTIMIZERS[section.name]]
    if isinstance(section, SgdSection | RmspropSection):
        nesterov = "Nesterov " if isinstance(section, SgdSection) and section.nesterov else ""
        texts.append(f"{nesterov}momentum {section.momentum:g}")
    else:
        texts.append(f"betas {section.beta1:g} and {section.beta2:g}")
    texts.append(f"weight decay {section.weight_decay:g}{'' if section.decay_1d else ' but for vectors'}")
    if section.clip_norm is not None:
        texts.append(f"gradients clipped at {section.clip_norm:g}")
    return ", ".join(texts)


def _loss(recipe: Recipe) -> dict[str, str]:
    """Name the loss and the smoothing of its targets where they are not the papers'."""
    train = recipe.train
    texts = ["BCE" if train.loss == "bce" else "cross-entropy"]
    if train.bce_threshold is not None:
        texts.append(f"targets of 1 above {train.bce_threshold:g}")
    if train.label_smoothing:
        texts.append(f"label smoothing {train.label_smoothing:g}")
    return {"loss": ", ".join(texts)} if texts != ["cross-entropy"] else {}


def _lr_table(setup: Setup, rows: int = 8) -> str:
    """List the learning rate by epoch: each change to a constant rate, and about `rows` points of a curve."""
    schedule, per_epoch = setup.schedule(), setup.plan.steps_per_epoch
    rates = [schedule.lr(epoch * per_epoch) for epoch in range(setup.epoch_of(setup.total_steps - 1))]
    steps = schedule.warmup.steps
    warmed_up = -(-steps // per_epoch)
    start = "" if schedule.warmup.start is None else f"from {schedule.lr(0):.4g} "
    warmup = f"warm-up {start}to {schedule.peak:.4g} in {steps} steps" if steps else ""
    changes = [e for e in range(warmed_up, len(rates)) if e == warmed_up or rates[e] != rates[e - 1]]
    if not changes:
        return warmup
    kept = {e for e in changes if rates[e : e + 2] == [rates[e]] * 2} | {changes[0], changes[-1]}
    stride = -(-len(changes) // rows)
    if len(kept) > 2 * rows:  # a staircase of many steps: thin it out like a curve
        kept = {changes[0], changes[-1]}
    text = ", ".join(f"{rates[e]:.4g} at epoch {e + 1}" for i, e in enumerate(changes) if i % stride == 0 or e in kept)
    if setup.recipe.schedule.name == "plateau":
        text += f", × {setup.recipe.schedule.factor:g} on each plateau"
    return f"{warmup}, {text}" if warmup else text


def _average(setup: Setup) -> str:
    """Say how the weights are averaged."""
    section = setup.recipe.ema
    warmup = duration_in_steps(section.warmup, setup.steps_per_epoch)
    copied = f", a copy of them for {counted(warmup, 'step')}" if warmup else ""
    often = "step" if section.every == 1 else f"{section.every} steps"
    return f"of the weights, every {often}, decay {section.decay}{copied}"
