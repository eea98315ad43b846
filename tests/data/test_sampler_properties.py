"""What holds for any numbers of images, groups, processes and restarts, told by sets and arithmetic alone."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from resnext_train.data.sampler import EvalSampler, StepPlan, TrainSampler, deal
from resnext_train.errors import InputError


class Case(NamedTuple):
    """A run on `world` processes, of which steps `start` to `stop` are looked at."""

    images: int
    batch_size: int
    groups: int
    world: int
    seed: int
    start: int
    stop: int

    @property
    def plan(self) -> StepPlan:
        return StepPlan(self.images, self.batch_size, self.groups)

    @property
    def used(self) -> int:
        """Images of an epoch: all but a remainder that has fewer than two for each group."""
        remainder = self.images % self.batch_size
        return self.images - (remainder if remainder < 2 * self.groups else 0)

    @property
    def per_epoch(self) -> int:
        full, rest = divmod(self.used, self.batch_size)
        return full + (rest > 0)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    groups = draw(st.integers(1, 9))
    batch_size = draw(st.integers(2 * groups, 2 * groups + 30))
    images = draw(st.integers(2 * groups, 200))
    case = Case(images, batch_size, groups, draw(st.integers(1, groups)), draw(st.integers(0, 2**64)), 0, 0)
    start = draw(st.integers(0, 3 * case.per_epoch))
    return case._replace(start=start, stop=start + draw(st.integers(0, 2 * case.per_epoch + 1)))


class Step(NamedTuple):
    epoch: int
    groups: list[list[int]]


def steps(case: Case, world: int, start: int, stop: int) -> list[Step]:
    """What all processes together make of each step, group by group in the order of processes."""
    streams = []
    for rank in range(world):
        share = deal(case.groups, world, rank)
        sampler = TrainSampler(case.plan, case.seed, share, start, stop)
        dealt = list(sampler)
        assert len(dealt) == len(sampler) == (stop - start) * len(share), "each process has its share at every step"
        streams.append((dealt, len(share)))
    made = []
    for n in range(stop - start):
        parts = [part for dealt, share in streams for part in dealt[n * share : (n + 1) * share]]
        (epoch,) = {part.epoch for part in parts}
        made.append(Step(epoch, [part.images.tolist() for part in parts]))
    return made


@given(cases())
def test_shares_are_contiguous_whole_and_even(case: Case) -> None:
    shares = [deal(case.groups, case.world, rank) for rank in range(case.world)]
    assert [group for share in shares for group in share] == list(range(case.groups))
    assert {len(share) for share in shares} <= {case.groups // case.world, -(-case.groups // case.world)}


@given(cases())
def test_every_image_comes_once_an_epoch_over_all_processes(case: Case) -> None:
    whole = steps(case, case.world, 0, 2 * case.per_epoch)
    first, second = whole[: case.per_epoch], whole[case.per_epoch :]
    orders = []
    for number, epoch in enumerate((first, second)):
        assert {step.epoch for step in epoch} == {number}
        order = [image for step in epoch for group in step.groups for image in group]
        assert len(order) == len(set(order)) == case.used
        assert set(order) <= set(range(case.images))
        orders.append(order)
    assert case.images - case.used < 2 * case.groups, "only what cannot fill every group with two is dropped"
    assert (case.plan.dropped, case.plan.steps_per_epoch) == (case.images - case.used, case.per_epoch)
    if case.used >= 30:  # two shuffles of as many agree once in 30!
        assert orders[0] != orders[1]


@given(cases())
def test_groups_are_even_and_none_is_too_small_for_bn(case: Case) -> None:
    for n, step in enumerate(steps(case, case.world, 0, case.per_epoch)):
        assert len(step.groups) == case.groups
        sizes = [len(group) for group in step.groups]
        assert sum(sizes) == min(case.batch_size, case.used - n * case.batch_size) == case.plan.step_size(n)
        assert min(sizes) >= 2
        assert max(sizes) - min(sizes) <= 1


@given(cases())
def test_a_run_from_any_step_on_any_world_is_the_rest_of_one_from_the_beginning(case: Case) -> None:
    whole = steps(case, 1, 0, case.stop)
    assert steps(case, case.world, case.start, case.stop) == whole[case.start :]


@given(cases())
def test_the_seed_decides_the_order(case: Case) -> None:
    assume(case.used >= 30)
    other = case._replace(seed=case.seed ^ 1)
    assert steps(case, 1, 0, case.per_epoch) != steps(other, 1, 0, case.per_epoch)


@given(groups=st.integers(1, 50), lacking=st.integers(1, 100), batch_size=st.integers(1, 300))
def test_images_that_cannot_fill_one_step_are_refused(groups: int, lacking: int, batch_size: int) -> None:
    images = max(0, 2 * groups - lacking)
    with pytest.raises(InputError, match="training images cannot fill"):
        StepPlan(images, batch_size, groups)


@given(images=st.integers(0, 300), batch_size=st.integers(1, 40), world=st.integers(1, 12))
def test_evaluation_takes_each_image_once_on_any_world(images: int, batch_size: int, world: int) -> None:
    seen: list[int] = []
    for rank in range(world):
        sampler = EvalSampler(images, batch_size, world, rank)
        blocks = [block.images.tolist() for block in sampler]
        assert len(blocks) == len(sampler)
        assert all(0 < len(block) <= batch_size for block in blocks)
        # Blocks begin where they would on one process, so what is averaged in a block does not depend on the world.
        assert all(block[0] % batch_size == 0 for block in blocks)
        seen += [image for block in blocks for image in block]
    assert sorted(seen) == list(range(images))
