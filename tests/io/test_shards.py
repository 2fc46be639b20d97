"""Shards: what is written, how it is divided, and that killed work goes on to the same bytes."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from surgeon.errors import CheckpointError
from surgeon.io.checksums import write_checksums
from surgeon.io.header import read_header
from surgeon.io.shards import Piece, write_shards
from surgeon.io.slices import Files, Selection
from surgeon.io.weights import INDEX, find_weights

WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from surgeon.io.publish import publishing
from surgeon.io.shards import Piece, write_shards
from surgeon.io.slices import Selection
from surgeon.io.weights import find_weights
source, out = map(Path, sys.argv[1:])
kept = np.arange(0, 40, 2)
pieces = [Piece(n, t.dtype, (20, 50), Selection(t, {0: kept})) for n, t in find_weights(source).items()]
with publishing(out, source, key="k") as folder:
    print("begun", flush=True)
    write_shards(folder, pieces, 9000, lambda done, total: time.sleep(0.002), checksums=True)
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrays = {f"layers.{n}.weight": rng.random((40, 50), dtype=np.float32) for n in range(12)}
    save_file(arrays, folder / "model.safetensors")
    return folder, arrays


def pieces_of(folder):
    return [Piece(n, t.dtype, t.shape, Selection(t)) for n, t in find_weights(folder).items()]


def test_one_file_or_several_with_an_index(source, tmp_path):
    folder, arrays = source
    one, many = tmp_path / "one", tmp_path / "many"
    for out, size in ((one, 10**6), (many, 20_000)):
        out.mkdir()
        heard = []
        write_shards(
            out, pieces_of(folder), size, lambda done, total, heard=heard: heard.append((done, total))
        )
        assert heard[-1] == (96_000, 96_000)
        assert heard == sorted(heard)
    assert [file.name for file in one.iterdir()] == ["model.safetensors"]
    assert all(
        np.array_equal(value, arrays[name]) for name, value in load_file(one / "model.safetensors").items()
    )
    shards = sorted(many.glob("*.safetensors"))
    assert [file.name for file in shards] == [f"model-{n:05d}-of-00006.safetensors" for n in range(1, 7)]
    index = json.loads((many / INDEX).read_text())
    assert index["metadata"] == {"total_parameters": 24_000, "total_size": 96_000}
    assert {n: t.file.name for n, t in find_weights(many).items()} == index["weight_map"]
    assert [list(read_header(file)) for file in shards] == [
        list(find_weights(folder))[at : at + 2] for at in range(0, 12, 2)
    ]


def test_wide_elements_come_first_and_values_are_computed_late(tmp_path):
    called = []

    def compute():
        called.append(1)
        return np.arange(4, dtype=np.float64).tobytes()

    pieces = [Piece("b", "U8", (3,), lambda: b"abc"), Piece("a", "F64", (4,), compute)]
    assert called == []
    write_shards(tmp_path, pieces, 10**6)
    found = load_file(tmp_path / "model.safetensors")
    assert found["a"].tolist() == [0, 1, 2, 3]
    assert bytes(found["b"]) == b"abc"
    header = read_header(tmp_path / "model.safetensors")
    assert header["a"].start < header["b"].start
    assert header["a"].start % 8 == 0


def test_checksums_are_those_of_the_files(source, tmp_path):
    folder, _ = source
    out = tmp_path / "out"
    out.mkdir()
    sums = write_shards(out, pieces_of(folder), 40_000, checksums=True)
    assert len(sums) == 3
    write_checksums(out, sums)
    for line in (out / "SHA256SUMS").read_text().splitlines():
        found, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == found


def test_a_source_that_changes_in_the_middle(source, tmp_path):
    folder, _ = source
    out = tmp_path / "out"
    out.mkdir()

    def spoil(done, total):
        with (folder / "model.safetensors").open("ab") as file:
            file.write(b"more")

    with pytest.raises(CheckpointError, match="was changed while it was being read"):
        write_shards(out, pieces_of(folder), 20_000, spoil)


def test_a_source_that_vanishes_in_the_middle(source, tmp_path):
    folder, _ = source
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CheckpointError, match="vanished while it was needed"):
        write_shards(
            out,
            pieces_of(folder),
            20_000,
            lambda d, t: (folder / "model.safetensors").unlink(missing_ok=True),
        )


@pytest.mark.parametrize("failing", range(12))
def test_where_one_shard_fails_all_stop_and_its_error_is_told(source, tmp_path, failing):
    folder, _ = source
    out = tmp_path / "out"
    out.mkdir()
    pieces, told = pieces_of(folder), []

    def fail():
        raise OSError(28, "full")

    def computed(piece):
        return lambda: Files().read(piece.content)

    pieces[failing] = replace(pieces[failing], content=fail)
    if failing < 9:
        pieces[9] = replace(pieces[9], content=computed(pieces[9]))
    with pytest.raises(OSError, match="full"):
        write_shards(out, pieces, 20_000, lambda done, total: told.append(done))
    assert told == sorted(told)
    assert f"model-{failing // 2 + 1:05d}-of-00006.safetensors" not in {file.name for file in out.iterdir()}
    pieces[failing] = pieces_of(folder)[failing]
    write_shards(out, pieces, 20_000)
    whole = tmp_path / "whole"
    whole.mkdir()
    write_shards(whole, pieces_of(folder), 20_000)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {
        file.name: file.read_bytes() for file in whole.iterdir()
    }


def test_the_error_of_a_copy_stops_what_is_computed(source, tmp_path):
    folder, _ = source
    out = tmp_path / "out"
    out.mkdir()
    pieces = pieces_of(folder)
    lost = tmp_path / "lost.safetensors"
    shutil.copyfile(folder / "model.safetensors", lost)
    header = replace(find_weights(folder)["layers.0.weight"], file=lost)
    pieces[0] = replace(pieces[0], content=Selection(header))
    for place in range(2, 12):
        pieces[place] = replace(pieces[place], content=lambda: time.sleep(0.2) or bytes(8000))
    opened = []

    def told(done, total):
        opened.append(done)
        lost.unlink(missing_ok=True)

    with pytest.raises(CheckpointError, match="vanished while it was needed"):
        write_shards(out, pieces, 20_000, told)
    assert opened[-1] < 96_000


def test_whole_shards_of_an_earlier_try_are_kept(source, tmp_path):
    folder, _ = source
    out = tmp_path / "out"
    out.mkdir()
    write_shards(out, pieces_of(folder), 20_000)
    files = sorted(out.iterdir())
    wanted = {file.name: file.read_bytes() for file in files}
    (out / "model-00002-of-00006.safetensors").unlink()
    (out / "model-00003-of-00006.safetensors.draft").write_bytes(b"half")
    (out / "left").write_bytes(b"over")
    before = (out / "model-00001-of-00006.safetensors").stat()
    sums = write_shards(out, pieces_of(folder), 20_000, checksums=True)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == wanted
    assert (out / "model-00001-of-00006.safetensors").stat().st_ino == before.st_ino
    assert len(sums) == 6


def test_killed_at_random_moments(source, tmp_path):
    """The source stays, nothing half appears, and the same command ends with an undisturbed run's bytes."""
    folder, _ = source
    before = (folder / "model.safetensors").read_bytes()

    def start(out):
        command = [sys.executable, "-c", WRITER, str(folder), str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout as said:
            assert said.readline() == "begun\n"
        return process

    whole = start(tmp_path / "whole")
    began = time.monotonic()
    assert whole.wait() == 0
    took = time.monotonic() - began
    wanted = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    out, rng = tmp_path / "out", random.Random(0)
    for _ in range(5):
        process = start(out)
        time.sleep(rng.random() * took * 0.9)
        process.kill()
        process.wait()
        if out.exists():
            assert {file.name: file.read_bytes() for file in out.iterdir()} == wanted
            shutil.rmtree(out)
    assert start(out).wait() == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == wanted
    assert (folder / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source", "whole"]
