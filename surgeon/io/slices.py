"""Parts of stored tensors, by file offsets: copied by the kernel where they are whole, else through a buffer.

Plain reads into a buffer of a fixed size, and no memory mapping: pages of a mapped file count as the
process's own, and a file that shrinks meanwhile would end the process. Neither torch nor transformers is
needed. Not here: which parts (`surgeon.rebuild.lazy`), and where they go (`shards`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from surgeon.errors import CheckpointError
from surgeon.io.gather import Gather
from surgeon.io.header import BITS, TensorHeader
from surgeon.rebuild.room import empty_bytes

if TYPE_CHECKING:
    from surgeon.graph.layout import Positions

__all__ = ["Files", "Selection", "put"]

BUFFER = 512 << 10
"""Bytes that are read at once where bytes have to be looked at: few enough for a processor's cache."""
WRITTEN = 256 << 10
"""Bytes that are written at once. Measured on Linux 6.18, ext4: writes of a megabyte or more that begin at a
multiple of their size take six times as long, since for them the page cache looks for memory in one piece."""
LONG = 256 << 10
"""Bytes from which on a run of rows is copied by itself."""
NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


@dataclass(frozen=True)
class Selection:
    """The kept positions of some dims of a stored tensor, and all of its other dims."""

    source: TensorHeader
    dims: Mapping[int, Positions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse positions that the tensor does not have."""
        for dim, positions in self.dims.items():
            if len(positions) and not (0 <= positions.min() and positions.max() < self.source.shape[dim]):
                raise IndexError(f"'{self.source.name}' has no such positions")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what is kept."""
        sizes = enumerate(self.source.shape)
        return tuple(len(self.dims[dim]) if dim in self.dims else size for dim, size in sizes)

    @property
    def nbytes(self) -> int:
        """Size of what is kept."""
        return prod(self.shape) * BITS[self.source.dtype] // 8


class Files:
    """Source files, opened when first read, and watched: a file that changes meanwhile is an error.

    Use as a context; it closes the files. Several threads may read and copy at the same time.
    """

    def __init__(self) -> None:
        self._opening = Lock()
        self._handles: dict[Path, int] = {}
        self._stamps: dict[Path, tuple[int, int]] = {}

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def watch(self, files: Iterable[Path]) -> None:
        """Remember what the files look like now."""
        self._stamps |= {file: _stamp(file) for file in files if file not in self._stamps}

    def check(self) -> None:
        """Refuse to go on where a watched file is no longer what it was.

        Raises:
            CheckpointError: it vanished, or was changed.
        """
        for file, stamp in self._stamps.items():
            if _stamp(file) != stamp:
                raise CheckpointError(
                    f"{file} was changed while it was being read",
                    hint="run it again once nobody writes to the model folder",
                )

    def read(self, chosen: Selection) -> memoryview:
        """The bytes of a Selection, in the order of its elements, in the Room that is used."""
        view, place = empty_bytes(chosen.nbytes).data, 0
        for start, count, rest in _runs(chosen):
            if rest is None:
                self._fill(chosen.source.file, view[place : place + count], start)
                place += count
            else:
                for block in self._blocks(chosen, start, count, rest):
                    view[place : place + block.nbytes] = block
                    place += block.nbytes
        return view

    def fill(self, stored: TensorHeader, start: int, view: memoryview) -> None:
        """Read into bytes, from byte `start` of a stored tensor on, as many as there is room for."""
        self._fill(stored.file, view, stored.start + start)

    def copy(self, chosen: Selection, out: int, place: int) -> None:
        """Write the bytes of a Selection to the open file `out`, from byte `place` on."""
        for start, count, rest in _runs(chosen):
            if rest is None:
                self._copy_run(chosen.source.file, start, count, out, place)
                place += count
            else:
                for block in self._blocks(chosen, start, count, rest):
                    put(out, block, place)
                    place += block.nbytes

    def _handle(self, file: Path) -> int:
        with self._opening:
            if file not in self._handles:
                try:
                    self._handles[file] = os.open(file, os.O_RDONLY)
                except OSError as error:
                    raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
                self.watch((file,))
            return self._handles[file]

    def _fill(self, file: Path, view: memoryview, start: int) -> None:
        handle = self._handle(file)
        while view:
            count = os.preadv(handle, [view[: 1 << 30]], start)
            if count == 0:
                raise CheckpointError(f"{file} ended while it was being read", hint="copy the file again")
            view, start = view[count:], start + count

    def _copy_run(self, file: Path, start: int, count: int, out: int, place: int) -> None:
        handle = self._handle(file)
        while count:
            try:
                done = os.copy_file_range(handle, out, min(count, 1 << 30), start, place)
            except OSError as error:
                if error.errno not in NO_KERNEL_COPY:
                    raise
                break
            if done == 0:
                raise CheckpointError(f"{file} ended while it was being read", hint="copy the file again")
            start, count, place = start + done, count - done, place + done
        buffer = memoryview(bytearray(min(count, BUFFER)))
        while count:
            part = buffer[: min(count, BUFFER)]
            self._fill(file, part, start)
            put(out, part, place)
            start, count, place = start + len(part), count - len(part), place + len(part)

    def _blocks(
        self, chosen: Selection, start: int, count: int, rest: Mapping[int, Positions]
    ) -> Iterator[memoryview]:
        """Bytes from a span of rows, of which `rest` is kept (rows under 0, counted within the span).

        Each is to be used before the next one is asked for.
        """
        source, work = chosen.source, Gather()
        width = BITS[source.dtype] // 8
        row = prod(source.shape[1:]) * width
        step = max(1, BUFFER // row)
        rows = count // row
        wanted = rest.get(0)
        for first in range(0, rows, step):
            some = min(step, rows - first)
            kept = rest
            if wanted is not None:
                low, high = np.searchsorted(wanted, (first, first + some))
                if low == high:
                    continue
                kept = {**rest, 0: wanted[low:high] - first}
            self._fill(source.file, work.room(some * row), start + first * row)
            yield work.taken((some, *source.shape[1:]), width, kept)


def _runs(chosen: Selection) -> Iterator[tuple[int, int, Mapping[int, Positions] | None]]:
    """Spans of the file, as start and length in bytes, and what of a span is kept; None is all of it.

    Long runs of kept rows are spans of their own; where runs are short, one span holds them all.
    """
    source = chosen.source
    if not chosen.nbytes:
        return
    if not chosen.dims:
        yield source.start, source.end - source.start, None
        return
    row = prod(source.shape[1:]) * BITS[source.dtype] // 8
    rows = chosen.dims.get(0)
    inner = {dim: positions for dim, positions in chosen.dims.items() if dim}
    if rows is None:
        yield source.start, source.end - source.start, inner
        return
    ends = np.flatnonzero(np.diff(rows) != 1)
    begins = np.concatenate(([0], ends + 1))
    lengths = np.diff(np.concatenate((begins, [len(rows)])))
    if (np.diff(rows) > 0).all() and len(rows) * row // len(begins) < LONG:
        first, last = int(rows[0]), int(rows[-1])
        yield source.start + first * row, (last - first + 1) * row, {0: rows - first, **inner}
        return
    for begin, length in zip(begins.tolist(), lengths.tolist(), strict=True):
        yield source.start + int(rows[begin]) * row, length * row, inner or None


def put(out: int, view: memoryview, place: int) -> None:
    """Write all of `view` to the open file `out`, from byte `place` on."""
    while view:
        done = os.pwrite(out, view[:WRITTEN], place)
        view, place = view[done:], place + done


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise CheckpointError(
            f"{file} vanished while it was needed: {error.strerror}", hint="put the file back, and run again"
        ) from error
    return found.st_size, found.st_mtime_ns
