"""One step on a GPU: near the CPU's, without waiting for the device, and clean where fp16 overflows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from helpers.evaluation import evaluated
from helpers.ranks import single
from helpers.steps import NETWORK, NORMALISE, step_images, take_steps, train_step
from resnext_train.compute.backend import refuse_tf32
from resnext_train.compute.loss import TrainingLoss
from resnext_train.compute.precision import Precision
from resnext_train.config import SgdSection
from resnext_train.data.device_loader import on_device
from resnext_train.data.transforms.erase import RandomErasing
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.models.build_model import build_model
from resnext_train.training.compiled_network import NetworkOptions
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
    erasing = RandomErasing(1.0, "pixel")
    step = train_step(model, optimizer, context, precision=precision, erasing=erasing)
    boxes = [erasing.draw_boxes(0, 0, batch.labels.numpy(), None, 32) for batch in step_images(20, 0)]
    images = [b._replace(erase_boxes=of_batch) for b, of_batch in zip(step_images(20, 0), boxes, strict=True)]
    micro_batches = list(on_device(images, context.device))
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


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_step_sums_the_gradients_of_all_micro_batches(mode: str) -> None:
    """A CUDA graph hands out gradients in memory that its next run overwrites; evaluation between steps is eager."""
    refuse_tf32()
    context = DistContext(Rank(), torch.device("cuda", 0))
    gradients = []
    for options in (NetworkOptions(), NetworkOptions(compile=mode)):
        model = build_model(NETWORK, 4, seed=1).to(context.device).to(memory_format=torch.channels_last)
        step = train_step(model, build_optimizer(SgdSection(), model), context, options=options)
        for n in range(3):  # graphs are recorded in the second run, and replayed from the third on
            step(on_device(step_images(20, n), context.device), n, 20, lr=0.0)
            evaluated(
                model, on_device(step_images(20, n), context.device), NORMALISE, Precision("fp32", "cuda"), context
            )
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    eager, compiled = gradients
    assert F.cosine_similarity(eager, compiled, dim=0) > 0.999
    assert compiled.norm() == pytest.approx(eager.norm().item(), rel=0.01)


@pytest.mark.gpu
def test_deterministic_steps_have_the_same_bits_each_time() -> None:
    """In a process of its own: cuBLAS reads its environment once."""
    out = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", _STEPS], capture_output=True, text=True, check=True, env=_HELPERS)
        out.append(done.stdout)
    assert out[0] == out[1] != ""


_HELPERS = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
_STEPS = """
import torch
from helpers.steps import NETWORK, step_images, train_step
from resnext_train.compute.backend import deterministic_algorithms, prepare_gpu_libraries
from resnext_train.config import SgdSection
from resnext_train.data.device_loader import on_device
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.models.build_model import build_model
from resnext_train.training.health import weights_digest
from resnext_train.training.optimizer import build_optimizer

with deterministic_algorithms(True):
    prepare_gpu_libraries()
    context = DistContext(Rank(), torch.device("cuda", 0))
    model = build_model(NETWORK, 4, seed=1).to(context.device).to(memory_format=torch.channels_last)
    step = train_step(model, build_optimizer(SgdSection(), model), context, precision="bf16")
    for n in range(5):
        step(on_device(step_images(20, n), context.device), n, 20, lr=0.05)
    print(weights_digest(model))
"""
