"""What is copied and read of stored tensors is what numpy takes of them."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.errors import CheckpointError
from surgeon.io import slices
from surgeon.io.header import TensorHeader
from surgeon.io.slices import Files, Selection

LEAD = 24
"""Bytes before the tensor in its file."""


@st.composite
def tensors_and_cuts(draw):
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    dims = {}
    for dim, size in enumerate(shape):
        if draw(st.booleans()):
            dims[dim] = np.array(sorted(draw(st.sets(st.integers(0, size - 1), min_size=1))), dtype=np.int64)
    return shape, dims, draw(st.integers(1, 64)), draw(st.integers(1, 64))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("slices")


def stored(place, shape):
    values = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    file = place / "a.bin"
    file.write_bytes(bytes(LEAD) + values.tobytes() + b"behind")
    return values, TensorHeader("a", "BF16", tuple(shape), file, LEAD, LEAD + values.nbytes)


@given(tensors_and_cuts())
@settings(max_examples=150, deadline=None)
def test_reads_and_copies_what_numpy_takes(place, case):
    shape, dims, buffer, long = case
    values, header = stored(place, shape)
    want = values
    for dim, kept in dims.items():
        want = want.take(kept, axis=dim)
    chosen = Selection(header, dims)
    with pytest.MonkeyPatch.context() as patch, Files() as files, (place / "out").open("w+b") as out:
        patch.setattr(slices, "BUFFER", buffer)
        patch.setattr(slices, "LONG", long)
        assert chosen.shape == want.shape
        assert chosen.nbytes == want.nbytes
        assert bytes(files.read(chosen)) == want.tobytes()
        files.copy(chosen, out.fileno(), 5)
        out.seek(5)
        assert out.read() == want.tobytes()


def test_any_order_of_rows(place):
    values, header = stored(place, (6, 4))
    with Files() as files:
        got = files.read(Selection(header, {0: np.array([4, 0, 1])}))
    assert bytes(got) == values[[4, 0, 1]].tobytes()


def test_where_the_kernel_does_not_copy(place, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "across devices")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    values, header = stored(place, (5, 3))
    with Files() as files, (place / "out").open("w+b") as out:
        files.copy(Selection(header), out.fileno(), 0)
        assert out.read() == values.tobytes()


def test_a_file_that_changes_vanishes_or_ends(tmp_path):
    _, header = stored(tmp_path, (5, 3))
    with Files() as files:
        files.watch((header.file,))
        files.check()
        header.file.write_bytes(b"other")
        with pytest.raises(CheckpointError, match="was changed while it was being read"):
            files.check()
        with pytest.raises(CheckpointError, match="ended while it was being read"):
            files.read(Selection(header))
        header.file.unlink()
        with pytest.raises(CheckpointError, match="vanished while it was needed"):
            files.check()
    with Files() as files, pytest.raises(CheckpointError, match="cannot be read"):
        files.read(Selection(header))
