"""What resnext info prints."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from helpers.commands import Refuses, info
from resnext_train.config import catalogue, find_recipe, read_entry, shipped_recipes
from resnext_train.models import complexity


def test_info_prints_the_papers_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert info(["resnext50_32x4d"]) == 0
    out = capsys.readouterr().out
    assert "25,028,904" in out
    assert "4.23 G" in out
    # ResNeXt paper, Table 1, right column
    rows = ["128; 3×3, 128, C=32; 1×1, 256] × 3", "256; 3×3, 256, C=32; 1×1, 512] × 4"]
    rows += ["512; 3×3, 512, C=32; 1×1, 1024] × 6", "1024; 3×3, 1024, C=32; 1×1, 2048] × 3"]
    for stage, block in enumerate(rows):
        assert f"[1×1, {block}" in next(line for line in out.splitlines() if line.startswith(f"layer{stage + 1}"))


def test_info_of_a_recipe_and_of_basic_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    assert info(["--config", "resnet18.yaml", "--size", "64"]) == 0
    out = capsys.readouterr().out
    assert "[3×3, 512; 3×3, 512] × 2" in out
    assert "512 × 2 × 2" in out
    assert info(["resnet18", "model.blur_pool=true"]) == 0
    out = capsys.readouterr().out
    assert "1,818,024,704 (1.82 G) at 224 × 224, blurs included" in out
    assert out.count("blur before stride 2") == 3


def test_table_2_of_the_resnext_paper(capsys: pytest.CaptureFixture[str]) -> None:
    """C → d and the width of the group convolution: 1 → 64 (64), 2 → 40 (80), 4 → 24 (96), 8 → 14 (112), 32 → 4."""
    assert info(["--match", "resnet50", "--cardinality", "1", "2", "4", "8", "32"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ["1", "64", "64"],
        ["2", "40", "80"],
        ["4", "24", "96"],
        ["8", "14", "112"],
        ["32", "4", "128"],
    ]
    weights = [int(row[3].replace(",", "")) for row in rows]
    assert weights == [c * (256 * d + 9 * d * d + d * 256) for c, d in ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4))]
    assert rows[0][4] == "25,557,032"
    assert rows[4][4] == "25,028,904"
    assert rows[4][-1] == "resnext50_32x4d"


def test_a_match_can_start_from_any_bottleneck_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert info(["--match", "resnext101_64x4d", "--cardinality", "2", "64"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == ["64", "4"], "the paper's Table 4 has both"


@pytest.mark.parametrize("arch", ["preact_resnet50", "plain50", "cifar_resnet101_1x64d", "wide_resnet50_2"])
def test_a_match_says_the_name_of_the_network_it_counted(arch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert info(["--match", arch, "--cardinality", "4"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    parameters, name = re.split(r"\s+", line.strip())[4], line.partition(" G   ")[2].split()
    assert info(name) == 0
    assert f"parameters     {parameters}\n" in capsys.readouterr().out


def test_the_rows_add_up_to_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    """BN between the stages counts with the row before it: preact_resnet200 has one behind the last stage."""
    assert info(["preact_resnet200"]) == 0
    rows = re.findall(r"^\S+ +[\d× ]+? {2,}([\d,]+) +[\d,]+   ", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == 8
    assert sum(int(n.replace(",", "")) for n in rows) == 64_666_152


def test_a_changed_network_has_no_published_error(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--config", "resnext50_32x4d", "model.arch=resnet18"], ["resnet50", "--size", "320"]):
        assert info(arguments) == 0
        assert "top-1" not in capsys.readouterr().out


def test_the_list_has_size_and_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["resnext101_64x4d.yaml", "cifar/resnext29_8x64d.yaml", "imagenet5k/resnext50_32x4d.yaml"]
    names += ["torchvision/resnext101_64x4d.yaml"]
    few = [read_entry(name) for name in names]
    monkeypatch.setattr("resnext_train.cli.info.catalogue", lambda: few)
    assert info([]) == 0
    header, *rest = capsys.readouterr().out.splitlines()
    assert header.endswith("published error or accuracy, or what to expect")
    lines = {line.split()[0]: line for line in rest}
    assert re.search(r"83,455,272\s+15.46 G\s+top-1 error 20.4 %, top-5 error 5.3 %$", lines["resnext101_64x4d.yaml"])
    assert re.search(r"34,426,698\s+5.39 G\s+top-1 error 3.65 %$", lines["cifar/resnext29_8x64d.yaml"])
    accuracies = "top-1 accuracy 83.246 %, top-5 accuracy 96.454 %"
    assert re.search(rf"83,455,272\s+15.46 G\s+{accuracies}$", lines["torchvision/resnext101_64x4d.yaml"])
    assert "5K-way top-1 error 42.3 %" in lines["imagenet5k/resnext50_32x4d.yaml"]


def test_the_list_is_of_all_shipped_recipes() -> None:
    files = {p for p in shipped_recipes().rglob("*.yaml") if not p.name.startswith("_")}
    assert {find_recipe(entry.name) for entry in catalogue()} == files


def test_the_list_does_without_timm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    few = [read_entry(name) for name in ("inception_v4.yaml", "smoke.yaml")]
    monkeypatch.setattr("resnext_train.cli.info.catalogue", lambda: few)
    monkeypatch.setitem(sys.modules, "timm", None)
    complexity._measure.cache_clear()  # another test may have measured it with timm
    assert info([]) == 0
    out = capsys.readouterr().out
    assert re.search(r"inception_v4.yaml +needs timm +top-1 error 20.0 %", out)
    assert "smoke.yaml" in out, "the list goes on"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["resnext50_32x4d", "model.form=a"], "[32 paths of (1×1, 4; 3×3, 4; 1×1, 256), summed] × 3"),
        (["resnext50_32x4d", "model.form=b"], "[32 paths of (1×1, 4; 3×3, 4), concatenated; 1×1, 256] × 3"),
        (["plain34"], "[3×3, 64; 3×3, 64] × 3, no shortcuts"),
        (["resnet110"], "[3×3, 16; 3×3, 16] × 18"),
        (["resnext29_8x64d"], "34,426,698"),
        (["resnext29_8x64d", "--classes", "100"], "34,518,948"),  # 1024 · 90 + 90 more
        (["torchvision/inception_v3"], "(5.71 G) at 299 × 299"),
        (["torchvision/inception_v3"], "3,326,696 in auxiliary classifiers"),
        (["--config", "imagenet5k/resnet50"], "resnet50, 5000 classes"),
        (["imagenet5k/resnet50.yaml"], "resnet50, 5000 classes"),
        (["resnet34", "model.shortcut=C"], "resnet34, shortcut C, 1000 classes"),
        (["resnext50_32x4d"], "resnext50_32x4d.yaml: ResNeXt paper, Table 3. top-1 error 22.2 %"),
        (["resnext50_32x4d"], "rsb/resnext50_32x4d_a1.yaml: "),  # whose first weights are others
        (["resnet50_a3"], "procedure A3 (Table 2). top-1 accuracy 78.1 %"),
    ],
)
def test_one_network(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert info(arguments) == 0
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["resnext"], ("model.arch", "'resnext'")),
        (["resnet18", "--size", "8"], ("resnet18", " 32; ", "8 × 8")),
        (["resnet18", "--classes", "0"], ("--classes 0: ",)),
        (["resnet18", "resnet34"], (" one ", "--config")),
        (["resnet18", "--config", "smoke"], (" one ", "--config")),
        (["resnet18", "train.epochs=5"], ("'train.epochs=5'", "model.key=value")),
        (["resnet18", "model.shortcut=D"], ("model.shortcut: ", "'A', 'B' or 'C'")),
        (["--match", "resnet50"], ("--match resnet50 --cardinality 16",)),
        (["--match", "resnet18", "--cardinality", "2"], ("--match: resnet18 ", "Figure 4")),
        (["--match", "torchvision/vgg11", "--cardinality", "2"], ("--match: torchvision/vgg11 ",)),
        (["--match", "resnet50", "--cardinality", "0"], ("--cardinality 0: ",)),
        (["timm/no_such_network"], ("timm ", "'no_such_network'")),
    ],
)
def test_refusals(arguments: list[str], told: tuple[str, ...], refuses: Refuses) -> None:
    if arguments[0].startswith("timm/"):
        pytest.importorskip("timm")
    error = refuses(info, *arguments)
    assert all(fact in error for fact in told), error


def test_a_recipe_of_ones_own_needs_no_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("model: {arch: resnet18, num_classes: 3}\n")
    assert info(["--config", str(tmp_path / "mine.yaml")]) == 0
    assert "resnet18, 3 classes" in capsys.readouterr().out


def test_a_recipe_is_compared_with_what_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert info(["--config", "resnext50_32x4d"]) == 0
    table, listed = capsys.readouterr().out.split("\n\ndeviations from the ResNeXt paper's code (7):\n")
    assert "25,028,904" in table
    assert re.search(r"^  resize antialiased +here: yes; there: no \(torch/image", listed, re.MULTILINE)
    assert info(["resnext50_32x4d"]) == 0
    assert "deviations from" not in capsys.readouterr().out, "it is a network"
    (tmp_path / "mine.yaml").write_text("base: imagenet/_paper.yaml\nmodel: {arch: resnet50}\ntrain: {epochs: 30}\n")
    assert info(["--config", str(tmp_path / "mine.yaml")]) == 0
    assert re.search(r"^  train\.epochs +here: 30; there: 100 ", capsys.readouterr().out, re.MULTILINE)
    assert info(["--config", "smoke"]) == 0
    assert "names no paper or code to be compared with (train.reference)" in capsys.readouterr().out
