from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from helpers.checkpoints import checkpoint
from resnext_train.checkpoint import checkpoint_file
from resnext_train.checkpoint.checkpoint_file import DamagedError
from resnext_train.errors import InputError


def step_of(path: Path) -> int:
    step: int = checkpoint_file.load(path)["progress"]["step"]
    return step


def test_a_save_that_fails_half_way_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint_file.save(checkpoint(1), path)
    whole = torch.save

    def fails(state: object, file: BinaryIO) -> None:
        whole(state, file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="No space left"):
        checkpoint_file.save(checkpoint(2), path)
    assert step_of(path) == 1


def test_a_second_name_survives_the_next_save(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint_file.save(checkpoint(1), path, ["best.pt"])
    checkpoint_file.save(checkpoint(2), path)
    assert (step_of(path), step_of(tmp_path / "best.pt")) == (2, 1)
    checkpoint_file.save(checkpoint(3), path, ["best.pt"])
    assert step_of(tmp_path / "best.pt") == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt"], "no temporary files are left"


def test_a_file_system_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint_file.save(checkpoint(1), tmp_path / "last.pt", ["best.pt"])
    monkeypatch.undo()
    checkpoint_file.save(checkpoint(2), tmp_path / "last.pt")
    assert step_of(tmp_path / "best.pt") == 1


def test_what_is_saved_shares_no_memory(tmp_path: Path) -> None:
    flat = torch.arange(4.0)
    checkpoint_file.save(
        checkpoint_file.snapshot(checkpoint(0, model={"a": flat[:2], "b": flat[2:]})), tmp_path / "x.pt"
    )
    model = checkpoint_file.load(tmp_path / "x.pt")["model"]
    assert model["a"].untyped_storage().data_ptr() != model["b"].untyped_storage().data_ptr()
    assert model["b"].tolist() == [2, 3]


def test_any_first_byte_of_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    for byte in range(256):
        (tmp_path / "x").write_bytes(bytes([byte]) + b"orch>=2.7\nnumpy\n")
        with pytest.raises(InputError, match=r"/x .*checkpoint"):
            checkpoint_file.load(tmp_path / "x")


def test_only_our_format_is_ours(tmp_path: Path) -> None:
    torch.save({"format": "resnext-train checkpoint 0", "model": {}}, tmp_path / "old.pt")
    with pytest.raises(InputError, match=r"/old\.pt .*resnext eval --config RECIPE"):
        checkpoint_file.load(tmp_path / "old.pt")


def test_a_forged_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint_file.save(checkpoint(1, classes=3, recipe=None), tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"/x\.pt .*\brecipe\b.* and 1 more"):
        checkpoint_file.load(tmp_path / "x.pt")


def test_the_checksum_can_be_checked_by_hand(tmp_path: Path) -> None:
    checkpoint_file.save(checkpoint(1), tmp_path / "x.pt")
    archive, seal = (tmp_path / "x.pt").read_bytes().rsplit(b"\nresnext-train sha256 ", 1)
    assert seal == hashlib.sha256(archive).hexdigest().encode() + b"\n"
    assert torch.load(io.BytesIO(archive), weights_only=True)["progress"]["step"] == 1
    assert torch.load(tmp_path / "x.pt", weights_only=True, mmap=True)["progress"]["step"] == 1


def test_a_bit_that_flipped_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    checkpoint_file.save(checkpoint(1, model={"w": torch.zeros(64)}), path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(256)) + 100] ^= 4  # in the tensor, where torch.load would not look
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        checkpoint_file.load(path)


def test_the_checkpoint_before_is_kept(tmp_path: Path) -> None:
    path, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for n in (1, 2, 3):
        checkpoint_file.save(checkpoint(n), path, [], previous.name)
    assert (step_of(path), step_of(previous)) == (3, 2)
    path.write_bytes(path.read_bytes()[:-1])
    state, taken, problems = checkpoint_file.load_first((path, previous))
    assert (state["progress"]["step"], taken) == (2, previous)
    assert len(problems) == 1


def test_compressed_records_are_not_unpacked(tmp_path: Path) -> None:
    """5 MB of them could take 5 GB of memory."""
    torch.save({"weight": torch.zeros(100_000)}, tmp_path / "w.pt")
    with (
        zipfile.ZipFile(tmp_path / "w.pt") as plain,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as z,
    ):
        for name in plain.namelist():
            z.writestr(name, plain.read(name))
    assert checkpoint_file.load_file(tmp_path / "w.pt")["weight"].shape == (100_000,)
    with pytest.raises(InputError, match="compressed"):
        checkpoint_file.load_file(tmp_path / "z.pt")
