"""python -m resnext_train COMMAND ...: what `resnext COMMAND ...` is, for torchrun, which starts modules."""

from __future__ import annotations

from resnext_train.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
