from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from resnext_train.config import load_recipe
from resnext_train.run_dir.sink import LogEnd
from resnext_train.run_dir.trackers.csv_sink import CsvSink
from resnext_train.run_dir.trackers.tracked_run import TrackedRun, TrackerIds

STEP = {"event": "step", "epoch": 1, "loss": 1.5, "top1": 25.0, "lr": 0.1, "loss_scale": 65536.0}
COUNTS = {"count": 8, "loss": 2.0, "top1_correct": 2, "top5_correct": 6}
EPOCH = {"event": "epoch", "epoch": 1, "val_loss": 2.0, "val_count": 4, "val_top1_correct": 1, "val_top5_correct": 2}


def opened(folder: Path, end: LogEnd, *overrides: str) -> CsvSink:
    recipe = load_recipe("smoke", overrides)
    return CsvSink(TrackedRun(folder, recipe.to_dict(), "", TrackerIds(folder / "trackers.json"), end))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    sink = opened(tmp_path, LogEnd(0))
    for step in (1, 2, 3):
        sink.write({**STEP, "step": step})
        sink.write({**EPOCH, "step": step})
    sink.close()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("step,4,1,1.")  # killed while writing
    sink = opened(tmp_path, LogEnd(2, epoch_is_open=True), "ema.decay=0.9", "eval.also={sketch: /s}")
    also: dict[str, Any] = {"also": {"sketch": COUNTS}, "ema": {**COUNTS, "also": {"sketch": COUNTS}}}
    sink.write({**EPOCH, "step": 2, **also})
    sink.close()
    table = rows(tmp_path)
    assert [(row["event"], row["step"]) for row in table] == [
        *(("step", "1"), ("epoch", "1"), ("step", "2"), ("epoch", "2")),
    ]
    assert (table[0]["train/loss"], table[0]["train/loss_scale"], table[0]["val/loss"]) == ("1.5", "65536.0", "")
    last = {name: float(value) for name, value in table[3].items() if "/" in name and value}
    counted = {"loss": 2.0, "accuracy": 25.0, "top5_accuracy": 75.0}  # 2 and 6 of 8
    expected = {"val/loss": 2.0, "val/accuracy": 25.0, "val/top5_accuracy": 50.0}
    for begin in ("val/ema_", "sketch/", "sketch/ema_"):
        expected |= {f"{begin}{name}": value for name, value in counted.items()}
    assert last == expected


def test_a_new_run_begins_a_new_table(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("event,step\r\nstep,1\r\n")
    opened(tmp_path, LogEnd(0)).close()
    assert rows(tmp_path) == []
