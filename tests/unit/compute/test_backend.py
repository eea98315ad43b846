"""What torch's GPU libraries may choose: in evaluation nothing, in deterministic runs neither."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from helpers.evaluation import evaluated
from helpers.steps import NORMALISE
from resnext_train.compute.backend import (
    choices,
    deterministic_algorithms,
    prepare_gpu_libraries,
    torch_refusals_explained,
)
from resnext_train.compute.precision import Precision
from resnext_train.data.image_batch import ImageBatch
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.errors import InputError, LocalInputError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic


class Probe(nn.Module):
    """A network of two classes that notes cuDNN's settings when it is called."""

    seen: tuple[bool, bool] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = flags()
        return x.mean((2, 3))[:, :2]


@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_has_fixed_algorithms_and_puts_the_settings_back(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("benchmark", True), ("deterministic", False)):
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8).to(memory_format=torch.channels_last)
    good = ImageBatch(images, torch.zeros(3, dtype=torch.int64), None)
    model = Probe()

    def batches() -> Iterator[ImageBatch]:
        yield good
        if fails:
            raise InputError("an image cannot be read")

    context = DistContext(Rank(), torch.device("cpu"))
    try:
        evaluated(model, batches(), NORMALISE, Precision("fp32", "cpu"), context)
        assert not fails
    except InputError:
        assert fails
    assert model.seen == (False, True)
    assert flags() == (True, False)


@pytest.mark.parametrize(("before", "within"), [(None, ":4096:8"), (":0:0", ":4096:8"), (":16:8", ":16:8")])
def test_deterministic_algorithms_end_with_the_run(
    before: str | None, within: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CUBLAS, raising=False)
    if before is not None:
        monkeypatch.setenv(CUBLAS, before)
    for name, value in (("benchmark", True), ("deterministic", False)):
        monkeypatch.setattr(torch.backends.cudnn, name, value)

    def run() -> None:
        with deterministic_algorithms(wanted=True):
            assert choices(torch.device("cpu")) == {"deterministic": True}
            assert os.environ[CUBLAS] == within
            assert os.environ["TORCHINDUCTOR_DETERMINISTIC"] == "1"
            assert flags() == (False, True)
            raise InputError("the run ends")

    with pytest.raises(InputError):
        run()
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ.get(CUBLAS) == before
    assert flags() == (True, False)


def test_a_host_without_a_compiler_is_told_what_to_do() -> None:
    """In the words of torch 2.14 where CXX names no compiler."""
    told = "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'nope')"
    with pytest.raises(LocalInputError, match=r"^train\.compile: .* train\.compile=off$"), torch_refusals_explained():
        raise RuntimeError(told)
    with pytest.raises(RuntimeError, match="illegal memory access"), torch_refusals_explained():
        raise RuntimeError("an illegal memory access")


def test_a_deterministic_run_never_times_algorithms() -> None:
    for wanted in (True, False):
        with deterministic_algorithms(wanted):
            prepare_gpu_libraries()
            expected = {"deterministic": wanted, "tf32": False, "cudnn_benchmark": not wanted}
            assert choices(torch.device("cuda")) == expected
