"""Packs: reading them, and refusing what is no whole pack."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.commands import prepare
from helpers.images import save_image
from helpers.packs import EXACT, RAW, RESIZED, packed
from resnext_train.data.decode.lazy_image import decode
from resnext_train.data.pack import pack_index
from resnext_train.data.pack.pack_format import PIXELS, SHARD_HEAD, SHARD_MAGIC, is_pack, shard_name
from resnext_train.data.pack.pack_index import PackIndex
from resnext_train.data.sources.image_folder import ImageFolder
from resnext_train.errors import InputError
from resnext_train.prepare.image_splits import FolderSplit
from resnext_train.prepare.pack_writer import write_index

DOCUMENT = Path(__file__).parents[4] / "docs" / "pack-format.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    for i in range(70):
        save_image(root / "images" / f"class {i % 7}" / f"ü {i}.JPEG", (30 + i % 5, 26), i)
    packed(FolderSplit(root / "images"), root / "pack")
    return root / "pack"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A pack of two shards."""
    return Path(shutil.copytree(made, tmp_path / "pack"))


def test_image_i_is_that_of_the_folder_in_every_tier(tmp_path: Path, image_root: Path) -> None:
    images = ImageFolder(image_root / "train")
    for tier in (EXACT, RESIZED, RAW):
        out = tmp_path / tier.name
        assert not is_pack(out)
        packed(FolderSplit(image_root / "train"), out, tier)
        assert is_pack(out)
        index = PackIndex(out)
        assert index.classes == images.classes
        assert index.label.tolist() == images.labels.tolist()
        assert [str(images.root / index.name(i)) for i in range(len(index))] == [images.name(i) for i in range(24)]
        if tier is EXACT:
            for i in range(24):
                whole = decode(Path(images.name(i)).read_bytes())
                assert torch.equal(decode(index.read(i)), whole)
                assert (index.height[i], index.width[i]) == whole.shape[1:]
                assert blake2b(index.read(i), digest_size=16).digest() == index.digest[i].tobytes()


def test_pixels_are_a_view_of_the_file(tmp_path: Path, image_root: Path) -> None:
    packed(FolderSplit(image_root / "val"), tmp_path / "raw", RAW)
    index = PackIndex(tmp_path / "raw")
    assert (index.kind == PIXELS).all()
    pixels = index.pixels(3)
    assert pixels.shape == (index.height[3], index.width[3], 3)
    assert min(pixels.shape[:2]) == 24
    assert pixels.tobytes() == bytes(index.read(3))
    assert not pixels.flags.owndata
    assert not pixels.flags.writeable


def test_pickled_forked_and_threaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_index, "_OPEN_SHARDS", 1)  # so that each read of another shard closes a file
    index = PackIndex(folder)
    expected = [bytes(index.read(i)) for i in range(70)]
    again = pickle.loads(pickle.dumps(index))
    assert [bytes(again.read(i)) for i in range(70)] == expected
    child = os.fork()
    if not child:
        os._exit([bytes(index.read(i)) for i in range(70)] != expected)
    with ThreadPoolExecutor(8) as threads:
        order = [i for _ in range(20) for i in (0, 69, 3, 66, 10, 65)]
        assert [bytes(data) for data in threads.map(index.read, order)] == [expected[i] for i in order]
    assert os.waitpid(child, 0)[1] == 0
    open_files = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert sum(str(folder) in name for name in open_files) <= 4  # of each instance the index and a shard


def test_few_files_may_be_open(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert pack_index._open_limit() == 50
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _newer(folder: Path) -> None:
    _patch(folder / "index.bin", 8, b"\2")


def _patch(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def _change_header(file: Path, change: dict[str, object]) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    header = json.loads(data[16 : 16 + length])
    for key, value in change.items():
        header[key] = {**header[key], **value} if isinstance(value, dict) and value else value
    file.write_bytes(data[:16] + json.dumps(header).encode().ljust(length)[:length] + data[16 + length :])


def _cut(path: Path, size: int) -> None:
    os.truncate(path, path.stat().st_size - size)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_newer, "index.bin .* 2 .*pip install --upgrade resnext-train"),
        (lambda f: _cut(f / "index.bin", 1), "index.bin .* bytes "),
        (lambda f: os.truncate(f / "index.bin", 7), "index.bin .*begin"),
        (lambda f: os.truncate(f / "index.bin", 100), "index.bin .*header"),
        (lambda f: _patch(f / "index.bin", 0, b"x"), "index.bin .*begin"),
        (lambda f: _patch(f / "index.bin", 17, b"x"), "index.bin .*header"),
        (lambda f: (f / "index.bin").unlink(), " no index.bin, "),
        (lambda f: _cut(f / shard_name(1), 1), "shard-00001.bin .* bytes "),
        (lambda f: (f / shard_name(0)).unlink(), "shard-00000.bin .*missing"),
        (lambda f: _patch(f / shard_name(1), 20, b"!!"), "shard-00001.bin .*index.bin;"),
        (lambda f: _patch(f / shard_name(1), 12, b"\7"), "shard-00001.bin .*index.bin;"),
    ],
)
def test_what_is_no_whole_pack_is_refused(folder: Path, damage: Callable[[Path], None], sentence: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=sentence):
        PackIndex(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"images": 71},
        {"images": -1},
        {"images": 70.0},
        {"id": "xyz"},
        {"tier": "best"},
        {"tier": "raw"},
        {"classes": 7},
        {"classes": [7]},
        {"titles": []},
        {"shards": ["a"]},
        {"columns": {}},
        {"columns": {"label": {"dtype": "<i8", "shape": [70], "offset": 1 << 60}}},
        {"columns": {"label": {"dtype": "|O", "shape": [70], "offset": 64}}},
        {"columns": {"label": {"dtype": "<i8", "shape": [70.0], "offset": 64}}},
        {"columns": {"names": {"dtype": "|u1", "shape": [9.0], "offset": 64}}},
        {"columns": {"names": {"dtype": "|u1", "shape": [True], "offset": 64}}},
        {"columns": {"names": {"dtype": "|u1", "shape": [], "offset": 64}}},
        {"columns": {"names": {"dtype": "|u1", "shape": "", "offset": 64}}},
    ],
)
def test_a_header_that_makes_no_sense_is_refused(folder: Path, change: dict[str, object]) -> None:
    _change_header(folder / "index.bin", change)
    with pytest.raises(InputError, match=r"index\.bin .*header"):
        PackIndex(folder)


