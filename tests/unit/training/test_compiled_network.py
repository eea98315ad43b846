"""torch.compile: once for each size of a micro-batch, and never in evaluation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from helpers.ranks import single
from helpers.steps import NETWORK, NORMALISE, step_images, train_step
from resnext_train.compute.loss import TrainingLoss
from resnext_train.compute.precision import Precision
from resnext_train.config import ModelSection, SgdSection
from resnext_train.distributed.dist_context import DistContext
from resnext_train.evaluation.evaluate import evaluate
from resnext_train.models.build_model import build_model
from resnext_train.training.compiled_network import NetworkOptions
from resnext_train.training.optimizer import build_optimizer
from resnext_train.training.train_step import ForwardPass

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
            losses.append(evaluate(model, step_images(15, n), NORMALISE, Precision("fp32", "cpu"), context).loss_sum)
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


@pytest.mark.parametrize(("mode", "kept"), [("reduce-overhead", True), ("max-autotune", True), ("default", False)])
def test_gradients_never_lie_in_the_memory_of_a_cuda_graph(
    mode: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Autograd keeps the first gradient that it is handed, as it is, where a parameter has none; else it adds to it."""
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    context = single(lambda context: context)
    model = build_model(NETWORK, 4, seed=1).to(memory_format=torch.channels_last)
    number_format = Precision("fp32", "cpu")
    forward = ForwardPass(model, NORMALISE, number_format, TrainingLoss(), context, NetworkOptions(compile=mode))
    forward.begin_gradients()
    before = {name: p.grad for name, p in model.named_parameters()}
    assert all((gradient is not None) == kept for gradient in before.values())
    loss, _ = forward(step_images(20, 0)[0])
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()
        assert (parameter.grad is before[name]) == kept
    assert all(p.grad.count_nonzero() for p in model.parameters() if p.grad is not None and p.ndim > 1)
