from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from resnext_train.config import all_keys, load_recipe
from resnext_train.run_dir.sink import LogEnd
from resnext_train.run_dir.trackers.tensorboard_sink import _HPARAMS, TensorBoardSink
from resnext_train.run_dir.trackers.tracked_run import TrackedRun, TrackerIds


def opened(folder: Path, end: LogEnd) -> TensorBoardSink:
    recipe = load_recipe("smoke")
    ids = TrackerIds(folder / "trackers.json")
    return TensorBoardSink(TrackedRun(folder, recipe.to_dict(), recipe.to_yaml(), ids, end))


@pytest.mark.parametrize("place", [".", "tensorboard"])
def test_what_came_after_a_checkpoint_is_shown_once(place: str, tmp_path: Path) -> None:
    """In the run folder, or where an older version began the run's curves."""
    (tmp_path / place).mkdir(exist_ok=True)
    picture, values = np.zeros((4, 5, 3), np.uint8), np.array([0.5, 1.0, 4.0])
    for end, steps in ((LogEnd(0), (1, 2, 3, 4)), (LogEnd(2), (3, 4))):
        sink = opened(tmp_path, end)
        for step in steps:
            sink.write({"event": "step", "step": step, "loss": 1.0 / step, "lr": float("nan")})
            sink.picture("train/images", picture, step)
            sink.histogram("train/gradient_norms", values, step)
        sink.close()
    assert len(list((tmp_path / place).glob("events.out.*"))) == 2
    board = EventAccumulator(str(tmp_path / place), size_guidance={"images": 0, "histograms": 0})
    board.Reload()
    assert [(s.step, s.value) for s in board.Scalars("train/loss")] == [
        (step, pytest.approx(1 / step)) for step in (1, 2, 3, 4)
    ]
    assert board.Tags()["scalars"] == ["train/loss"], "what is not finite is left out, as in log.jsonl"
    assert [(i.step, i.width, i.height) for i in board.Images("train/images")] == [(n, 5, 4) for n in (1, 2, 3, 4)]
    histograms = board.Histograms("train/gradient_norms")
    assert [h.step for h in histograms] == [1, 2, 3, 4]
    last = histograms[-1].histogram_value
    assert (last.min, last.max, last.num, last.sum, last.sum_squares) == (0.5, 4.0, 3.0, 5.5, 17.25)
    assert [t.step for t in board.Tensors("recipe")] == [1, 3], "one for each part of the run"


def test_main_values_are_keys_of_recipes() -> None:
    assert set(_HPARAMS) <= set(all_keys())
