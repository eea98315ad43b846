"""What a command is asked for: its arguments, read and checked before torch is imported.

Each `read_*` takes the parsed arguments of a command and returns what its module carries out. All raise InputError.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from resnext_train.checkpoint.checkpoint_path import checkpoint_path, run_folder
from resnext_train.checkpoint.resume import named_checkpoints
from resnext_train.config import (
    RUNS,
    LoadedRecipe,
    ModelSection,
    Recipe,
    check_micro_batches,
    default_name,
    find_recipe,
    is_run_name,
    load_recipe,
    load_recipe_with_notes,
    read_yaml,
    recipe_from_dict,
    recipe_from_dict_with_notes,
)
from resnext_train.errors import InputError
from resnext_train.inference.evaluation_request import OUTPUT_FILES, EvaluationRequest
from resnext_train.models.architecture import check_model, check_network
from resnext_train.run_dir.result_file import is_stream
from resnext_train.run_dir.run_paths import RunDir
from resnext_train.training.train_request import TrainRequest, train_request
from resnext_train.verify.resume_proof import Trial


def read_train(args: Namespace) -> TrainRequest:
    """Read the recipe, and check that the run folder takes it."""
    overrides = given_overrides(args)
    resume = args.resume
    if "=" in resume and not os.path.lexists(resume):  # --resume without a value, before an override
        resume, overrides = "auto", [*overrides, resume]
    continued = None if resume in ("auto", "never") else run_folder(resume)
    if args.config is None and resume not in ("auto", "never"):
        continued = run_folder(str(named_checkpoints(resume)[0].parent))
    loaded = _train_recipe(args.config, continued, overrides)
    folder = continued if continued and not (args.out or args.name) else _run_folder(args, loaded)
    check_procs(args.procs)
    if args.profile is not None and args.profile < 1:
        raise InputError(f"--profile {args.profile}: must be at least 1")
    request = train_request(loaded, folder, resume, args.procs, args.dry_run)
    return replace(request, profile=args.profile or 0)


def _run_folder(args: Namespace, loaded: LoadedRecipe) -> RunDir:
    """Return the folder that --out or --name gives, else runs/NAME, with the seed where the command line changes it."""
    if args.out and args.name is not None:
        raise InputError(f"--out {args.out} and --name {args.name}: give one; --name NAME is --out {RUNS}/NAME")
    if args.out:
        return RunDir(Path(args.out))
    if args.name is None:
        return RunDir(RUNS / default_name(args.config, loaded))
    if not is_run_name(args.name):
        raise InputError(f"--name {args.name!r}: must be a folder's name below {RUNS}/; give any other place by --out")
    return RunDir(RUNS / args.name)


def given_overrides(args: Namespace) -> list[str]:
    """Return the overrides of a command, those by options first, so that section.key=value wins."""
    return [*args.shortcuts, *args.overrides]


def _train_recipe(config: str | None, continued: RunDir | None, overrides: list[str]) -> LoadedRecipe:
    if config is not None:
        return load_recipe_with_notes(config, overrides)
    if word := next((word for word in overrides if "=" not in word), None):
        raise InputError(f"{word}: give the recipe by --config, as in --config {word}")
    if continued is None:
        raise InputError("--config: name a recipe, such as resnext50_32x4d or smoke; `resnext info` lists them")
    if not continued.recipe.is_file():
        raise InputError(f"--resume: {continued.path} holds no recipe.yaml; give the run's recipe by --config")
    return recipe_from_dict_with_notes(read_yaml(continued.recipe), str(continued.recipe), overrides)


def check_procs(procs: int) -> None:
    if procs < 1:
        raise InputError(f"--procs {procs}: must be at least 1")


def read_eval(args: Namespace) -> EvaluationRequest:
    """Read the recipe, if one is given, and check that the checkpoints are there and the outputs can be written."""
    overrides = given_overrides(args)
    check_procs(args.procs)
    if args.recalibrate_bn is not None and args.recalibrate_bn < 1:
        raise InputError(f"--recalibrate-bn {args.recalibrate_bn}: must be at least 1 image")
    if any(override.startswith("eval.also=") for override in overrides):
        raise InputError("eval.also is for training; evaluate each set by --data DIR")
    checkpoints = tuple(named_checkpoint(path, args.overrides) for path in args.ckpt or [None])
    recipe = given_recipe(args.config, overrides)
    check_json(args.json)
    _check_outputs(args.predictions, args.out, args.json)
    return EvaluationRequest(
        checkpoints,
        recipe,
        tuple(overrides),
        args.weights,
        args.classes,
        args.recalibrate_bn or 0,
        args.predictions,
        args.out,
        args.json,
    )


def _check_outputs(predictions: str | None, out: str | None, json: str | None) -> None:
    inside = [os.path.join(out, name) for name in OUTPUT_FILES] if out else []  # noqa: PTH118  may be any text
    written = [os.path.realpath(file) for file in (predictions, json, *inside) if file and not is_stream(file)]
    if twice := next((file for file in written if written.count(file) > 1), None):
        raise InputError(f"two outputs are {twice}; name another file by --predictions or --json, or another --out")
    if predictions and Path(predictions).suffix.lower() not in (".csv", ".parquet") and not is_stream(predictions):
        raise InputError(f"--predictions: {predictions} should end in .csv or .parquet")
    if out and os.path.lexists(out) and not os.path.isdir(out):  # noqa: PTH112  unlike Path: False for any odd name
        raise InputError(f"--out: {out} is no folder; name one for the tables and pictures")


def given_recipe(config: str | None, overrides: list[str]) -> Recipe | None:
    """Return the recipe of --config, if there is one, with overrides; its network is checked."""
    if config is None:
        return None
    loaded = load_recipe_with_notes(config, overrides)
    check_network(loaded)
    return loaded.recipe


def named_checkpoint(path: str | None, words: Sequence[str] = ()) -> Path:
    """Return a checkpoint that is given by its path or by its run folder, whose best.pt it is."""
    if path is None:
        if word := next((word for word in words if "=" not in word), None):
            raise InputError(f"{word}: give the run folder or the checkpoint by --ckpt, as in --ckpt {word}")
        raise InputError("--ckpt: name a run folder or a checkpoint, as in --ckpt runs/resnext50_32x4d")
    return checkpoint_path(path, "--ckpt")


def check_json(file: str | None) -> None:
    check_output("--json", file)


def check_output(option: str, file: str | None) -> None:
    """Refuse a file to write that is a folder, or in none."""
    if file and os.path.isdir(file):  # noqa: PTH112  unlike Path.is_dir: False for any odd name
        raise InputError(f"{option}: {file} is a folder; name a file")
    if file and not Path(file).absolute().parent.is_dir():
        raise InputError(f"{option}: the folder of {file} does not exist; make it first")


@dataclass(frozen=True)
class InfoRequest:
    """A network to describe; all recipes to list; or widths to match with a network's cost."""

    network: ModelSection | None
    """None: list all recipes."""
    name: str
    """The network's name as it was given."""
    config: str | None
    """The recipe that the network is from."""
    cardinalities: list[int]
    """None given: describe the network."""
    size: int | None
    classes: int | None


