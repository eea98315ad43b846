"""With activations computed again in the backward pass, steps have the same bits and keep less memory."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from helpers.ranks import single
from helpers.steps import MICRO_BATCHES, step_images, train_step
from resnext_train.config import ModelSection, SgdSection
from resnext_train.data.sampler import shard_for_rank
from resnext_train.distributed.dist_context import DistContext
from resnext_train.models.build_model import build_model
from resnext_train.models.resnet import ResNet
from resnext_train.training.compiled_network import NetworkOptions
from resnext_train.training.optimizer import build_optimizer

BOTTLENECKS = {"arch": "resnext14_2x4d", "width": 0.5, "stochastic_depth": 0.5, "blur_pool": True}
PREACTIVATION = {"arch": "preact_resnet20", "width": 0.5, "stochastic_depth": 0.5}


def network(options: dict[str, Any], again: bool) -> ResNet:
    model = build_model(ModelSection(**options), 4, seed=1).to(memory_format=torch.channels_last)
    assert isinstance(model, ResNet)
    model.checkpoint_blocks = again
    return model


def steps(
    context: DistContext,
    again: bool,
    options: dict[str, Any],
    precision: Literal["fp32", "bf16"] = "fp32",
    compiled: str = "off",
    sizes: tuple[int, ...] = (20, 13),
) -> dict[str, dict[str, Tensor]]:
    """Steps of as many images: weights and statistics, momentum, and the last gradients."""
    model = network(options, again)
    optimizer = build_optimizer(SgdSection(lr=0.05), model)
    step = train_step(model, optimizer, context, precision=precision, options=NetworkOptions(compile=compiled))
    for n, size in enumerate(sizes):
        batches = step_images(size, n)
        shard = shard_for_rank(MICRO_BATCHES, context.world_size, context.rank)
        step(iter([batches[i] for i in shard]), n, size, lr=0.05)
    return {
        "state": model.state_dict(),
        "momentum": {str(i): s["momentum_buffer"] for i, s in enumerate(optimizer.state.values())},
        "gradients": {k: p.grad for k, p in model.named_parameters() if p.grad is not None},
    }


def assert_equal(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> None:
    for part, tensors in one.items():
        assert tensors.keys() == other[part].keys()
        assert [k for k in tensors if not torch.equal(tensors[k], other[part][k])] == []


@pytest.mark.parametrize(
    ("options", "precision"), [(BOTTLENECKS, "fp32"), (PREACTIVATION, "fp32"), (BOTTLENECKS, "bf16")]
)
def test_the_bits_of_steps_are_the_same(options: dict[str, Any], precision: Any) -> None:
    """With draws of stochastic depth, and statistics that the second pass must not count again."""
    kept, again = (single(steps, again, options, precision) for again in (False, True))
    assert len(kept["gradients"]) == len(kept["momentum"])
    assert_equal(kept, again)


@pytest.mark.slow
def test_compiled_steps_have_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured by torch and cut into forward and backward by it, but computed by the eager operations."""
    compile_whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **_: compile_whole(network, backend="aot_eager"))
    options = {"arch": "resnet8", "shortcut": "B", "stochastic_depth": 0.5}
    torch._dynamo.reset()
    eager = single(steps, False, options, "fp32", "off", (20,))
    assert_equal(eager, single(steps, True, options, "fp32", "default", (20,)))


def test_only_inputs_of_blocks_are_kept_and_only_in_training() -> None:
    def kept(again: bool, training: bool) -> int:
        """Bytes that the backward pass finds."""
        model, memory = network({"arch": "resnet20"}, again).train(training), {}

        def note(tensor: Tensor) -> Tensor:
            memory[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            logits = model(torch.ones(8, 3, 32, 32))
        assert logits.requires_grad
        return sum(memory.values())

    everything = kept(again=False, training=True)
    assert kept(again=True, training=True) < 0.35 * everything
    assert kept(again=True, training=False) == kept(again=False, training=False)
