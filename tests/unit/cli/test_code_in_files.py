"""A file of weights that would run a command when it is unpickled is refused by all that read one, and runs none."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.archives import add
from helpers.commands import Refuses, evaluate, export, train
from helpers.runs import SMALL
from resnext_train.checkpoint.checkpoint_file import FORMAT


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch evil",)


CONTENT = {"format": FORMAT, "model": {"conv1.weight": torch.zeros(1), "x": Evil()}, "optimizer": Evil()}


def pickled(content: object = CONTENT) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def zipped(content: object = CONTENT) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def tar_of_2016() -> bytes:
    """As the first releases of PyTorch saved; its loader of such files unpacks members, and each is a pickle."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors", "../evil"):
            add(archive, name, pickle.dumps(Evil(), protocol=2))
    return file.getvalue()


def torchscript() -> bytes:
    """An archive of code, by the name of a member."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("constants.pkl", "data.pkl", "version"):
            archive.writestr(f"x/{name}", b"3\n" if name == "version" else pickle.dumps(Evil(), protocol=2))
    return file.getvalue()


def by_name(module: str, name: str) -> bytes:
    """A pickle that calls `name` of `module` with one text, without any class."""
    return f"c{module}\n{name}\n(S'touch evil'\ntR.".encode()


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zip": ("x.pt", zipped),
    "zip, no dict": ("x.pth", lambda: zipped(Evil())),
    "legacy .pt": ("x.pt", pickled),
    "legacy .pth": ("x.pth", pickled),
    "legacy .th": ("x.th", pickled),
    "legacy, in a list": ("x.th", lambda: pickled([1, [Evil()]])),
    "pickle": ("x.pt", lambda: pickle.dumps(Evil())),
    "pickle of protocol 0": ("x.pth", lambda: by_name("os", "system")),
    "builtins": ("x.pth", lambda: by_name("builtins", "eval")),
    "posix": ("x.pth", lambda: by_name("posix", "system")),
    "within torch": ("x.pth", lambda: by_name("torch.serialization", "os.system")),
    "tar": ("x.pt", tar_of_2016),
    "tar .tar": ("x.tar", tar_of_2016),
    "TorchScript": ("x.pt", torchscript),
    "called safetensors": ("x.safetensors", pickled),
}


def test_the_command_would_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a loader that trusts its files; else the tests below would prove nothing."""
    monkeypatch.chdir(tmp_path)
    torch.load(io.BytesIO(zipped()), weights_only=False)
    assert Path("evil").exists()
    Path("evil").unlink()
    pickle.loads(by_name("os", "system"))
    assert Path("evil").exists()


@pytest.mark.parametrize("kind", FILES)
def test_nothing_in_a_file_is_run(kind: str, tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(work))
    name, make = FILES[kind]
    Path(name).write_bytes(make())
    small = ["--config", "smoke.yaml", *SMALL, "--out", "run"]
    for main, arguments in (
        (evaluate, ["--ckpt", name]),
        (evaluate, ["--ckpt", name, "--config", "smoke.yaml"]),
        (export, ["--ckpt", name, "--out", "out.pth"]),
        (export, ["--ckpt", name, "--config", "smoke.yaml", "--out", "out.safetensors"]),
        (train, [*small, "--resume", name]),
        (train, [*small, f"model.weights={name}"]),
    ):
        assert f"{name} is not a checkpoint: " in refuses(main, *arguments)
        assert not list(tmp_path.rglob("*evil*"))
        assert not list(work.glob("out*"))
