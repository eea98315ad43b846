from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from resnext_train import checkpoint
from resnext_train.errors import InputError


def test_a_save_that_fails_half_way_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save({"n": 1}, path)
    whole = torch.save

    def fails(state: object, file: object) -> None:
        whole(state, file)  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save({"n": 2}, path)
    assert checkpoint.load(path)["n"] == 1


def test_a_second_name_survives_the_next_save(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save({"n": 1}, path, ["best.pt"])
    checkpoint.save({"n": 2}, path)
    assert (checkpoint.load(path)["n"], checkpoint.load(tmp_path / "best.pt")["n"]) == (2, 1)
    checkpoint.save({"n": 3}, path, ["best.pt"])
    assert checkpoint.load(tmp_path / "best.pt")["n"] == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt"], "no temporary files are left"


def test_a_file_system_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint.save({"n": 1}, tmp_path / "last.pt", ["best.pt"])
    monkeypatch.undo()
    checkpoint.save({"n": 2}, tmp_path / "last.pt")
    assert checkpoint.load(tmp_path / "best.pt")["n"] == 1


def test_what_is_saved_shares_no_memory(tmp_path: Path) -> None:
    flat = torch.arange(4.0)
    checkpoint.save(checkpoint.snapshot({"model": {"a": flat[:2], "b": flat[2:]}}), tmp_path / "x.pt")
    model = checkpoint.load(tmp_path / "x.pt")["model"]
    assert model["a"].untyped_storage().data_ptr() != model["b"].untyped_storage().data_ptr()
    assert model["b"].tolist() == [2, 3]


def test_any_first_byte_of_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    for byte in range(256):
        (tmp_path / "x").write_bytes(bytes([byte]) + b"orch>=2.7\nnumpy\n")
        with pytest.raises(InputError, match="is not a checkpoint"):
            checkpoint.load(tmp_path / "x")


def test_only_our_format_is_ours(tmp_path: Path) -> None:
    torch.save({"format": "resnext-train checkpoint 0", "model": {}}, tmp_path / "old.pt")
    with pytest.raises(InputError, match="not a checkpoint of this tool"):
        checkpoint.load(tmp_path / "old.pt")
