"""One step is the same step on any number of processes, and it is the step that plain arithmetic gives."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from helpers.ranks import run_ranks, single
from helpers.steps import MICRO_BATCHES, NETWORK, NORMALISE, step_images, take_steps, train_step
from resnext_train.checkpoint.checkpoint_file import save, snapshot
from resnext_train.compute.loss import TrainingLoss
from resnext_train.config import AdamwSection, LambSection, OptimizerSection, RmspropSection, SgdSection
from resnext_train.data.image_batch import ImageBatch
from resnext_train.data.sampler import shard_for_rank
from resnext_train.data.transforms.mix import Mix, Mixing
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank
from resnext_train.models.build_model import build_model
from resnext_train.training.ema import WeightAverage
from resnext_train.training.optimizer import build_optimizer
from resnext_train.training.train_step import TrainStep


def running(norm: torch.nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean and the variance that it keeps."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def mixed_by_hand(pixels: torch.Tensor, labels: torch.Tensor, mix: Mix | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and dense targets, as torchvision.transforms.v2 mixes them."""
    dense = F.one_hot(labels, 4).double()
    if mix is None:
        return pixels, dense
    mixed = mix.weight * pixels + (1 - mix.weight) * pixels.roll(1, 0)
    if mix.box is not None:
        mixed = pixels.clone()
        mixed[:, :, mix.box[0], mix.box[1]] = pixels.roll(1, 0)[:, :, mix.box[0], mix.box[1]]
    return mixed, mix.weight * dense + (1 - mix.weight) * dense.roll(1, 0)


def by_hand(sizes: list[int], mixing: Mixing | None = None) -> dict[str, Any]:
    """The same steps with nothing of the code under test but network, colours and ratios: one loss, stock SGD."""
    model = build_model(NETWORK, 4, seed=1).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, nesterov=True, weight_decay=1e-4)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    total, correct = torch.zeros((), dtype=torch.float64), 0
    for n, size in enumerate(sizes):
        statistics: list[list[torch.Tensor]] = []
        losses = []
        before = [[t.clone() for t in running(m)] for m in norms]
        for number, (images, labels, maps, *_) in enumerate(step_images(size, n)):
            for m in norms:
                m.momentum = 1.0
            mix = None if mixing is None else mixing.draw(n, number, 32, 32)
            pixels, dense = mixed_by_hand(NORMALISE(images, maps, torch.float64), labels, mix)
            logits = model(pixels)
            losses.append(F.cross_entropy(logits, dense, reduction="sum", label_smoothing=0.1))
            correct += int((logits.argmax(1) == dense.argmax(1)).sum())
            statistics.append([t.clone() for m in norms for t in running(m)])
        optimizer.zero_grad()
        loss = torch.stack(losses).sum()
        (loss / size).backward()
        optimizer.step()
        total += loss.detach()
        means = [torch.stack(s).mean(0) for s in zip(*statistics, strict=True)]
        for i, (m, (mean, var)) in enumerate(zip(norms, before, strict=True)):
            running_mean, running_var = running(m)
            running_mean.copy_(0.9 * mean + 0.1 * means[2 * i])
            running_var.copy_(0.9 * var + 0.1 * means[2 * i + 1])
            assert m.num_batches_tracked is not None
            m.num_batches_tracked.fill_(n + 1)
    gradients = {k: p.grad for k, p in model.named_parameters()}
    return {"gradients": gradients, "state": model.state_dict(), "loss": total, "correct": correct}


def spoilt(micro_batches: list[ImageBatch], number: int) -> list[ImageBatch]:
    """`micro_batches`, of which one has an image that is not a number."""
    maps = micro_batches[number].color_maps
    assert maps is not None
    maps[1, 3] = float("nan")
    return micro_batches


def take_spoilt_steps(context: DistContext, optimizer: OptimizerSection, clip_norm: float | None) -> dict[str, Any]:
    """A step that is spoilt, a good one, a spoilt one, and the bits of all weights, momentum and buffers after each."""
    model = build_model(NETWORK, 4, seed=1).to(memory_format=torch.channels_last)
    built = build_optimizer(optimizer, model)
    average = WeightAverage(model, 0.9)
    step = train_step(model, built, context, loss=TrainingLoss(0.1), clip_norm=clip_norm, average=average)
    states = [snapshot(bits(model, built, average))]
    for n, bad in enumerate([True, False, True]):
        micro_batches = spoilt(step_images(20, n), 3) if bad else step_images(20, n)
        step(
            iter([micro_batches[i] for i in shard_for_rank(MICRO_BATCHES, context.world_size, context.rank)]),
            n,
            20,
            lr=0.05,
        )
        states.append(snapshot(bits(model, built, average)))
    skipped = step.read_metrics()
    return {
        "states": states,
        "skipped": [list(s) for s in skipped],
        "seen": step.meter.epoch.seen,
        "loss": step.meter.epoch.loss,
    }


