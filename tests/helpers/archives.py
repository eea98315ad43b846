"""ImageNet's archives, made up small, for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.images import save_image

CLASSES = ["n03", "n01", "n02"]
"""In the order of ILSVRC2012_ID, which is not that of the names."""


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def tar_of(files: dict[str, bytes], path: Path, format_: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format_) as archive:
        for name, data in files.items():
            add(archive, name, data)
    return path


def train_tar(tmp_path: Path, classes: int = 10) -> tuple[Path, Path]:
    """A training archive, and the folder of the same images."""
    inner = {}
    for c in reversed(range(classes)):
        files = {}
        for i in (2, 0, 1):
            path = save_image(tmp_path / "tree" / f"n{c:02d}" / f"n{c:02d}_{i}.JPEG", (30 + i, 40), 10 * c + i)
            files[path.name] = path.read_bytes()
        inner[f"n{c:02d}.tar"] = tar_of(files, tmp_path / "inner.tar").read_bytes()
    return tar_of(inner, tmp_path / "train.tar"), tmp_path / "tree"


def meta_mat(path: Path, classes: Sequence[str] = CLASSES) -> bytes:
    scipy_io = pytest.importorskip("scipy.io", reason="needs scipy")
    import numpy as np

    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(i + 1, name, f"words of {name}, too", "?", 0) for i, name in enumerate(classes)]
    rows.append((4, "n00", "animal", "?", 3))  # inner node of the hierarchy
    scipy_io.savemat(path, {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})
    return path.read_bytes()


def devkit(tmp_path: Path, truth: str = "1\n2\n3\n1\n", meta: bytes | None = None) -> Path:
    path = tmp_path / "devkit.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "ILSVRC2012_devkit_t12/readme.txt", b"hello")
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta or meta_mat(tmp_path / "meta.mat"))
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.encode())
    return path


def val_tar(tmp_path: Path, images: int = 4) -> Path:
    files = {}
    for i in reversed(range(1, images + 1)):
        name = f"ILSVRC2012_val_{i:08d}.JPEG"
        files[name] = save_image(tmp_path / name, seed=i).read_bytes()
    return tar_of(files, tmp_path / "val.tar")
