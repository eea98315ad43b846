"""resnext-verify: prove that a recipe resumes exactly on this machine."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from resnext_train.cli.run_command import run_command
from resnext_train.errors import FaultError, InputError

NAME = "resnext-verify"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog=NAME,
        description="Run the first steps of a recipe twice, once undisturbed and once killed (SIGKILL) and resumed "
        "repeatedly, and compare all tensors and values of both last checkpoints and all logged steps and epochs, "
        "bit by bit. On CPUs in fp32 they are equal; on GPUs only if the GPU libraries are deterministic.",
    )
    p.add_argument("--config", required=True, metavar="NAME|PATH", help="a shipped recipe's file name, or a path")
    p.add_argument("--steps", type=int, default=20, metavar="N", help="steps to run, 2 at least (default: 20)")
    p.add_argument("--kills", type=int, default=3, metavar="N", help="kills of the second run, 1 at least (default: 3)")
    p.add_argument("--processes", type=int, default=1, metavar="N", help="training processes (default: 1)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="decides when to kill (default: 0)")
    p.add_argument("--out", metavar="DIR", help="keep both runs there (default: they are removed)")
    p.add_argument("overrides", nargs="*", metavar="section.key=value", help="replace a value of the recipe")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_intermixed_args(argv)
    return run_command(NAME, lambda: _verify(args))


def _verify(args: argparse.Namespace) -> None:
    from resnext_train.config import load_recipe
    from resnext_train.models.architecture import check_model
    from resnext_train.verify.resume_proof import Trial, run_trial

    for name, least in (("steps", 2), ("kills", 1), ("processes", 1)):
        if getattr(args, name) < least:
            raise InputError(f"--{name} must be at least {least}")
    own = [f"train.max_steps={args.steps}", "log.every=1", "log.tensorboard=false", "checkpoint.every_steps=2"]
    overrides = [*args.overrides, *own]
    check_model(load_recipe(args.config, overrides).model)
    out = Path(args.out) if args.out else None
    if out and out.exists() and any(out.iterdir()):
        raise InputError(f"--out {out} is not empty; choose another folder")
    trial = Trial(("--config", args.config, *overrides), args.steps, args.kills, args.processes, args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = run_trial(trial, folder, lambda line: print(line, flush=True))
    kills = len(outcome.killed_after)
    if outcome.restart is not None:
        print(f"from a kill to the first step after it: {outcome.restart:.1f} s (median)")
    if outcome.differences:
        first = "; ".join(outcome.differences[:3])
        raise FaultError(
            f"{len(outcome.differences)} of {outcome.compared} tensors, values and logged events differ after {kills} "
            f"kills: {first}"
        )
    print(
        f"equal: all {outcome.compared} tensors, values and logged events of {outcome.steps} steps on {args.processes} "
        f"process{'es' * (args.processes > 1)}, after {kills} kill{'s' * (kills > 1)}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