def bits(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None = None
) -> dict[str, torch.Tensor]:
    inner = {f"{i}/{k}": t for i, s in enumerate(optimizer.state.values()) for k, t in s.items()}
    kept = average.state_dict() if average else {"weights": {}}
    averaged = {f"ema/{k}": t for k, t in kept.pop("weights").items()}
    return {**model.state_dict(), **inner, **averaged, **kept}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "clip_norm"),
    [
        (SgdSection(), None),
        (SgdSection(), 1.0),
        (RmspropSection(name="rmsprop"), 1.0),
        (AdamwSection(name="adamw"), None),
        (LambSection(name="lamb"), 1.0),
    ],
    ids=["sgd", "sgd_clipped", "rmsprop", "adamw", "lamb"],
)
def test_a_step_that_is_not_finite_leaves_every_bit_as_it_was(optimizer: Any, clip_norm: float | None) -> None:
    result = single(take_spoilt_steps, optimizer, clip_norm)
    new, first, second, third = result["states"]
    assert equal(new, first), "the very first step"
    assert equal(second, third)
    assert not equal(first, second)
    assert all(t.isfinite().all() for t in third.values())
    assert result["skipped"] == [[0, [3], 1], [2, [3], 1]]
    assert result["seen"] == 20
    assert math.isfinite(result["loss"])


@pytest.mark.slow
def test_all_processes_skip_what_one_finds_not_finite(tmp_path: Path) -> None:
    one = single(take_spoilt_steps, SgdSection(lr=0.05), None)
    for two in run_ranks(take_spoilt_steps, 2, tmp_path, SgdSection(lr=0.05), None):
        assert all(equal(a, b) for a, b in zip(one["states"], two["states"], strict=True))
        assert two["skipped"] == one["skipped"]


def test_a_gradient_that_overflows_is_skipped_though_all_losses_are_finite() -> None:
    model = build_model(NETWORK, 4, seed=1)
    optimizer = build_optimizer(SgdSection(), model)
    context = DistContext(Rank(), torch.device("cpu"))
    step = train_step(model, optimizer, context)
    before = snapshot(bits(model, optimizer))
    model.get_parameter("fc.weight").register_hook(lambda gradient: gradient * 1e38 * 1e38)
    step(iter(step_images(20, 0)), 0, 20, lr=0.05)
    assert [list(s) for s in step.read_metrics()] == [[0, [], 1]]
    assert equal(before, bits(model, optimizer))


def stop_after_two_steps(context: DistContext, path: Path) -> dict[str, Any]:
    """Two steps in fp64, saved as a checkpoint; and the next step without an interruption."""
    model, optimizer, step = fp64_step(context)
    for n in range(2):
        micro_batches = step_images(20, n)
        step(
            iter([micro_batches[i] for i in shard_for_rank(MICRO_BATCHES, context.world_size, context.rank)]),
            n,
            20,
            lr=0.05,
        )
    if context.is_main:
        save(snapshot({"model": model.state_dict(), "optimizer": optimizer.state_dict()}), path)
    return third_step(context, model, step)


def continue_with_a_third(context: DistContext, path: Path) -> dict[str, Any]:
    """The third step from the checkpoint."""
    model, optimizer, step = fp64_step(context)
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return third_step(context, model, step)


def fp64_step(context: DistContext) -> tuple[torch.nn.Module, torch.optim.Optimizer, TrainStep]:
    model = build_model(NETWORK, 4, seed=1).double().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(SgdSection(lr=0.05), model)
    step = train_step(model, optimizer, context)
    step.warm_up_ddp_buckets(4, 32)
    return model, optimizer, step


def third_step(context: DistContext, model: torch.nn.Module, step: TrainStep) -> dict[str, Any]:
    micro_batches = step_images(13, 2)
    step(
        iter([micro_batches[i] for i in shard_for_rank(MICRO_BATCHES, context.world_size, context.rank)]),
        2,
        13,
        lr=0.05,
    )
    return {"gradients": {k: p.grad for k, p in model.named_parameters()}, "state": model.state_dict()}


