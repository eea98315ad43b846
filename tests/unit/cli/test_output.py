"""What the commands print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from helpers.commands import train
from helpers.ranks import exit_codes, start_command
from resnext_train.data.decode.jpeg_decoder import decoder_names


def test_dry_run_says_what_would_be_done_and_does_nothing(
    image_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--config", "resnext50_32x4d.yaml", f"data.root={image_root}", "train.batch_size=16"]
    assert train([*arguments, "train.micro_batch=2", "train.epochs=70", "--dry-run"]) == 0
    out = capsys.readouterr().out
    # 3 classes: 2048 · 3 + 3 weights in place of 2048 · 1000 + 1000, of 25,028,904 (ResNeXt-50 32×4d)
    assert f"resnext50_32x4d, {25_028_904 - 2_049_000 + 6_147:,} parameters, 4.23 G multiply-adds at 224" in out
    assert re.search(r"\b3 classes, 24 training, 9 validation images; files$", out, re.MULTILINE)
    assert decoder_names()[0] in out
    assert re.search(r"\b16 images a step.* 8 micro-batches of 2$", out, re.MULTILINE)
    assert re.search(r"\b1 step an epoch, 70 steps.*; the last 8 images", out)
    assert "0.1 at epoch 1, 0.01 at epoch 31, 0.001 at epoch 61" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_choices_of_computing_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["--config", "smoke.yaml", "--dry-run", "train.layout=contiguous", "train.deterministic=true"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("computing "))
    assert line.split(maxsplit=1)[1] == "contiguous layout, not compiled, deterministic algorithms only"
    options = ["--config", "smoke.yaml", "--dry-run", "train.comm=bf16", "train.bucket_mb=50", "train.compile=true"]
    assert exit_codes(start_command(train, 2, *options, output=tmp_path / "out")) == [0, 0]
    told = (tmp_path / "out").read_text()
    assert re.search(r"^computing +channels_last layout, compiled \(default\)$", told, re.MULTILINE)
    assert re.search(r"^gradients .*\b50 MiB in bf16, a deviation from the papers\b", told, re.MULTILINE)


def test_a_machine_with_idle_gpus_is_told_how_to_use_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert train(["--config", "smoke.yaml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert decoder_names()[0] not in out, "its images are no JPEGs"
    assert "1 of 8 GPUs" in out
    assert "--procs 4" in out, "smoke.yaml has 4 micro-batches, so 8 ranks are refused"


def test_the_learning_rate_table_keeps_every_drop_and_thins_ramps(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "smoke.yaml", "--dry-run", "train.epochs=100", "optimizer.lr=0.1"]
    steps = ["schedule.name=step", "schedule.milestones=[30, 60, 90]", "schedule.warmup=20"]
    assert train([*arguments, *steps]) == 0
    out = capsys.readouterr().out
    assert not re.search(r"^loss ", out, re.MULTILINE), "it is the papers'"
    for drop in ("0.1 at epoch 21", "0.01 at epoch 31", "0.001 at epoch 61", "0.0001 at epoch 91"):
        assert drop in out
    assert out.count(" at epoch ") < 20
    later = ["auto_augment.name=timm_randaugment", "erase.probability=0.1", "mix.mixup=0.2", "mix.cutmix=1"]
    later += ["augment.lighting=0", "train.loss=bce", "train.label_smoothing=0.1", "optimizer.clip_norm=1"]
    assert train([*arguments, *later, "schedule.name=exponential", "schedule.warmup=0", "schedule.every=2"]) == 0
    out = capsys.readouterr().out
    assert (
        "\naugmentation  crops of 35-100 % of the area, flip 0.5, brightness 0.4, contrast 0.4, saturation 0.4, "
        "2 × timm_randaugment 9 ± 0.5, erasing 0.1 by constant, mixup 0.2 or CutMix 1 (50 % CutMix)\n"
    ) in out
    assert "\nloss          BCE, label smoothing 0.1\n" in out
    assert re.search(r"\noptimizer     SGD, .*momentum 0\.9, weight decay 0\.0001, gradients clipped at 1\n", out), out
    assert "0.1 at epoch 1, " in out
    assert out.count(" at epoch ") < 20
