from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from resnext_train.compute.loss import cross_entropy_sum
from resnext_train.compute.metrics import EvalCounts, target_rank
from resnext_train.training.train_metrics import StepResults, TrainMeter


def test_rank_counts_larger_logits_and_ties_of_lower_index() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    assert [target_rank(logits, torch.tensor([i, i])).tolist() for i in range(4)] == [
        [3, 0],
        [0, 1],
        [2, 2],
        [1, 3],
    ]


def test_rank_agrees_with_a_stable_sort() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 6, (500, 20), generator=g).float()  # many ties
    labels = torch.randint(0, 20, (500,), generator=g)
    order = torch.sort(logits, dim=1, descending=True, stable=True).indices
    assert torch.equal(target_rank(logits, labels), (order == labels[:, None]).int().argmax(1))


@pytest.mark.parametrize("row", [[math.nan] * 4, [math.nan, 1, 2, 3], [1, math.nan, 2, 3]])
def test_not_a_number_is_never_right(row: list[float]) -> None:
    labels = torch.tensor([0])
    rank = target_rank(torch.tensor([row]), labels).item()
    assert rank > 0, "a network that diverged must not score"


def test_counts_become_percentages_only_when_shown() -> None:
    counts = EvalCounts(7, 3, 5, 14.0)
    assert counts.to_dict() == {
        **{"count": 7, "top1_correct": 3, "top5_correct": 5, "loss": 2.0, "unreadable": 0},
        **{"top1": pytest.approx(300 / 7), "top5": pytest.approx(500 / 7)},
    }


def test_smoothed_loss_is_the_inception_papers() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    target = 0.9 * F.one_hot(labels, 5).double() + 0.1 / 5
    expected = -(target * logits.log_softmax(1)).sum()
    torch.testing.assert_close(cross_entropy_sum(logits, labels, 0.1), expected)
    assert cross_entropy_sum(logits.bfloat16(), labels).dtype == torch.float32


def test_meter_sums_micro_batches_into_window_and_epoch() -> None:
    """Rows of two micro-batches: their losses, their correct predictions, unreadable images, and whether it counts."""
    meter, results = TrainMeter(), StepResults(2)
    results.add(0, 3, torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0, 1.0]))
    results.add(1, 3, torch.tensor([float("nan"), 1.0, 2.0, 0.0, 1.0, 0.0]))
    assert results.peek()[1].losses[1] == 1.0
    assert len(results.peek()) == 2, "looking changes nothing"
    meter.add(results.read())
    assert results.read() == []
    assert (meter.window.mean_loss, meter.window.seen, meter.window.unreadable) == (0.5, 3, 1)
    assert meter.window.top1 == pytest.approx(200 / 3)
    meter.window = type(meter.window)()
    results.add(2, 3, torch.tensor([4.5, 0.0, 1.0, 0.0, 0.0, 1.0]))
    meter.add(results.read())
    assert (meter.window.mean_loss, meter.epoch.mean_loss, meter.epoch.correct, meter.epoch.seen) == (
        1.5,
        1.0,
        3,
        6,
    )
    again = TrainMeter()
    again.load_state_dict(meter.state_dict())
    assert (again.window, again.epoch) == (meter.window, meter.epoch)