@pytest.mark.slow
def test_a_step_after_a_change_of_the_number_of_processes_is_the_unchanged_one(tmp_path: Path) -> None:
    """In fp64: stopped on 2 processes and continued on 1, 3 and 4, and stopped on 3 and continued on 2."""
    for world_size, others in ((2, (1, 3, 4)), (3, (2,))):
        path = tmp_path / f"{world_size}.pt"
        unchanged = run_ranks(stop_after_two_steps, world_size, tmp_path, path)[0]
        for other in others:
            folder = tmp_path / f"{world_size}_{other}"
            folder.mkdir()
            for changed in run_ranks(continue_with_a_third, other, folder, path):
                assert largest_difference(changed["gradients"], unchanged["gradients"]) < 1e-10
                assert largest_difference(changed["state"], unchanged["state"]) < 1e-10


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((float((a[k].double() - b[k].double()).abs().max()) for k in a), default=0.0)


def named(tensors: dict[str, torch.Tensor] | list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {str(i): t for i, t in enumerate(tensors)} if isinstance(tensors, list) else tensors


MIXING = Mixing(mixup=0.8, cutmix=1.0, switch=0.5)


@pytest.mark.parametrize(
    ("sizes", "mixing", "tolerance"),
    [([20], None, 1e-12), ([13], None, 1e-12), ([20, 20, 13], None, 1e-7), ([20, 13], MIXING, 1e-8)],
)  # rounding grows a thousandfold from step to step
def test_a_step_is_what_arithmetic_says(sizes: list[int], mixing: Mixing | None, tolerance: float) -> None:
    ours = single(take_steps, torch.float64, sizes, SgdSection(lr=0.05), mixing)
    expected = by_hand(sizes, mixing)
    assert largest_difference(ours["gradients"], expected["gradients"]) < tolerance
    assert largest_difference(ours["state"], expected["state"]) < tolerance
    assert ours["loss"].item() == pytest.approx(expected["loss"].item(), rel=tolerance)
    assert ours["correct"] == expected["correct"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [(), (LambSection(name="lamb", lr=0.05), MIXING, True)],
    ids=["sgd", "everything"],
)
def test_two_processes_are_bit_identical_to_one(tmp_path: Path, options: tuple[Any, ...]) -> None:
    """fp32 on one thread each, three steps with an odd number of micro-batches and a partial batch at the end."""
    one = single(take_steps, torch.float32, [20, 20, 13], *options)
    for two in run_ranks(take_steps, 2, tmp_path, torch.float32, [20, 20, 13], *options):
        assert all(torch.equal(one["state"][k], two["state"][k]) for k in one["state"])
        for part in ("momentum", "average"):
            assert all(torch.equal(a, b) for a, b in zip(one[part], two[part], strict=True))
        assert torch.equal(one["loss"], two["loss"])
        assert torch.equal(one["correct"], two["correct"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world_size", "size", "options"),
    [
        (3, 13, (LambSection(name="lamb", lr=0.05), MIXING, True)),
        (4, 20, (AdamwSection(name="adamw"), MIXING, True)),
    ],
)
def test_more_processes_agree_in_fp64(tmp_path: Path, world_size: int, size: int, options: tuple[Any, ...]) -> None:
    one = single(take_steps, torch.float64, [size], *options)
    for many in run_ranks(take_steps, world_size, tmp_path, torch.float64, [size], *options):
        assert largest_difference(one["gradients"], many["gradients"]) < 1e-10
        for part in ("state", "momentum", "average"):
            assert largest_difference(named(one[part]), named(many[part])) < 1e-10
        assert torch.equal(one["correct"], many["correct"])


def test_statistics_move_once_a_step_whatever_the_number_of_micro_batches() -> None:
    """The same images in every group: the result must be that of one plain pass over one group."""
    model = build_model(NETWORK, 4, seed=1)
    plain = copy.deepcopy(model)
    context = DistContext(Rank(), torch.device("cpu"))
    step = train_step(model, build_optimizer(SgdSection(), model), context)
    micro_batch = step_images(20, 0)[0]
    step(iter([micro_batch] * MICRO_BATCHES), 0, 4 * MICRO_BATCHES, lr=1e-9)
    shown = step.peek()
    step.read_metrics()
    assert step.meter.window == shown, "looking changes nothing"
    assert shown.seen == 4 * MICRO_BATCHES
    plain(NORMALISE(micro_batch.images, micro_batch.color_maps))
    for (name, ours), other in zip(model.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6, msg=name)


def test_the_network_is_an_ordinary_one_within_the_run_and_after_it() -> None:
    """Against plain torch, with a module of another momentum and one that takes the mean over all steps (None)."""
    model = build_model(NETWORK, 4, seed=1).double()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    norms[1].momentum, norms[2].momentum = 0.3, None
    plain = copy.deepcopy(model)
    stock = torch.optim.SGD(plain.parameters(), 0.05, 0.9, nesterov=True, weight_decay=1e-4)
    momenta, buffers = [m.momentum for m in norms], list(model.buffers())
    context = DistContext(Rank(), torch.device("cpu"))
    step = train_step(model, build_optimizer(SgdSection(lr=0.05), model), context, micro_batches=1)
    for n in range(3):
        micro_batches = step_images(20, n)
        images, labels = torch.cat([b.images for b in micro_batches]), torch.cat([b.labels for b in micro_batches])
        maps = torch.cat([b.color_maps for b in micro_batches if b.color_maps is not None])
        step(iter([ImageBatch(images, labels, maps)]), n, 20, lr=0.05)
        stock.zero_grad()
        (F.cross_entropy(plain(NORMALISE(images, maps, torch.float64)), labels)).backward()
        stock.step()
        ours, expected = model.state_dict(), plain.state_dict()
        assert list(ours) == list(expected)
        assert {k: (t.dtype, t.shape) for k, t in ours.items()} == {k: (t.dtype, t.shape) for k, t in expected.items()}
        assert ours["bn1.num_batches_tracked"] == n + 1
        assert largest_difference(ours, expected) < 1e-7
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in ours.values()), "memory is shared"
    assert {m.momentum for m in norms} == {1.0}
    step.statistics.__exit__(None, None, None)
    assert [m.momentum for m in norms] == momenta
    assert all(a is b for a, b in zip(model.buffers(), buffers, strict=True))


@pytest.mark.parametrize(("finished", "micro_batches"), [(0, 0), (0, 2), (1, 2), (1, 4)])
def test_an_error_leaves_the_network_as_before_the_step(finished: int, micro_batches: int) -> None:
    """After as many micro-batches of it; and the step can be taken afterwards."""
    model = build_model(NETWORK, 4, seed=1)
    model.get_buffer("bn1.running_mean").fill_(3.0)
    context = DistContext(Rank(), torch.device("cpu"))
    step = train_step(model, build_optimizer(SgdSection(lr=0.05), model), context)
    for n in range(finished):
        step(iter(step_images(20, n)), n, 20, lr=0.05)
    undisturbed = copy.deepcopy(model)
    before = undisturbed.state_dict()
    error = RuntimeError("no more images")
    if micro_batches:
        with pytest.raises(StopIteration):
            step(iter(step_images(20, finished)[:micro_batches]), finished, 20, lr=0.05)
        assert not torch.equal(model.get_buffer("bn1.running_mean"), before["bn1.running_mean"]), "the step has begun"
    step.statistics.__exit__(type(error), error, None)
    assert largest_difference(model.state_dict(), before) == 0
    first = model.bn1
    assert isinstance(first, torch.nn.BatchNorm2d)
    assert first.momentum == 0.1
    for m in undisturbed.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.momentum = 0.1  # it was copied within the context
    other = train_step(undisturbed, build_optimizer(SgdSection(lr=0.05), undisturbed), context)
    with step.statistics:
        step(iter(step_images(20, 7)), 7, 20, lr=0.0)
    other(iter(step_images(20, 7)), 7, 20, lr=0.0)
    assert largest_difference(dict(model.named_buffers()), dict(undisturbed.named_buffers())) == 0


@pytest.mark.parametrize("precision", ["bf16"])
def test_autocast_keeps_weights_statistics_and_gradients_in_fp32(precision: Any) -> None:
    model = build_model(NETWORK, 4, seed=1)
    context = DistContext(Rank(), torch.device("cpu"))
    step = train_step(model, build_optimizer(SgdSection(), model), context, precision=precision, loss=TrainingLoss(0.1))
    step(iter(step_images(20, 0)), 0, 20, lr=0.01)
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.int64}
    gradients = {k: p.grad for k, p in model.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(model.parameters()))
    assert {g.dtype for g in gradients.values()} == {torch.float32}
    reference = single(take_steps, torch.float64, [20])["gradients"]
    cosine = F.cosine_similarity(gradients["fc.weight"].flatten().double(), reference["fc.weight"].flatten(), dim=0)
    assert cosine > 0.99
