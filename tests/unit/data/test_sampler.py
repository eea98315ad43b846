from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from resnext_train.data.rng import micro_batch_seed, permutation, uniforms
from resnext_train.data.sampler import EvalSampler, StepPlan, TrainSampler, shard_for_rank
from resnext_train.errors import InputError


@pytest.mark.parametrize(
    ("images", "batch", "micro_batches", "last_batch", "steps", "dropped"),
    [
        (1_281_167, 256, 8, "auto", 5005, 0),  # ImageNet: 5004 full steps and one of 143, as in the paper's code
        (50_000, 128, 4, "auto", 391, 0),  # CIFAR: 390 full steps and one of 80
        (5_000, 64, 2, "auto", 78, 8),  # 8 images would move the weights as far as 64
        (5_000, 64, 2, "keep", 79, 0),
        (50_000, 128, 4, "drop", 390, 80),
        (1_281_167, 256, 8, "drop", 5004, 143),
        (110, 20, 4, "auto", 6, 0),  # just half a batch
        (109, 20, 4, "auto", 5, 9),
        (100, 20, 4, "drop", 5, 0),
        (108, 20, 4, "keep", 6, 0),  # two in each of four micro-batches
        (107, 20, 4, "keep", 5, 7),  # a micro-batch would have one
        (9, 20, 4, "auto", 1, 0),  # an epoch's only step
        (9, 20, 4, "drop", 1, 0),
        (9, 20, 4, "keep", 1, 0),
    ],
)
def test_steps_per_epoch(
    images: int,
    batch: int,
    micro_batches: int,
    last_batch: Literal["auto", "keep", "drop"],
    steps: int,
    dropped: int,
) -> None:
    plan = StepPlan(images, batch, micro_batches, last_batch)
    assert (plan.steps_per_epoch, plan.dropped) == (steps, dropped)
    sizes = [plan.step_size(s) for s in range(steps)]
    assert sum(sizes) == images - dropped
    assert plan.partial == (0 if sizes[-1] == batch else sizes[-1])


def test_too_few_images_for_one_step() -> None:
    with pytest.raises(InputError, match=r"^7 .*\b4 micro-batches\b.*train\.batch_size"):
        StepPlan(7, 20, 4)


@pytest.mark.parametrize(
    ("micro_batches", "world_size", "shards"), [(8, 3, [3, 3, 2]), (8, 8, [1] * 8), (8, 1, [8]), (7, 4, [2, 2, 2, 1])]
)
def test_shards_are_even_and_in_order(micro_batches: int, world_size: int, shards: list[int]) -> None:
    dealt = [shard_for_rank(micro_batches, world_size, rank) for rank in range(world_size)]
    assert [len(d) for d in dealt] == shards
    assert [g for d in dealt for g in d] == list(range(micro_batches))


def steps_of(
    plan: StepPlan, world_size: int, start: int, stop: int, seed: int = 5
) -> list[tuple[int, list[list[int]]]]:
    """For each step its epoch and its micro-batches, put together from all processes' samplers."""
    samplers = [
        iter(TrainSampler(plan, seed, shard_for_rank(plan.micro_batches, world_size, r), start, stop))
        for r in range(world_size)
    ]
    steps = []
    for _ in range(start, stop):
        parts = [next(s) for r, s in enumerate(samplers) for _ in shard_for_rank(plan.micro_batches, world_size, r)]
        assert len({p.epoch for p in parts}) == 1
        steps.append((parts[0].epoch, [p.images.tolist() for p in parts]))
    assert all(next(s, None) is None for s in samplers)
    return steps


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5])
def test_a_step_is_the_same_on_any_number_of_processes_and_after_any_restart(world_size: int) -> None:
    plan = StepPlan(108, 20, 5)
    whole = steps_of(plan, 1, 0, 12)
    assert steps_of(plan, world_size, 0, 12) == whole
    assert steps_of(plan, world_size, 7, 12) == whole[7:]


def test_an_epoch_uses_each_image_once_in_an_order_of_its_own() -> None:
    plan = StepPlan(1003, 20, 4)
    epochs: dict[int, list[int]] = {}
    for epoch, micro_batches in steps_of(plan, 1, 0, 2 * plan.steps_per_epoch):
        sizes = [len(g) for g in micro_batches]
        assert min(sizes) >= 2
        assert max(sizes) - min(sizes) <= 1
        epochs.setdefault(epoch, []).extend(i for g in micro_batches for i in g)
    assert [len(set(e)) for e in epochs.values()] == [1000, 1000]  # 3 are too few for 4 micro-batches
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("images", [1, 7, 8, 9, 37])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_takes_each_image_once_in_the_same_batches(images: int, world_size: int) -> None:
    samplers = [EvalSampler(images, 8, world_size, r) for r in range(world_size)]
    blocks = [b.images.tolist() for s in samplers for b in s if len(b.images)]
    assert sorted(blocks) == [list(range(a, min(a + 8, images))) for a in range(0, images, 8)]
    assert [len(s) for s in samplers] == [len(list(s)) for s in samplers]
    assert {len(s) for s in samplers} == {-(-len(blocks) // world_size)}, "they meet between batches"


def test_the_random_numbers_are_splitmix64() -> None:
    """First outputs of SplitMix64 from state 1234567, as its authors' code gives them (xoshiro.di.unimi.it)."""
    from resnext_train.data import rng

    raw = rng._raw(np.array([[1234567]], np.uint64), 3)[0]
    assert raw.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_random_numbers_belong_to_seed_epoch_and_image() -> None:
    images = np.arange(2000)
    base = uniforms(1, 2, images, 6)
    assert np.array_equal(uniforms(1, 2, images[::-1], 6), base[::-1]), "independent of who else is in the group"
    assert np.array_equal(uniforms(1, 2, images[5:6], 3), base[5:6, :3])
    for other in (uniforms(2, 2, images, 6), uniforms(1, 3, images, 6), uniforms(2, 1, images, 6)):
        assert not np.any(other == base)
    assert base.min() >= 0
    assert base.max() < 1
    # 12,000 uniform numbers: mean within five standard errors, neighbours uncorrelated
    assert base.mean() == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / base.size))
    for a, b in (
        (base[:-1, 0], base[1:, 0]),
        (base[:, 0], base[:, 1]),
        (base[:, 0], uniforms(1, 3, images, 1)[:, 0]),
    ):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(a))


def test_shuffles_and_seeds() -> None:
    order = permutation(0, 0, 10_000)
    assert sorted(order.tolist()) == list(range(10_000))
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
    assert len({micro_batch_seed(s, n, g) for s in range(3) for n in range(30) for g in range(8)}) == 720
