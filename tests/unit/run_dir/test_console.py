"""What a run shows while it goes on: on terminals of some widths, and in files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.commands import train
from helpers.evaluation import eval_batch
from helpers.runs import RUN
from helpers.terminal import on_terminal, screens
from resnext_train.run_dir.console import ConsoleSink, evaluation_shown, fitting

QUIET_RUN = [*RUN, "log.every=50"]
LABELS = ("epoch 90/90", "90/90")


def numbers(data_wait: float, step: int = 1234) -> dict[str, Any]:
    values = {"loss": 6.1234, "top1": 45.67, "images_per_s": 1234.5}
    return {"event": "step", "epoch": 90, "step": step, "data_wait": data_wait, **values}


def bar(
    columns: int,
    data_wait: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    **more: float,
) -> str:
    """The bar of the last of 90 epochs of 5,004 steps."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    console = ConsoleSink(epochs=90, steps_per_epoch=5004, total_steps=90 * 5004, start=0)
    console.tick(90, 1234)
    console.show({**numbers(data_wait, 90 * 5004 - 3770), **more})
    monkeypatch.setattr("tqdm.std.tqdm.clear", lambda *a, **k: None)
    assert console._progress is not None
    assert console._progress._bar is not None
    console._progress._bar.refresh()
    shown = screens(capsys.readouterr().out)[-1]
    console.close()
    return shown


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("data_wait", [0.012, 0.12])
def test_the_bar_has_all_that_the_width_has_room_for(
    columns: int, data_wait: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = bar(columns, data_wait, monkeypatch, capsys)
    assert len(shown) < columns
    drawn = re.search(r"\|(.*)\|", shown)
    assert drawn
    assert len(drawn[1]) >= (4 if columns < 80 else 10)
    for fact in ("90/90", " 25%|", "loss 6.123", "45.7", "1234", "ETA "):
        assert fact in shown, shown
    assert ("wait" in shown) == ((data_wait > 0.05 and columns >= 80) or columns >= 120)
    assert ("epoch 90/90" in shown) == (columns >= 120 or (columns, data_wait) == (80, 0.12))
    assert ("1234/5004" in shown) == (columns >= 120)


def test_a_terminal_too_narrow_for_anything_gets_the_shortest() -> None:
    assert fitting(LABELS, ["rich wording", "short"], 10) == ("90/90", "short")
    assert fitting(LABELS, ["step {n_fmt}/{total_fmt}", "short"], 40, 10**9) == ("epoch 90/90", "short")


def test_speed_and_memory_are_shown_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of_machine = {"flops_per_s": 30.84e12, "flops_per_s_each": 15.42e12, "memory_mb": 12_345.6}
    shown = [bar(columns, 0.012, monkeypatch, capsys, **of_machine) for columns in (80, 120, 200)]
    assert [" 30.8 TFLOP/s, 12.3 GB, " in line for line in shown] == [False, False, True]
    assert "1234/5004" in shown[1]


@pytest.mark.slow
def test_a_run_on_a_terminal(tmp_path: Path) -> None:
    """First numbers come with the fifth step although none are logged; the evaluation has a bar of its own."""
    options = ["data.train_images=176", "data.val_images=640", "train.epochs=1", "--out", str(tmp_path / "run")]
    written = on_terminal(train, *QUIET_RUN, *options, env={"NO_COLOR": "1", "TQDM_MININTERVAL": "0"})
    assert not re.search(r"\x1b\[[0-9;]*m", written), "nothing is coloured"
    shown = screens(written)
    bars = [line for line in shown if "%|" in line]
    assert all(len(line) < 80 for line in bars)
    first = next(line for line in bars if "loss " in line)
    assert " 45%|" in first, "5 of 11 steps"
    assert any(line.startswith("evaluating") and "ETA" in line for line in bars)
    assert any(re.match(r"epoch 1/1: train loss .*; val loss", line) for line in shown)


@pytest.mark.slow
def test_streams_that_go_to_files(tmp_path: Path) -> None:
    """Progress, epochs and results in one; warnings in the other. On a terminal each takes only its own."""
    out = ["--out", str(tmp_path / "run"), "schedule.name=step"]
    warned = on_terminal(train, *QUIET_RUN, *out, stdout=tmp_path / "out")
    told = (tmp_path / "out").read_text()
    assert re.findall(r"^epoch \d/2(?=:)|^network|^final|^run folder:", told, re.MULTILINE) == [
        "network",
        "epoch 1/2",
        "epoch 2/2",
        "final",
        "run folder:",
    ]
    assert re.search(r"^epoch 2/2 step \d/3: loss .* ETA", told, re.MULTILINE), "numbers, though it is no terminal"
    assert "\r" not in told
    assert screens(warned)[0].startswith("warning: ")
    assert "schedule.milestones" in warned
    assert "epoch 1/2" not in warned
    shown = on_terminal(train, *QUIET_RUN, *out, "--resume", "train.epochs=3", stderr=tmp_path / "err")
    refused = (tmp_path / "err").read_text()
    assert refused.count("\n") == 1
    assert "error: " in refused
    assert "error: " not in shown


def test_an_evaluation_in_a_file_has_a_line_per_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    images = eval_batch(torch.zeros(50, 3, 1, 1), torch.zeros(50))
    batches = list(evaluation_shown([images] * 5, images=500, ranks=2, is_shown=True))
    assert batches == [images] * 5
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "evaluating: 200/500 images, 5.0 images/s, ETA 0:01:00",
        "evaluating: 400/500 images, 5.0 images/s, ETA 0:00:20",
    ]
