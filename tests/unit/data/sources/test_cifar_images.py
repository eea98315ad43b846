"""CIFAR as it lies on the disk, against torchvision and against the pixels that were written."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from helpers.commands import train
from helpers.evaluation import crops
from helpers.images import MakeCifar
from helpers.runs import SMALL, events
from resnext_train.config import FolderData
from resnext_train.data.build_sources import build_splits, build_val
from resnext_train.data.eval_batches import EvalBatch, EvalBatches
from resnext_train.data.sampler import BatchIndices
from resnext_train.data.sources.image_source import ImageSource, decoded_pixels
from resnext_train.data.transforms.eval_views import EvalViews
from resnext_train.errors import InputError


def centre(size: int) -> EvalViews:
    return EvalViews((size,), size, ten=False, flip=False, interpolation="bicubic")


def whole(source: ImageSource, i: int) -> torch.Tensor:
    image = source.image(i)
    return image.region(0, 0, image.height, image.width)


@pytest.mark.parametrize("title", ["CIFAR-10", "CIFAR-100"])
def test_images_labels_and_names(title: str, tmp_path: Path, make_cifar: MakeCifar) -> None:
    written = make_cifar(tmp_path, title)
    section = FolderData(root=str(tmp_path))
    splits = build_splits(section)
    dataset = torchvision.datasets.CIFAR10 if title == "CIFAR-10" else torchvision.datasets.CIFAR100
    for source, is_train in ((splits.train, True), (splits.val, False), (build_val(section), False)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference = dataset(tmp_path, train=is_train)
        assert len(source) == len(reference) == (20 if is_train else 6)
        assert source.classes == tuple(reference.classes)
        assert source.labels.tolist() == reference.targets
        rows = written["train" if is_train else "test"]
        for i, (image, _) in enumerate(reference):
            assert torch.equal(whole(source, i), F.pil_to_tensor(image))
            # The format: 1024 red, then 1024 green, then 1024 blue values, row by row.
            assert np.array_equal(whole(source, i).numpy().ravel(), rows[i])
        some = np.array([4, 0, 3])
        decoded = decoded_pixels(source, some)  # all at once, as a batch takes them
        assert decoded is not None
        assert np.array_equal(decoded.transpose(0, 3, 1, 2).reshape(3, -1), rows[some])
        same = EvalBatches(source, centre(32), 3)[BatchIndices(0, some)]
        assert isinstance(same, EvalBatch)
        assert np.array_equal(crops(same).numpy().reshape(3, -1), rows[some])
        assert same.labels.tolist() == [reference.targets[i] for i in some]
        smaller = EvalBatches(source, centre(16), 3)[BatchIndices(0, some)]
        assert isinstance(smaller, EvalBatch)
        assert torch.equal(
            crops(smaller)[1], F.resize(whole(source, 0), [16], InterpolationMode.BICUBIC, antialias=True)
        )
    assert splits.train.name(17) == f"{title} train image 17"
    assert splits.val.name(5) == f"{title} test image 5"


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_files_that_are_not_the_published_ones(file: str, damage: str, tmp_path: Path, make_cifar: MakeCifar) -> None:
    make_cifar(tmp_path, "CIFAR-10")
    path = tmp_path / "cifar-10-batches-py" / file
    if damage == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    else:
        path.unlink()
    for build in (build_splits, build_val):
        with pytest.raises(InputError, match=r"/cifar-10-batches-py .*cifar-10-python\.tar\.gz"):
            build(FolderData(root=str(tmp_path)))


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_a_pickle_from_elsewhere_is_never_run(file: str, tmp_path: Path, make_cifar: MakeCifar) -> None:
    make_cifar(tmp_path, "CIFAR-10")
    (tmp_path / "cifar-10-batches-py" / file).write_bytes(pickle.dumps(Evil(tmp_path / "evil")))
    with pytest.raises(InputError, match=r"/cifar-10-batches-py .*cifar-10-python\.tar\.gz"):
        build_splits(FolderData(root=str(tmp_path)))
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("other", ["cifar-100-python", "train", "val"])
def test_a_root_with_two_data_sets(other: str, tmp_path: Path, make_cifar: MakeCifar) -> None:
    make_cifar(tmp_path, "CIFAR-10")
    (tmp_path / other).mkdir()
    for build in (build_splits, build_val):
        with pytest.raises(InputError, match=rf" cifar-10-batches-py and {other};.* data\.root"):
            build(FolderData(root=str(tmp_path)))


@pytest.mark.parametrize("title", ["CIFAR-10", "CIFAR-100"])
def test_a_root_one_folder_too_deep(title: str, tmp_path: Path, make_cifar: MakeCifar) -> None:
    make_cifar(tmp_path, title)
    (folder,) = tmp_path.glob("cifar-*")
    with pytest.raises(InputError, match=rf"^{folder} .*data\.root .*parent"):
        build_splits(FolderData(root=str(folder)))


def test_a_run_on_cifar_with_padded_crops(tmp_path: Path, make_cifar: MakeCifar) -> None:
    make_cifar(tmp_path / "data", "CIFAR-10")
    (tmp_path / "r.yaml").write_text("model: {arch: resnext14_2x4d}\naugment: {crop: pad}\n")
    shared = [a for a in SMALL if not a.startswith(("data.", "eval.resize", "train.batch", "train.epochs"))]
    options = [f"data.root={tmp_path / 'data'}", "data.workers=1", "eval.resize=32", "train.batch_size=8"]
    out = tmp_path / "run"
    assert train(["--config", str(tmp_path / "r.yaml"), *shared, *options, "train.epochs=1", "--out", str(out)]) == 0
    (epoch,) = events(out, "epoch")
    assert (epoch["step"], epoch["val_count"]) == (3, 6)  # 20 training images are 8 + 8 + 4, two in each group