@pytest.mark.parametrize("dtype", [",", "V99999999999999999999", "(2,", "i8,,", {"x": 1}, None])
def test_a_column_of_no_type_is_damage_that_check_finds(folder: Path, dtype: object) -> None:
    """One that this version does not know, and so does not read: NumPy crashes on some."""
    _change_header(folder / "index.bin", {"columns": {"more": {"dtype": dtype, "shape": [1], "offset": 64}}})
    assert prepare(["check", str(folder), "--workers", "1"]) == 1


def test_a_record_outside_its_shard_is_an_error_of_reading(folder: Path) -> None:
    offset = PackIndex(folder).header.columns["offset"]["offset"]
    _patch(folder / "index.bin", offset, (1 << 50).to_bytes(8, "little"))
    _patch(folder / "index.bin", PackIndex(folder).header.columns["shard"]["offset"] + 4, b"\xff")
    index = PackIndex(folder)
    for i in (0, 1):
        with pytest.raises(OSError, match=r"index\.bin .*shard$"):
            index.read(i)
        with pytest.raises(OSError, match=r"index\.bin .*shard$"):
            index.pixels(i)
    with pytest.raises(OSError, match=rf"index\.bin: .*{re.escape(index.name(2))} .*array"):
        index.pixels(2)


def test_a_record_larger_than_an_image_is_not_read(folder: Path) -> None:
    """A sparse shard of 4 GB takes no room on the disk, but would in memory."""
    shard = folder / "shard-00000.bin"
    _patch(folder / "index.bin", PackIndex(folder).header.columns["length"]["offset"], b"\xff" * 4)
    _change_header(folder / "index.bin", {"shards": [1 << 33, *PackIndex(folder).header.shards[1:]]})
    os.truncate(shard, 1 << 33)
    with pytest.raises(OSError, match="4,294,967,295 bytes"):
        PackIndex(folder).read(0)


def test_a_header_larger_than_a_header_is_not_read(folder: Path) -> None:
    _patch(folder / "index.bin", 12, b"\xff" * 4)
    with pytest.raises(InputError, match="too long"):
        PackIndex(folder)


def test_the_documents_example_reads_a_record(folder: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[0]
    names: dict[str, Callable[..., tuple[bytes, dict[str, int]]]] = {}
    exec(code, names)
    index = PackIndex(folder)
    for i in (0, 69):
        data, row = names["read"](folder, i)
        assert data == bytes(index.read(i))
        assert row["label"] == index.label[i]


@pytest.mark.slow
def test_as_many_images_as_imagenet_has_open_fast_and_in_little_memory(tmp_path: Path) -> None:
    images, shards, length = 1_281_167, 157, 110_000
    number = np.arange(images) // 8192
    names = b"".join(b"n%08d/n%08d_%07d.JPEG" % (i // 1281, i // 1281, i) for i in range(images))
    columns = {
        "shard": number,
        "offset": SHARD_HEAD.size + (np.arange(images) % 8192) * length,
        "length": np.full(images, length),
        "height": np.full(images, 375),
        "width": np.full(images, 500),
        "label": np.arange(images) // 1281,
        "kind": np.zeros(images),
        "digest": np.zeros((images, 16)),
        "name_ends": np.arange(1, images + 1) * (len(names) // images),
        "names": np.frombuffer(names, np.uint8),
    }
    sizes = [SHARD_HEAD.size + 8192 * length] * shards
    for i, size in enumerate(sizes):
        with (tmp_path / shard_name(i)).open("wb") as file:  # sparse: they take no room
            file.write(SHARD_HEAD.pack(SHARD_MAGIC, 1, i, bytes(16)))
            file.truncate(size)
    about = {
        "id": "00" * 16,
        "tier": "exact",
        "settings": {"jpegtran": True},
        "titles": {},
        "source": "",
        "shards": sizes,
    }
    write_index(tmp_path, {**about, "classes": [f"n{i:08d}" for i in range(1001)]}, columns)
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from resnext_train.data.pack.pack_index import PackIndex\n"
        "def rss():\n"
        "    pages = [int(n) for n in Path('/proc/self/statm').read_text().split()]\n"
        "    return (pages[1] - pages[2]) * 4096, pages[1] * 4096  # own memory, and with mapped files\n"
        "before, start = rss(), time.perf_counter()\n"
        f"index = PackIndex(Path({str(tmp_path)!r}))\n"
        "seconds, opened = time.perf_counter() - start, rss()\n"
        "for i in range(0, len(index), 9973): index.read(i), index.name(i)\n"
        "print(seconds, opened[1] - before[1], rss()[0] - before[0], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, at_opening, own, torch_imported = done.stdout.split()
    assert float(seconds) < 1
    assert int(at_opening) < 50e6
    assert int(own) < 20e6  # the pages of the index that reading touches are shared by all processes
    assert torch_imported == "False"
