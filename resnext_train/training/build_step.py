"""Build the network with its first weights, and the step that trains it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.checkpoint_path import weights_path
from resnext_train.checkpoint.stored_weights import KINDS, stored_weights
from resnext_train.compute.loss import TrainingLoss
from resnext_train.data.build_loaders import (
    build_device_transforms,
    memory_format,
    normalisation_warning,
)
from resnext_train.errors import printable
from resnext_train.models.build_model import auxiliary_weight, build_model
from resnext_train.models.resnet import ResNet
from resnext_train.models.weight_conversion import (
    CIFAR_PORT,
    find_state_dict,
    load_weights,
    untaken_average,
    untaken_text,
)
from resnext_train.run_dir.console import print_warning
from resnext_train.training.compiled_network import NetworkOptions
from resnext_train.training.ema import build_average
from resnext_train.training.optimizer import FiniteOptimizer, build_optimizer
from resnext_train.training.setup import Setup
from resnext_train.training.train_step import ForwardPass, TrainStep


def build_train_step(setup: Setup, fine_tune: bool) -> TrainStep:
    """Build the step of a recipe and its network, with `fine_tune` from the weights that the recipe names.

    Raises:
        InputError: those weights cannot be read, or do not fit.
    """
    recipe, context = setup.recipe, setup.context
    train = recipe.train
    model = build_model(recipe.model, setup.num_classes, train.seed)
    if fine_tune and (path := context.run_on_all_ranks(lambda: weights_path(recipe))):
        _load_weights(model, setup, path)
    if train.checkpoint_activations:
        assert isinstance(model, ResNet)  # others are refused by check_network
        model.checkpoint_blocks = True
    model.to(context.device, memory_format=memory_format(recipe))  # type: ignore[call-overload]
    loss = TrainingLoss(train.label_smoothing, auxiliary_weight(recipe.model), train.loss, train.bce_threshold)
    section = recipe.optimizer
    optimizer = FiniteOptimizer(model, build_optimizer(section, model), setup.precision.scaler(), section.clip_norm)
    options = NetworkOptions(train.compile, train.bucket_mb, train.comm)
    forward = ForwardPass(model, build_device_transforms(recipe), setup.precision, loss, context, options)
    average = build_average(recipe.ema, model, setup.steps_per_epoch)
    return TrainStep(forward, optimizer, context, setup.plan.micro_batches, train.seed, average)


def _load_weights(model: nn.Module, setup: Setup, path: Path) -> None:
    """Load the weights of a file, and print what they are.

    A checkpoint of this tool names its classes: where the data has others, its classifier is left out, even if their
    number is the same.
    """
    section, context = setup.recipe.model, setup.context
    content = context.run_on_all_ranks(lambda: checkpoint_file.load_file(path))
    if checkpoint_file.is_ours(content):
        chosen = stored_weights(content, "auto", path)
        same = tuple(content["classes"]) == setup.splits.classes
        source = "a checkpoint of resnext-train" + (f", {KINDS[chosen.kind]}" if chosen.kind else "")
        loaded = load_weights(model, chosen.weights, str(path), section, "fitting" if same else "new", source)
    else:
        loaded = load_weights(model, find_state_dict(content, str(path)), str(path), section, "fitting")
    if context.is_main:
        print(printable(f"weights: {loaded}"), flush=True)
        if f": {CIFAR_PORT}" in loaded.removeprefix(str(path)):
            print_warning(f"warning: {normalisation_warning(path, setup.recipe.data)}")
        if untaken := None if checkpoint_file.is_ours(content) else untaken_average(content):
            print_warning(f"warning: {untaken_text(path, untaken)}")
