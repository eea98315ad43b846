"""The package's commands in processes that are forked from one that has imported all: no test waits for imports."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from helpers.ranks import PRELOADED
from resnext_train.cli.main import main


class ForkedProcess:
    """`subprocess.Popen` of `python -m resnext_train ARGUMENTS`, as far as the package uses it.

    The process has its own session, environment, threads and streams, and takes any signal; it is just no interpreter
    of its own. Not for what depends on how one starts and ends: closed streams, loader processes.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], stdout: Any, **_: Any) -> None:
        assert list(command[:3]) == [sys.executable, "-m", "resnext_train"], command
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._process = context.Process(target=_run, args=(command[3:], dict(env), Path(stdout.name)))
        self._process.start()
        assert self._process.pid
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode


def _run(arguments: Sequence[str], env: Mapping[str, str], output: Path) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))
