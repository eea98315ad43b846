"""Which operations an image gets: their distribution, and that nothing but the image and its epoch decides."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.images import MakeCifar
from resnext_train.config import load_recipe
from resnext_train.data.build_loaders import build_augment_policy, build_train_loader
from resnext_train.data.build_sources import build_splits
from resnext_train.data.sampler import StepPlan, TrainSampler
from resnext_train.data.transforms import image_operations as ops
from resnext_train.data.transforms.auto_augment import (
    AugmentPolicy,
    RandAugmentPolicy,
    TimmRandAugmentPolicy,
    TrivialAugmentWidePolicy,
)
from resnext_train.data.transforms.random_draws import OperationDraws, operation_draws
from resnext_train.distributed.dist_context import DistContext
from resnext_train.distributed.rank import Rank

MANY = np.arange(10_000)
TIMM = TimmRandAugmentPolicy(2, 7.0, 0.5, True, 0.3, "random", (1, 2, 3))


def check_counts(counts: NDArray[np.int64] | list[int], draws: int, probability: float) -> None:
    """Binomial counts are within five standard deviations."""
    allowed = 5 * math.sqrt(draws * probability * (1 - probability))
    assert np.abs(np.array(counts) - draws * probability).max() < allowed


@pytest.mark.parametrize("policy", [RandAugmentPolicy(3, 9, "bilinear"), TrivialAugmentWidePolicy(1, "bilinear")])
def test_torchvisions_operations_and_signs_are_equally_frequent(policy: AugmentPolicy) -> None:
    chosen = policy.choose(operation_draws(0, 0, MANY, policy.num_ops), 224)
    choices = [choice for image in chosen for choice in image]
    assert {len(image) for image in chosen} == {policy.num_ops}
    names, counts = np.unique([choice.operation.__name__ for choice in choices], return_counts=True)
    assert len(names) == 14
    check_counts(counts, len(choices), 1 / 14)
    sheared = np.array([choice.strength for choice in choices if choice.operation is ops.shear_x])
    check_counts([int((sheared > 0).sum()), int((sheared < 0).sum())], int((sheared != 0).sum()), 0.5)
    if isinstance(policy, TrivialAugmentWidePolicy):
        strengths = [choice.strength for choice in choices if choice.operation is ops.solarize]
        levels, counts = np.unique(strengths, return_counts=True)
        assert levels == pytest.approx(np.linspace(0, 255, 31))
        check_counts(counts, len(strengths), 1 / 31)


def test_timms_operations_magnitudes_and_omissions_have_its_distribution() -> None:
    chosen = TIMM.choose(operation_draws(0, 0, MANY, 2), 224)
    choices = [choice for image in chosen for choice in image]
    check_counts([len(choices)], 2 * len(MANY), 0.3)
    check_counts([sum(len(image) == 2 for image in chosen)], len(MANY), 0.09)
    names, counts = np.unique([choice.operation.__name__ for choice in choices], return_counts=True)
    assert len(names) == 15
    check_counts(counts, len(choices), 1 / 15)
    check_counts([sum(choice.sampling.resample == "bicubic" for choice in choices)], len(choices), 0.5)
    signed = np.array([choice.strength / 0.03 for choice in choices if choice.operation is ops.shear_y])
    check_counts([int((signed < 0).sum())], len(signed), 0.5)
    magnitudes = np.abs(signed)
    assert magnitudes.mean() == pytest.approx(7, abs=5 * 0.5 / math.sqrt(len(magnitudes)))
    assert magnitudes.std() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(2 * len(magnitudes)))
    check_counts([int((magnitudes > 7.5).sum())], len(magnitudes), 0.158655)  # the normal law's tail over 1 sigma
    limited = TimmRandAugmentPolicy(2, 10.0, 0.5, True, 1.0, "bicubic", (1, 2, 3))
    strengths = [c.strength for image in limited.choose(operation_draws(1, 0, MANY, 2), 224) for c in image]
    rotations = [s for s in strengths if abs(s) == 30.0]
    check_counts([len(rotations)], 2 * len(MANY), 0.5 / 15)


def test_draws_are_a_function_of_image_epoch_seed_and_repetition() -> None:
    def flat(drawn: OperationDraws) -> NDArray[np.float64]:
        return np.concatenate([field.reshape(len(field), -1) for field in drawn], axis=1)

    images, zero = np.array([5, 3, 5]), np.zeros(3, np.int64)
    of_three = flat(operation_draws(1, 2, images, 2))
    assert np.array_equal(of_three, flat(operation_draws(1, 2, np.arange(9), 2))[images])
    assert np.array_equal(of_three, flat(operation_draws(1, 2, images, 2, zero)))
    repeated = flat(operation_draws(1, 2, images, 2, np.array([0, 1, 2])))
    others = (repeated[1:], flat(operation_draws(0, 2, images, 2)), flat(operation_draws(1, 3, images, 2)))
    assert np.array_equal(repeated[0], of_three[0])
    rows = np.concatenate([of_three[:2], *others[:1], others[1][:2], others[2][:2]])
    assert len(np.unique(rows)) == rows.size, "no number is drawn twice"


ONE = DistContext(Rank(), torch.device("cpu"))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["files", "decoded"])
def test_crops_are_operated_on_whatever_loads_them(
    kind: str, workers: int, image_root: Path, make_cifar: MakeCifar
) -> None:
    """The operations of an image are done on its crop; micro-batches and loader processes change nothing."""
    steps = {"files": 4, "decoded": 2}[kind]  # of files, also one of the second epoch
    if kind == "files":
        name, where = "resnet18.yaml", [f"data.root={image_root}", "augment.size=32"]
    else:
        make_cifar(image_root.parent / "cifar", "CIFAR-10")
        name, where = "cifar/plain20.yaml", [f"data.root={image_root.parent / 'cifar'}"]

    def loaded(micro_batch: int, *more: str, repeats: int = 1) -> torch.Tensor:
        sizes = ["train.batch_size=8", f"train.micro_batch={micro_batch}", f"data.workers={workers}"]
        recipe = load_recipe(name, [*where, *sizes, *more])
        source = build_splits(recipe.data).train
        plan = StepPlan(len(source), 8, 8 // micro_batch, repeats=repeats)
        batches = build_train_loader(recipe, source, plan, ONE, range(steps), print)
        return torch.cat([batch.images.clone() for batch in batches])

    chosen = ["auto_augment.name=timm_randaugment", "auto_augment.probability=1"]
    recipe = load_recipe(name, [*where, *chosen])
    policy = pickle.loads(pickle.dumps(build_augment_policy(recipe)))
    assert torch.equal(loaded(2, *chosen), loaded(8, *chosen))
    for repeats in (1, 2):
        plain, operated = loaded(8, repeats=repeats), loaded(8, *chosen, repeats=repeats)
        expected = plain.clone().permute(0, 2, 3, 1).numpy()
        plan = StepPlan(len(build_splits(recipe.data).train), 8, 1, repeats=repeats)
        for step, (epoch, images, times) in enumerate(TrainSampler(plan, recipe.train.seed, range(1), 0, steps)):
            draws = operation_draws(recipe.train.seed, epoch, images, 2, times)
            policy(expected[8 * step : 8 * step + 8], draws)
        assert np.array_equal(operated.permute(0, 2, 3, 1).numpy(), expected)
        assert not torch.equal(operated, plain)


def test_none_is_no_policy() -> None:
    assert build_augment_policy(load_recipe("resnet18.yaml")) is None