def read_info(args: Namespace) -> InfoRequest:
    """Find the network that is meant."""
    for option in ("size", "classes"):
        if getattr(args, option) is not None and getattr(args, option) < 1:
            raise InputError(f"--{option} {getattr(args, option)}: must be at least 1")
    if (args.match is None) != (args.cardinality is None):
        raise InputError("--match NETWORK and --cardinality C belong together: --match resnet50 --cardinality 16")
    if args.match:
        if args.network or args.config is not None:
            raise InputError("--match names its own network; leave out the other one")
        for cardinality in args.cardinality:
            if cardinality < 1:
                raise InputError(f"--cardinality {cardinality}: must be at least 1")
        network, config = _network_or_recipe(args.match, [])
        return InfoRequest(network, args.match, config, args.cardinality, args.size, args.classes)
    if not args.network and args.config is None:
        return InfoRequest(None, "", None, [], args.size, args.classes)
    network, config = _described(args.network, args.config)
    return InfoRequest(network, "", config, [], args.size, args.classes)


def _described(words: list[str], config: str | None) -> tuple[ModelSection, str | None]:
    """Return the network to describe, and its recipe's name if it is a recipe's."""
    overrides = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    if len(names) + (config is not None) != 1:
        raise InputError("give one network, by name or by --config")
    for override in overrides:
        if not override.startswith("model."):
            raise InputError(f"override {override!r} does not change the network; only model.key=value does")
    if config is None:
        return _network_or_recipe(names[0], overrides)
    network = load_recipe(config, overrides).model
    check_model(network)
    return network, config


def _network_or_recipe(name: str, overrides: list[str]) -> tuple[ModelSection, str | None]:
    """Return the network called `name`, else that of the recipe called `name`, with the recipe's name."""
    try:
        network = recipe_from_dict({"model": {"arch": name}}, name, overrides).model
        check_model(network)
        return network, None
    except InputError as no_network:
        try:
            find_recipe(name)
        except InputError:
            raise no_network from None
    network = load_recipe(name, overrides).model
    check_model(network)
    return network, name


@dataclass(frozen=True)
class VerifyRequest:
    """A proof to make, and the folder that keeps both runs."""

    trial: Trial
    out: Path | None


def read_verify(args: Namespace) -> VerifyRequest:
    """Check the recipe and the folder of the proof."""
    for name, least in (("steps", 2), ("kills", 1), ("procs", 1)):
        if getattr(args, name) < least:
            raise InputError(f"--{name} must be at least {least}")
    own = [f"train.max_steps={args.steps}", "log.every=1", "log.to=[]", "checkpoint.every_steps=2"]
    overrides = [*given_overrides(args), *own]
    loaded = load_recipe_with_notes(args.config, overrides)
    check_network(loaded)
    check_micro_batches(loaded.recipe, args.procs)
    out = Path(args.out) if args.out else None
    if out and out.exists() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty; choose another folder")
    arguments = ("--config", args.config, *overrides)
    return VerifyRequest(Trial(arguments, args.steps, args.kills, args.procs, args.seed), out)
