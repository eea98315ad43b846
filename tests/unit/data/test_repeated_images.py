"""Repeated augmentation: which images make up an epoch, and how their repetitions differ."""

from __future__ import annotations

import numpy as np
import pytest

from resnext_train.data.rng import permutation
from resnext_train.data.sampler import StepPlan, TrainSampler, shard_for_rank
from resnext_train.data.transforms.random_draws import image_draws

SEED = 3


def ra_sampler(images: int, repeats: int, ranks: int, rank: int, epoch: int) -> list[int]:
    """The images of a rank in an epoch as torchvision's training references choose them, for a given shuffle."""
    order = [i for i in permutation(SEED, epoch, images).tolist() for _ in range(repeats)]
    return order[rank::ranks][: images // ranks]


@pytest.mark.parametrize("repeats", [2, 3, 4, 7])
def test_micro_batches_are_those_of_as_many_ranks_in_the_references(repeats: int) -> None:
    plan = StepPlan(101, 20, 4, repeats=repeats)
    steps = plan.steps_per_epoch
    assert steps == 5
    sampler = list(TrainSampler(plan, SEED, range(4), 0, 2 * steps))
    for epoch in range(2):
        of_epoch = sampler[4 * steps * epoch : 4 * steps * (epoch + 1)]
        for number in range(4):
            ours = np.concatenate([batch.images for batch in of_epoch[number::4]])
            assert ours.tolist() == ra_sampler(101, repeats, 4, number, epoch)
        shown = np.concatenate([batch.images for batch in of_epoch])
        times = np.concatenate([batch.repetitions for batch in of_epoch if batch.repetitions is not None])
        pairs = set(zip(shown.tolist(), times.tolist(), strict=True))
        assert len(pairs) == len(shown) == 100, "an image comes each time with another number"
        assert set(times.tolist()) == set(range(repeats))


def test_any_ranks_and_restarts_make_the_same_steps() -> None:
    plan = StepPlan(50, 12, 5, "keep", repeats=3)
    whole = list(TrainSampler(plan, SEED, range(5), 0, 9))
    assert {len(batch.images) for batch in whole} == {2, 3}
    for world_size in (2, 3):
        for rank in range(world_size):
            shard = shard_for_rank(5, world_size, rank)
            ours = list(TrainSampler(plan, SEED, shard, 4, 9))
            theirs = [whole[5 * step + m] for step in range(4, 9) for m in shard]
            for a, b in zip(ours, theirs, strict=True):
                assert a.epoch == b.epoch
                assert np.array_equal(a.images, b.images)
                assert a.repetitions is not None
                assert b.repetitions is not None
                assert np.array_equal(a.repetitions, b.repetitions)


def test_each_repetition_has_draws_of_its_own_and_the_first_has_the_usual_ones() -> None:
    images = np.arange(200)
    usual, colors = image_draws(SEED, 1, images)
    first, first_colors = image_draws(SEED, 1, images, np.zeros(200, np.int64))
    boxes = {repetition: np.stack([d.box for d in image_draws(SEED, 1, images, np.full(200, repetition))[0]])
             for repetition in range(3)}  # fmt: skip
    assert np.array_equal(np.stack([d.box for d in usual]), boxes[0])
    assert [d.flip for d in usual] == [d.flip for d in first]
    assert all(np.array_equal(a, b) for a, b in zip(colors, first_colors, strict=True))
    assert len(np.unique(np.stack(list(boxes.values())))) == 3 * 200 * boxes[0].shape[1]
    mixed = image_draws(SEED, 1, np.array([7, 7, 9]), np.array([2, 0, 1]))[0]
    assert np.array_equal(np.stack([d.box for d in mixed]), np.stack([boxes[2][7], boxes[0][7], boxes[1][9]]))
