"""Tests of the CPU leave the GPUs alone, and forbidding syncs leaves torch's mode as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch

from resnext_train.verify.gpu_syncs import gpu_syncs_forbidden


def test_no_gpu_is_visible_here_and_in_other_processes() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not torch.cuda.is_available()
    code = "import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "''\n"


def test_forbidding_syncs_bears_torchs_warning_and_puts_the_mode_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins that behave as torch 2.14 does: each call sets the mode, then warns of a prototype."""
    modes = [1]

    def set_mode(mode: int | str) -> None:
        modes.append({"default": 0, "warn": 1, "error": 2}[mode] if isinstance(mode, str) else mode)
        warnings.warn("Synchronization debug mode is a prototype feature and does not yet detect all", stacklevel=2)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with pytest.raises(ZeroDivisionError), gpu_syncs_forbidden():
        1 / (2 - modes[-1])  # fails inside, where the mode is 2
    assert modes == [1, 2, 1]
