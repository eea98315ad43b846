"""What holds for any numbers of images, micro-batches, processes and restarts, by sets and arithmetic alone."""

from __future__ import annotations

from typing import Literal, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from resnext_train.data.sampler import EvalSampler, StepPlan, TrainSampler, shard_for_rank
from resnext_train.errors import InputError


class Case(NamedTuple):
    """A run on `world_size` processes, of which steps `start` to `stop` are looked at."""

    images: int
    batch_size: int
    micro_batches: int
    world_size: int
    seed: int
    start: int
    stop: int
    last_batch: Literal["auto", "keep", "drop"]

    @property
    def plan(self) -> StepPlan:
        return StepPlan(self.images, self.batch_size, self.micro_batches, self.last_batch)

    @property
    def used(self) -> int:
        """Images of an epoch: all but a remainder with too few of them for a step."""
        least = {"keep": 0, "auto": self.batch_size / 2, "drop": self.batch_size}[self.last_batch]
        full, remainder = divmod(self.images, self.batch_size)
        return self.images - (remainder if remainder < max(2 * self.micro_batches, least if full else 0) else 0)

    @property
    def per_epoch(self) -> int:
        full, rest = divmod(self.used, self.batch_size)
        return full + (rest > 0)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    micro_batches = draw(st.integers(1, 9))
    batch_size = draw(st.integers(2 * micro_batches, 2 * micro_batches + 30))
    images = draw(st.integers(2 * micro_batches, 200))
    world_size, seed = draw(st.integers(1, micro_batches)), draw(st.integers(0, 2**64))
    choices: list[Literal["auto", "keep", "drop"]] = ["auto", "keep", "drop"]
    last_batch = draw(st.sampled_from(choices))
    case = Case(images, batch_size, micro_batches, world_size, seed, 0, 0, last_batch)
    start = draw(st.integers(0, 3 * case.per_epoch))
    return case._replace(start=start, stop=start + draw(st.integers(0, 2 * case.per_epoch + 1)))


class Step(NamedTuple):
    epoch: int
    micro_batches: list[list[int]]


def steps(case: Case, world_size: int, start: int, stop: int) -> list[Step]:
    """What all processes together make of each step, group by group in the order of processes."""
    streams = []
    for rank in range(world_size):
        shard = shard_for_rank(case.micro_batches, world_size, rank)
        sampler = TrainSampler(case.plan, case.seed, shard, start, stop)
        dealt = list(sampler)
        assert len(dealt) == len(sampler) == (stop - start) * len(shard), "each process has its share at every step"
        streams.append((dealt, len(shard)))
    made = []
    for n in range(stop - start):
        parts = [part for dealt, shard in streams for part in dealt[n * shard : (n + 1) * shard]]
        (epoch,) = {part.epoch for part in parts}
        made.append(Step(epoch, [part.images.tolist() for part in parts]))
    return made


@pytest.mark.slow
@given(cases())
def test_shares_are_contiguous_whole_and_even(case: Case) -> None:
    shards = [shard_for_rank(case.micro_batches, case.world_size, rank) for rank in range(case.world_size)]
    assert [micro_batch for shard in shards for micro_batch in shard] == list(range(case.micro_batches))
    assert {len(shard) for shard in shards} <= {
        case.micro_batches // case.world_size,
        -(-case.micro_batches // case.world_size),
    }


@given(cases())
def test_every_image_comes_once_an_epoch_over_all_processes(case: Case) -> None:
    whole = steps(case, case.world_size, 0, 2 * case.per_epoch)
    first, second = whole[: case.per_epoch], whole[case.per_epoch :]
    orders = []
    for number, epoch in enumerate((first, second)):
        assert {step.epoch for step in epoch} == {number}
        order = [image for step in epoch for micro_batch in step.micro_batches for image in micro_batch]
        assert len(order) == len(set(order)) == case.used
        assert set(order) <= set(range(case.images))
        orders.append(order)
    assert 0 <= case.images - case.used < case.batch_size
    assert (case.plan.dropped, case.plan.steps_per_epoch) == (case.images - case.used, case.per_epoch)
    if case.used >= 30:  # two shuffles of as many agree once in 30!
        assert orders[0] != orders[1]


@given(cases())
def test_micro_batches_are_even_and_none_is_too_small_for_bn(case: Case) -> None:
    for n, step in enumerate(steps(case, case.world_size, 0, case.per_epoch)):
        assert len(step.micro_batches) == case.micro_batches
        sizes = [len(micro_batch) for micro_batch in step.micro_batches]
        assert sum(sizes) == min(case.batch_size, case.used - n * case.batch_size) == case.plan.step_size(n)
        assert min(sizes) >= 2
        assert max(sizes) - min(sizes) <= 1


@given(cases())
def test_a_run_from_any_step_on_any_world_is_the_rest_of_one_from_the_beginning(case: Case) -> None:
    whole = steps(case, 1, 0, case.stop)
    assert steps(case, case.world_size, case.start, case.stop) == whole[case.start :]


@given(cases())
def test_the_seed_decides_the_order(case: Case) -> None:
    assume(case.used >= 30)
    other = case._replace(seed=case.seed ^ 1)
    assert steps(case, 1, 0, case.per_epoch) != steps(other, 1, 0, case.per_epoch)


@given(micro_batches=st.integers(1, 50), lacking=st.integers(1, 100), batch_size=st.integers(1, 300))
def test_images_that_cannot_fill_one_step_are_refused(micro_batches: int, lacking: int, batch_size: int) -> None:
    images = max(0, 2 * micro_batches - lacking)
    with pytest.raises(InputError, match=rf"^{images} .*\b{micro_batches} micro-batches\b.*train\.batch_size"):
        StepPlan(images, batch_size, micro_batches)


@given(images=st.integers(0, 300), batch_size=st.integers(1, 40), world_size=st.integers(1, 12))
def test_evaluation_takes_each_image_once_on_any_world(images: int, batch_size: int, world_size: int) -> None:
    seen: list[int] = []
    for rank in range(world_size):
        sampler = EvalSampler(images, batch_size, world_size, rank)
        blocks = [block.images.tolist() for block in sampler]
        assert len(blocks) == len(sampler) == -(-images // (batch_size * world_size))
        assert all(blocks[:-1]), "only the last one may be empty"
        assert all(len(block) <= batch_size for block in blocks)
        # Blocks begin where they would on one process, so what is averaged in a block does not depend on the world.
        assert all(block[0] % batch_size == 0 for block in blocks if block)
        seen += [image for block in blocks for image in block]
    assert sorted(seen) == list(range(images))
