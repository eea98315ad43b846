"""Whole runs in this process: when they evaluate, save and end."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path

import pytest
import torch
import torchvision

from helpers.commands import Refuses, evaluate, train
from helpers.runs import RUN, events
from resnext_train.config import ModelSection
from resnext_train.models.build_model import build_on_meta
from resnext_train.models.resnet import ResNet


def test_a_run_saves_after_a_time(tmp_path: Path) -> None:
    """Within an epoch, though neither steps nor epochs ask for it."""
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "checkpoint.every_minutes=1e-6", "checkpoint.every_epochs=9"]) == 0
    assert {1, 2, 4} <= {event["step"] for event in events(out, "checkpoint")}


def test_a_run_that_diverges_still_ends_in_order(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "optimizer.lr=1e30"]) == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    summary = json.loads((out / "summary.json").read_text(), parse_constant=refuse)
    assert summary["last"]["loss"] is None
    assert summary["last"]["top1_correct"] == 0, "a network that diverged is never right"
    assert (summary["best"]["epoch"], summary["last"]["epoch"]) == (1, 2), "the best is the first of those as good"
    for line in (out / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_max_steps_ends_in_mid_epoch_with_an_evaluation(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.max_steps=4", "checkpoint.keep=1"]) == 0
    (start,) = events(out, "start")
    assert f"torchvision {torchvision.__version__}" in start["jpeg"]["decoders"]
    assert start["jpeg"]["passed_over"].keys() <= {"simplejpeg"}
    assert [(e["epoch"], e["step"], e["val_count"]) for e in events(out, "epoch")] == [(1, 3, 37), (2, 4, 37)]
    names = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert names == ["best.pt", "epoch_0002.pt", "last.pt", "previous.pt"]


@pytest.mark.slow
def test_evaluation_every_second_epoch(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "train.epochs=3", "eval.every_epochs=2"]) == 0
    assert [e["val_count"] for e in events(out, "epoch")] == [None, 37, 37]


@pytest.mark.slow
def test_compiled_training_is_close_to_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The whole of torch.compile but its last stage, the C++ compiler, which takes a minute.
    compile_whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, mode, **k: compile_whole(*a, backend="aot_eager", **k))
    out = tmp_path / "compiled"
    one_step = ["train.max_steps=1", "log.every=1"]
    assert train([*RUN, "--out", str(tmp_path / "eager"), *one_step]) == 0
    assert train([*RUN, "--out", str(out), *one_step, "train.compile=true"]) == 0
    eager, compiled = (events(p, "step")[0]["loss"] for p in (tmp_path / "eager", out))
    assert compiled == pytest.approx(eager, rel=1e-4)
    assert "conv1.weight" in torch.load(out / "checkpoints" / "last.pt", weights_only=True)["model"]
    result = tmp_path / "result.json"
    assert evaluate(["--ckpt", str(out), "--json", str(result)]) == 0
    alone, within = json.loads(result.read_text()), events(out, "epoch")[-1]
    assert (alone["loss"], alone["top1_correct"]) == (within["val_loss"], within["val_top1_correct"]), "to the bit"
    assert events(out, "start")[0]["compile"] == "default"


def test_a_profile_changes_no_bit(tmp_path: Path, whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Five steps of warm-up, and one that is profiled, are the whole run."""
    torch.set_num_threads(1)
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "--profile", "1"]) == 0
    assert events(out, "end")[0]["weights_sha256"] == events(whole, "end")[0]["weights_sha256"]
    with gzip.open(out / "trace.json.gz", "rt") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    network = build_on_meta(ModelSection(arch="resnext14_2x4d"), 4)
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in network.modules())
    assert names.count("aten::convolution_backward") == 4 * convolutions, "of one step's four micro-batches"
    told = capfd.readouterr()
    rows = re.findall(r"^(aten::\S+|[A-Za-z]\S*)\s+([\d.]+)\s+(\d+)$", told.out, re.MULTILINE)
    assert 0 < len(rows) <= 12
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    assert "profiler" not in told.err.lower()


def test_a_run_too_short_for_its_profile_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train([*RUN, "--out", str(out), "--profile", "2", "train.max_steps=4"]) == 0
    assert "ended after 4 of 7 steps" in capsys.readouterr().err
    assert not (out / "trace.json.gz").exists()


def test_an_operation_without_a_deterministic_form_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    def forward(self: ResNet, x: torch.Tensor) -> torch.Tensor:
        return forward_of_resnet(self, x).clone().put_(torch.tensor([0]), torch.zeros(1))

    forward_of_resnet = ResNet.forward
    run = [*RUN, "--out", str(tmp_path / "run"), "train.max_steps=1"]
    with monkeypatch.context() as patched:
        patched.setattr(ResNet, "forward", forward)
        sentence = refuses(train, *run, "train.deterministic=true")
    assert "train.deterministic=true" in sentence
    assert " put_" in sentence
    assert not torch.are_deterministic_algorithms_enabled(), "the setting ends with the run"
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_a_line_of_the_log_has_speed_and_memory(whole: Path) -> None:
    """RUN's network has 1,151,488 multiply-adds by the shapes of its layers; training takes 6 operations for each."""
    step = events(whole, "step")[-1]
    assert step["flops_per_s"] == pytest.approx(6 * 1_151_488 * step["images_per_s"])
    assert step["flops_per_s_each"] == step["flops_per_s"]
    assert 100 < step["memory_mb"] < 50_000, "torch alone needs more than 100 MB"
    assert "loss_scale" not in step
    start = events(whole, "start")[0]
    assert (start["layout"], start["compile"], start["deterministic"]) == ("channels_last", "off", False)
    assert "tf32" not in start, "no GPU"
