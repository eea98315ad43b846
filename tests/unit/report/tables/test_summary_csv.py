"""summary.csv, as other programs read it."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import statistics
from pathlib import Path

from helpers.run_folders import write_run
from resnext_train.report.report_content import build_report
from resnext_train.report.tables.summary_csv import summary_csv

PAGE = Path(__file__).parents[4] / "docs/report.md"


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    report = build_report([folder])
    return {row["run"]: row for row in csv.DictReader(io.StringIO(summary_csv(report.runs, report.groups)))}


def test_numbers_are_whole(tmp_path: Path) -> None:
    finals = (90.1, 91.3, 89.7)
    for seed, final in enumerate(finals):
        write_run(tmp_path / f"s{seed}", (50.0, 95.0, final), seed=seed, ema=(10.0, 20.0, 30.0 + seed))
    os.utime(tmp_path / "s1/log.jsonl", (1_700_000_000, 1_700_000_000))
    row = rows_of(tmp_path)["s1"]
    known = {
        **{"status": "done", "seed": "1", "logged_at": "2023-11-14T22:13:20+00:00", "folder": str(tmp_path / "s1")},
        **{"parameters": "1500000", "multiply_adds": "60000000", "image_size": "48", "classes": "10"},
        **{"epochs_finished": "3", "epochs_planned": "3", "seconds": "30.0", "images_per_s": "2400.0"},
        **{
            "device": "NVIDIA H100 80GB HBM3",
            "world_size": "8",
            "precision": "bf16",
            "cores": "95.5",
            "torch_version": "2.14.1",
        },
        **{"best_epoch": "2", "best_weights": "model", "best_count": "1000", "best_top1_correct": "950"},
        **{"final_epoch": "3", "final_weights": "ema", "final_top1_correct": "310", "final_top5_correct": "360"},
        **{"final_model_top1_correct": "913", "final_model_weights": "model", "published_error": "", "recipe": ""},
        "seed_group_n": "3",
    }
    assert known.items() <= row.items()
    assert math.isclose(float(row["final_model_accuracy"]), 91.3)
    assert float(row["best_low"]) < 95 < float(row["best_high"])
    assert math.isclose(float(row["seed_group_final_mean"]), 31)
    assert math.isclose(float(row["seed_group_final_deviation"]), statistics.stdev([30, 31, 32]))


def test_what_is_not_known_is_empty_and_all_lines_have_all_columns(tmp_path: Path) -> None:
    write_run(tmp_path / "whole", wrong=range(3))
    write_run(tmp_path / "old", (), epochs=2, status="failed", machine=None)
    (tmp_path / "old/log.jsonl").unlink()
    rows = rows_of(tmp_path)
    assert rows["old"].keys() == rows["whole"].keys()
    assert not any(rows["old"][name] for name in ("logged_at", "parameters", "best_count", "host", "seconds"))
    assert rows["old"]["status"] == "failed"


def test_names_of_any_kind_are_one_field(tmp_path: Path) -> None:
    names = ['a,"b"\nc', os.fsdecode(b"d\xff"), "é"]
    for name in names:
        write_run(tmp_path / name, (50.0,))
    text = summary_csv(*(lambda report: (report.runs, report.groups))(build_report([tmp_path])))
    assert "\udcff" not in text
    assert sorted(row["run"] for row in csv.DictReader(io.StringIO(text))) == sorted([names[0], r"d\udcff", "é"])


def test_the_page_describes_all_columns(tmp_path: Path) -> None:
    row = rows_of(write_run(tmp_path / "a"))["a"]
    section = PAGE.read_text().split("## summary.csv")[1].split("\n## ")[0]
    listed = re.findall(r"`([a-z0-9_]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)))
    places = {"best_", "final_", "final_model_"}
    counts = {"epoch", "weights", "count", "top1_correct", "top5_correct", "accuracy", "low", "high"}
    expected = {name for name in row if not any(name == f"{p}{c}" for p in places for c in counts)}
    assert set(listed) == expected | places | counts
