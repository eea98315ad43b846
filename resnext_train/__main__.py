"""python -m resnext_train COMMAND ...: all commands, for torchrun, which starts modules."""

from __future__ import annotations

import sys
from importlib import import_module

_COMMANDS = {
    "train": ("resnext_train.cli.train", "train a network from a recipe"),
    "eval": ("resnext_train.cli.eval", "evaluate a checkpoint"),
    "info": ("resnext_train.cli.info", "the named networks, their sizes and stages"),
    "export": ("resnext_train.cli.export", "write weights for other programs"),
    "prepare": ("resnext_train.cli.prepare", "pack images for fast reading, check and unpack them"),
    "bench": ("resnext_train.cli.bench", "how fast this machine feeds training"),
    "verify": ("resnext_train.cli.verify", "prove that a recipe resumes exactly"),
}


def main() -> int:
    """Hand over to the command named by the first argument."""
    if len(sys.argv) < 2 or sys.argv[1] not in _COMMANDS:
        wants_help = len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help")
        stream = sys.stdout if wants_help else sys.stderr
        print("usage: python -m resnext_train COMMAND ...\n", file=stream)
        for name, (_, text) in _COMMANDS.items():
            print(f"  {name:8s}{text} (also: resnext-{name})", file=stream)
        return 0 if wants_help else 2
    module = import_module(_COMMANDS[sys.argv.pop(1)][0])  # what is left looks as if resnext-COMMAND had been called
    return int(module.main())


if __name__ == "__main__":
    raise SystemExit(main())
