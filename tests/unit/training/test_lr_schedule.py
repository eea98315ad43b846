from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from resnext_train.config import (
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    PlateauSchedule,
    SgdSection,
    StepSchedule,
    load_recipe,
)
from resnext_train.errors import InputError
from resnext_train.training.lr_schedule import Schedule, build_schedule
from resnext_train.training.schedule_warnings import schedule_warnings

PEAK = 0.1


def test_step_decay_of_the_papers() -> None:
    """0.1 · 0.1^floor(epoch / 30), epochs from 0, 5005 steps each."""
    schedule = build_schedule(StepSchedule(milestones=(30, 60, 90)), PEAK, 5005, 100 * 5005)
    for epoch in range(100):
        for step in (0, 2500, 5004):
            assert schedule.lr(epoch * 5005 + step) == pytest.approx(0.1 * 0.1 ** (epoch // 30), rel=1e-12)


def test_milestones_in_steps_and_epochs() -> None:
    schedule = build_schedule(StepSchedule(milestones=(2.0, "25 steps"), factor=0.5), PEAK, 10, 100)
    assert [schedule.lr(s) for s in (19, 20, 24, 25)] == pytest.approx([0.1, 0.05, 0.05, 0.025])


def test_warmup_rises_in_equal_parts() -> None:
    schedule = build_schedule(StepSchedule(warmup="4 steps"), PEAK, 10, 100)
    assert [schedule.lr(s) for s in range(6)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_cosine() -> None:
    schedule = build_schedule(CosineSchedule(name="cosine", warmup=1.0, final=0.02), PEAK, 10, 50)
    assert schedule.lr(9) == pytest.approx(0.1)
    assert schedule.lr(10) == pytest.approx(0.1)
    assert schedule.lr(30) == pytest.approx(0.06)  # half way
    assert schedule.lr(20) == pytest.approx(0.02 + 0.08 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule.lr(50) == pytest.approx(0.02)


def test_exponential_falls_in_stairs() -> None:
    """Inception-v3 paper, section 8: 0.045, multiplied by 0.94 after every two epochs."""
    section = ExponentialSchedule(name="exponential")
    schedule = build_schedule(section, 0.045, 10, 1000)
    rates = [schedule.lr(s) for s in (0, 19, 20, 39, 40, 999)]
    assert rates == pytest.approx([0.045, 0.045, 0.0423, 0.0423, 0.039762, 0.045 * 0.94**49])
    by_steps = build_schedule(ExponentialSchedule(name="exponential", every="3 steps", factor=0.5), PEAK, 10, 9)
    assert [by_steps.lr(s) for s in range(7)] == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025])


def test_plateau_reduces_after_patience_and_never_below_the_minimum() -> None:
    section = PlateauSchedule(name="plateau", patience=1, threshold=0.5, minimum=0.002)
    schedule = build_schedule(section, PEAK, 10, 1000)
    rates = []
    for error in [50, 40, 39.8, 39.4, 39.6, 39.7, 39.3, 39.2, 39.2, 39.2, 39.2]:
        schedule.observe(error)
        rates.append(schedule.lr(500))
    # 39.8 is within the threshold of 40, 39.4 below it; then 39.6 and 39.7: reduced; 39.3 and 39.2: again; and so on
    expected = [0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.002, 0.002, 0.002, 0.002]
    assert rates == pytest.approx(expected)


def test_plateau_continues_from_its_state() -> None:
    def fresh() -> Schedule:
        return build_schedule(PlateauSchedule(name="plateau", patience=1), PEAK, 10, 1000)

    whole = fresh()
    for error in (50, 51, 52):
        whole.observe(error)
    part = fresh()
    part.observe(50)
    part.observe(51)
    continued = fresh()
    continued.load_state_dict(part.state_dict())
    continued.observe(52)
    assert continued == whole
    assert whole.lr(0) == pytest.approx(0.01)


def test_warmup_from_a_factor_is_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    theirs = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=7)
    schedule = build_schedule(StepSchedule(milestones=(), warmup="7 steps", warmup_from=0.01), PEAK, 10, 100)
    for step in range(10):
        assert schedule.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("start", "steps", "told"),
    [("null", 7, "only comes up to 0.1"), ("0.01", 7, "does not reach 0.1"), ("null", 6, "does not reach 0.1")],
)
def test_a_run_within_its_warm_up_is_warned_of_the_rate_that_it_misses(start: str, steps: int, told: str) -> None:
    given = ["optimizer.lr=0.1", "schedule.warmup=7 steps", f"schedule.warmup_from={start}"]
    recipe = load_recipe("smoke.yaml", given)
    assert recipe.optimizer.lr == 0.1
    assert told in schedule_warnings(recipe, 100, steps)[0]
    assert not any("warm-up" in text for text in schedule_warnings(recipe, 100, 8))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["schedule.name=step", "schedule.warmup=3", "schedule.milestones=[2, 4]"],
            r"schedule\.milestones 2; so .* 0\.1$",
        ),
        (["schedule.name=step", "schedule.warmup=3", "schedule.milestones=[3, 4]"], None),
        (
            ["schedule.name=step", "schedule.milestones=[2, 4, '400 steps']"],
            r"milestones 2, 4, 400 steps has equal ones",
        ),
        (["schedule.name=step", "schedule.milestones=[4, 2]"], None),
        (["schedule.name=cosine", "schedule.final=0.2"], r"^schedule\.final=0\.2 is above the learning rate 0\.1;"),
        (["schedule.name=cosine", "schedule.final=0.1"], None),
        # of 500 steps: 0.995^499 is 0.082, 0.996^499 0.135, 0.87^(15 - 3 - 1) 0.216, 0.87^(62 - 12 - 1) 0.001
        (["ema.decay=0.995"], None),
        (["ema.decay=0.996"], r" 14 % of it are still the first weights"),
        (["ema.decay=0.87", "ema.every=32", "ema.warmup=1"], r" 22 % of it are still the first weights"),
        (["ema.decay=0.87", "ema.every=8", "ema.warmup=1"], None),
        (["ema.decay=0.87", "ema.every=60", "ema.warmup=4.7"], r" 100 % of it are still the first weights"),
        (["ema.decay=0.87", "ema.every=60", "ema.warmup=4.8"], r"the average only copies the weights"),
    ],
)
def test_schedules_and_averages_that_do_not_fit_the_run_are_told(overrides: list[str], told: str | None) -> None:
    recipe = load_recipe("smoke", ["optimizer.lr=0.1", *overrides])
    warnings = schedule_warnings(recipe, 100, 500)
    assert len(warnings) == (told is not None), warnings
    assert not told or re.search(told, warnings[0])


