"""One step on a GPU: near the CPU's, without waiting for the device, and clean where fp16 overflows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from helpers.ranks import single
from helpers.steps import NETWORK, step_images, take_steps, train_step
from resnext_train.compute.loss import TrainingLoss
from resnext_train.config import SgdSection
from resnext_train.data.device_loader import on_device
from resnext_train.distributed.dist_context import DistContext, refuse_tf32
from resnext_train.distributed.rank import Rank
from resnext_train.models.build_model import build_model
from resnext_train.training.optimizer import build_optimizer
from resnext_train.verify.gpu_syncs import gpu_syncs_forbidden


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_on_the_gpu_is_close_to_one_on_the_cpu(precision: Any) -> None:
    refuse_tf32()
    reference = single(take_steps, torch.float64, [20])["gradients"]
    context = DistContext(Rank(), torch.device("cuda", 0))
    model = build_model(NETWORK, 4, seed=1).to(context.device).to(memory_format=torch.channels_last)
    step = train_step(model, build_optimizer(SgdSection(), model), context, precision=precision, loss=TrainingLoss(0.1))
    step.compute_gradients(on_device(step_images(20, 0), context.device), 0, 20)
    of_fc = model.get_parameter("fc.weight").grad
    assert of_fc is not None
    gradient = of_fc.double().cpu().flatten() / step.optimizer.scaler.get_scale()
    assert F.cosine_similarity(gradient, reference["fc.weight"].flatten(), dim=0) > 0.99


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_on_the_gpu_never_waits_for_it(precision: Any) -> None:
    context = DistContext(Rank(), torch.device("cuda", 0))
    model = build_model(NETWORK, 4, seed=1).to(context.device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(SgdSection(), model)
    step = train_step(model, optimizer, context, precision=precision)
    micro_batches = list(on_device(step_images(20, 0), context.device))
    for n in range(3):  # the first copies constants and makes the loss scale
        step(iter(micro_batches), n, 20, lr=0.01)
    with gpu_syncs_forbidden():
        step(iter(micro_batches), 3, 20, lr=0.01)


@pytest.mark.gpu
def test_an_overflow_in_the_first_fp16_step_is_skipped_cleanly() -> None:
    context = DistContext(Rank(), torch.device("cuda", 0))
    model = build_model(NETWORK, 4, seed=1).to(context.device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(SgdSection(), model)
    step = train_step(model, optimizer, context, precision="fp16")
    step.optimizer.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**60)
    weight = model.get_parameter("fc.weight")
    before = weight.detach().clone()
    step(on_device(step_images(20, 0), context.device), 0, 20, lr=0.01)
    assert torch.equal(weight, before)
    assert all(torch.equal(s["momentum_buffer"], torch.zeros_like(p)) for p, s in optimizer.state.items())
