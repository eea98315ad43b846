"""Run folders as training and evaluation leave them, without training."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnext_train.config import Recipe, load_recipe
from resnext_train.evaluation.calibration import Calibration
from resnext_train.evaluation.class_table import ClassTable
from resnext_train.evaluation.image_results import ImageResults
from resnext_train.evaluation.prediction_file import PredictionFile
from resnext_train.evaluation.result_report import report_values
from resnext_train.run_dir.jsonl_sink import to_json

MACHINE: dict[str, Any] = {
    "host": "node1",
    "hardware": "NVIDIA H100 80GB HBM3",
    "cores": 95.5,
    "threads": 8,
    "versions": {"resnext_train": "0.1.0", "python": "3.11.7", "torch": "2.14.1", "torchvision": "0.29.1"},
    "command": ["resnext", "train", "--config", "smoke"],
    "git_commit": "c94ad3412560f0b72eba6a719e7bf9eea6c76b49",
    "world_size": 8,
    "precision": "bf16",
    "network": {"title": "ResNeXt-14 (8×4d)", "parameters": 1_500_000, "multiply_adds": 60_000_000, "size": 48},
    "classes": 10,
    "train_images": 1280,
    "val_images": 1000,
}
"""What start event and summary.json say of machine and network."""


def write_run(
    folder: Path,
    accuracies: Sequence[float] = (50.0, 75.0, 90.0),
    *,
    recipe: str = "smoke",
    overrides: Sequence[str] = (),
    seed: int = 0,
    status: str = "done",
    epochs: int | None = None,
    images: int = 1000,
    ema: Sequence[float] | None = None,
    steps_per_epoch: int = 20,
    log_every: int = 5,
    machine: Mapping[str, Any] | None = MACHINE,
    wrong: Collection[int] | None = None,
) -> Path:
    """Write the folder of a run with these accuracies in per cent, one for each finished epoch; return the folder.

    `epochs` are planned, as many as finished by default; `ema` has the accuracies of the average of the weights.
    `status` is that of state.json: running is a killed run here. `machine` is in the summary, None as in older runs.
    With `wrong`, the numbers of the images that were not recognised, there is an evaluation/ as of `resnext eval`.
    """
    seeded = [*overrides, f"train.seed={seed}", f"train.epochs={epochs or len(accuracies) or 1}"]
    loaded = load_recipe(recipe, seeded)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(loaded.to_yaml())
    events = [_start(loaded, steps_per_epoch)]
    evaluations = []
    for epoch, accuracy in enumerate(accuracies, 1):
        events += _steps(epoch, steps_per_epoch, log_every)
        counts = _counts(accuracy, images)
        if ema is not None:
            counts["ema"] = _counts(ema[epoch - 1], images)
        evaluations.append({"epoch": epoch, **counts})
        events.append(_epoch(epoch, epoch * steps_per_epoch, accuracy, counts))
    step = len(accuracies) * steps_per_epoch
    summary = {**_summary(evaluations, step, 10.0 * len(accuracies)), **(machine or {})}
    if status == "done":
        events.append({"event": "end", "step": step, "weights_sha256": "0" * 64, **summary})
    (folder / "log.jsonl").write_text("".join(to_json(event) + "\n" for event in events))
    (folder / "state.json").write_text(json.dumps({"status": status, "step": step}) + "\n")
    if evaluations:
        (folder / "summary.json").write_text(to_json(summary, indent=2) + "\n")
    if wrong is not None:
        write_evaluation(folder / "evaluation", images, wrong)
    return folder


def _start(recipe: Recipe, steps_per_epoch: int) -> dict[str, Any]:
    keys = ("versions", "host", "git_commit", "command", "world_size", "precision", "threads")
    machine = {key: MACHINE[key] for key in keys}
    sizes = {"batch_size": recipe.train.batch_size, "steps_per_epoch": steps_per_epoch}
    total = round(recipe.train.epochs * steps_per_epoch)
    return {"event": "start", "step": 0, **machine, "device": "cuda:0", **sizes, "total_steps": total}


def _steps(epoch: int, steps_per_epoch: int, log_every: int) -> list[dict[str, Any]]:
    first = (epoch - 1) * steps_per_epoch
    numbers = range(first + log_every, first + steps_per_epoch + 1, log_every)
    rates = {"images_per_s": 2500.0, "data_wait": 0.01, "memory_mb": 900.0, "flops_per_s": 3e12}
    return [
        {"event": "step", "step": n, "epoch": epoch, "loss": 40 / (20 + n), "lr": 0.1 / epoch, "top1": 50.0, **rates}
        for n in numbers
    ]


def _counts(accuracy: float, images: int) -> dict[str, Any]:
    correct = round(accuracy * images / 100)
    top5 = min(images, correct + images // 20)
    shares = {"top1": 100 * correct / images, "top5": 100 * top5 / images}
    return {
        **{"count": images, "top1_correct": correct, "top5_correct": top5},
        **shares,
        **{"loss": (100 - accuracy) / 25, "unreadable": 0},
    }


def _epoch(epoch: int, step: int, accuracy: float, counts: dict[str, Any]) -> dict[str, Any]:
    training = {"train_loss": 2 / (1 + epoch), "train_top1": accuracy - 2, "train_unreadable": 0}
    named = ("count", "top1_correct", "top5_correct", "loss", "unreadable")
    values = {**{f"val_{key}": counts[key] for key in named}, **({"ema": counts["ema"]} if "ema" in counts else {})}
    return {"event": "epoch", "step": step, "epoch": epoch, **training, **values, "seconds": 10.0}


def _summary(evaluations: list[dict[str, Any]], steps: int, seconds: float) -> dict[str, Any]:
    best = None
    for evaluation in evaluations:
        kinds = {"model": {k: v for k, v in evaluation.items() if k != "ema"}}
        if "ema" in evaluation:
            kinds["ema"] = {"epoch": evaluation["epoch"], **evaluation["ema"]}
        kind = max(kinds, key=lambda k: kinds[k]["top1_correct"])  # the network's own of equal ones
        if best is None or kinds[kind]["top1_correct"] > best["top1_correct"]:
            best = {**kinds[kind], **({"weights": kind} if len(kinds) > 1 else {})}
    return {
        "best": best,
        "last": evaluations[-1] if evaluations else None,
        "epochs": len(evaluations),
        "steps": steps,
        "seconds": seconds,
        "images_per_s": 2400.0,
        "unreadable": 0,
        "skipped_steps": 0,
    }


def write_evaluation(
    folder: Path, images: int, wrong: Collection[int], classes: int = 10, order: Sequence[int] | None = None
) -> None:
    """Write what `resnext eval --out` does, where the images `wrong` were taken for the class after their own.

    Image n is of class n modulo `classes`; the lines of predictions.csv are in `order`.
    """
    folder.mkdir()
    names = [f"class_{number:04d}" for number in range(classes)]
    numbers = np.arange(images) if order is None else np.asarray(order)
    labels, missed = numbers % classes, np.isin(numbers, list(wrong))
    best = (labels[:, None] + np.where(missed, 1, 0)[:, None] + np.arange(min(5, classes))) % classes
    # Missed by one place, the label comes last: out of the best five where there are more classes.
    ranks = np.where(missed, classes - 1, 0)
    scores = np.linspace(0.6, 0.02, best.shape[1]) * np.ones((images, 1))
    results = ImageResults(numbers, labels, ranks, np.where(missed, 3.0, 0.5), best, scores)
    table, calibration = ClassTable(names), Calibration()
    table.add(results)
    calibration.add(results)
    with PredictionFile(str(folder / "predictions.csv"), names, lambda n: f"val/{names[n % classes]}/{n}.png") as file:
        file.add(results)
    table.write_classes(folder / "classes.csv", "--out")
    table.write_confusion(folder / "confusion.csv", "--out")
    Image.new("RGB", (64, 32), (200, 60, 60)).save(folder / "mistakes.png")
    protocol = "short side 56 bicubic antialiased, centre crop 48, 1 view"
    result = {**report_values(table, calibration), "protocol": protocol, "weights": "model"}
    (folder / "result.json").write_text(to_json(result, indent=2) + "\n")