def test_piecewise_linear_is_numpys_interpolation() -> None:
    """FFCV's rn50 configuration: a tenth of a thousandth of the peak, the peak after two epochs, 0 at the end."""
    section = LinearSchedule(name="linear", points=((0.0, 1e-4), (2.0, 1.0), ("160 steps", 0.0)))
    schedule = build_schedule(section, 1.7, 10, 160)
    wanted = np.interp(np.arange(170), [0, 20, 160], [1.7e-4, 1.7, 0])
    assert [schedule.lr(step) for step in range(170)] == pytest.approx(wanted.tolist(), rel=1e-12, abs=1e-15)


def test_points_in_epochs_and_in_steps_ascend_together() -> None:
    section = LinearSchedule(name="linear", points=((2.0, 1.0), ("25 steps", 0.0)))
    assert build_schedule(section, PEAK, 10, 100).lr(25) == 0
    with pytest.raises(InputError, match=r"25 steps \(step 25\) stands after 2\.0 \(step 200\)"):
        build_schedule(section, PEAK, 100, 1000)


def test_the_linear_scaling_rule_is_explicit() -> None:
    assert SgdSection(lr=None, lr_per_256=0.256).peak_lr(1024) == 1.024
    assert SgdSection(lr=0.1).peak_lr(1024) == 0.1
