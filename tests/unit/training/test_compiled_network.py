"""torch.compile: once for each size of a micro-batch, and never in evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from helpers.evaluation import evaluated
from helpers.ranks import single
from helpers.steps import NETWORK, NORMALISE, step_images, train_step
from resnext_train.compute.precision import Precision
from resnext_train.config import ModelSection, SgdSection
from resnext_train.distributed.dist_context import DistContext
from resnext_train.models.build_model import build_model
from resnext_train.training import train_step as train_step_module
from resnext_train.training.compiled_network import NetworkOptions, zero_gradients
from resnext_train.training.optimizer import build_optimizer

EPOCH = (20, 20, 18)
"""Images of the steps of an epoch: micro-batches of 4, and in the last step of 4 and of 3."""


def epochs(context: DistContext, mode: str) -> dict[str, Any]:
    """Two epochs with an evaluation after each: all weights, the loss of each evaluation, and graphs until then."""
    model = build_model(ModelSection(arch="resnet8"), 4, seed=1).to(memory_format=torch.channels_last)
    step = train_step(model, build_optimizer(SgdSection(), model), context, options=NetworkOptions(compile=mode))
    losses, graphs = [], []
    for n, size in enumerate(2 * EPOCH):
        step(iter(step_images(size, n)), n, size, lr=0.05)
        if n % len(EPOCH) == len(EPOCH) - 1:
            losses.append(evaluated(model, step_images(15, n), NORMALISE, Precision("fp32", "cpu"), context).loss_sum)
            graphs.append(counters["stats"]["unique_graphs"])
    return {"state": model.state_dict(), "losses": losses, "graphs": graphs}


@pytest.mark.slow
def test_each_size_is_compiled_once_and_evaluation_never(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_whole = torch.compile
    asked: list[dict[str, Any]] = []

    def traced(network: Any, **options: Any) -> Any:
        asked.append(options)
        return compile_whole(network, backend="eager", dynamic=options["dynamic"])

    monkeypatch.setattr(torch, "compile", traced)
    torch._dynamo.reset()
    counters.clear()
    eager = single(epochs, "off")
    assert (eager["graphs"], asked) == ([0, 0], [])
    compiled = single(epochs, "reduce-overhead")
    assert compiled["graphs"] == [2, 2], "one for 4 images and one for 3, in the first epoch"
    assert asked == [{"mode": "reduce-overhead", "dynamic": False}]
    assert compiled["losses"] == eager["losses"]
    for name, tensor in eager["state"].items():
        assert torch.equal(tensor, compiled["state"][name])


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "kept"), [("reduce-overhead", True), ("max-autotune", True), ("default", False)])
def test_gradients_never_lie_in_the_memory_of_a_cuda_graph(
    mode: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autograd keeps the first gradient that it is handed, as it is, where a parameter has none; else it adds to it."""
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    given: list[Any] = []

    def give(parameters: Any) -> Any:
        given.append(zero_gradients(parameters))
        return given[-1]

    monkeypatch.setattr(train_step_module, "zero_gradients", give)

    def gradients(compile_mode: str) -> list[torch.Tensor | None]:
        model = build_model(NETWORK, 4, seed=1).to(memory_format=torch.channels_last)
        options = NetworkOptions(compile=compile_mode)
        step = train_step(model, build_optimizer(SgdSection(), model), single(lambda c: c), options=options)
        step.compute_gradients(iter(step_images(20, 0)), 0, 20)
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert parameter.grad.stride() == parameter.stride()
        return [p.grad for p in model.parameters()]

    plain, held = gradients("off"), gradients(mode)
    assert len(given) == (2 if kept else 0), "for each of two shards"
    assert not kept or all(gradient is zero for gradient, zero in zip(held, given[-1], strict=True))
    for one, other in zip(plain, held, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)
