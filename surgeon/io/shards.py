"""Safetensors shards, written tensor by tensor: copied where it is selected, else computed in its turn.

A shard bears its name only when it is whole and on the disk, so a run that is killed leaves whole shards and
a few drafts; written again into the same folder, it goes on after them. Shards that are only copied are
written two at a time; what is computed is computed one by one, since it needs memory. Needs neither torch nor
transformers. Not here: what the tensors are (`disk_layout`), where the folder appears (`publish`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import Lock

from surgeon.io.checksums import checksum
from surgeon.io.header import BITS
from surgeon.io.slices import Files, Selection, put
from surgeon.io.weights import INDEX, SINGLE

__all__ = ["Piece", "Told", "unheard", "write_file", "write_shards"]

ALIGNED = 8
DRAFT = ".draft"
THREADS = 2
"""Shards that are written at the same time: one file takes one writer at a time."""

Told = Callable[[int, int], None]
"""Told how many bytes are written, and how many there are."""


def unheard(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Piece:
    """One tensor to write: selected from a file, or computed when its turn comes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: Selection | Callable[[], bytes | bytearray | memoryview]

    @property
    def nbytes(self) -> int:
        """Size on disk."""
        return prod(self.shape) * BITS[self.dtype] // 8


def write_shards(
    folder: Path,
    pieces: Iterable[Piece],
    shard_size: int,
    told: Told = unheard,
    *,
    checksums: bool = False,
    durable: bool = True,
) -> dict[str, str]:
    """Write the weights of a checkpoint into `folder`, and their index where there are several files.

    Args:
        folder: exists; whole shards in it are left as they are, so it must be of the same tensors; other
            files of an earlier try are removed.
        pieces: the tensors, in the order in which they are written.
        shard_size: bytes of the tensors in one file; a larger tensor has a file of its own.
        told: hears of the progress.
        checksums: compute the SHA-256 of every file, on the way.
        durable: a file is on the disk before it is called whole.

    Returns:
        The SHA-256 of every file, by its name.

    Raises:
        CheckpointError: a source file vanished or was changed.
    """
    shards = _split(tuple(pieces), shard_size)
    names = _names(len(shards))
    for file in folder.iterdir():
        if file.name not in names:
            file.unlink()
    total = sum(piece.nbytes for shard in shards for piece in shard)
    finished: dict[str, Future[str | None]] = {}
    with Files() as files, ThreadPoolExecutor(THREADS) as threads, _Work(told, total) as work:
        files.watch(_sources(shards))
        for name, shard in zip(names, shards, strict=True):
            file = folder / name
            if file.exists():
                work.wrote(sum(piece.nbytes for piece in shard))
                if checksums:
                    finished[name] = threads.submit(work.part, checksum, file)
            elif all(isinstance(piece.content, Selection) for piece in shard):
                finished[name] = threads.submit(
                    work.part, _copy_shard, file, shard, files, work, checksums, durable
                )
            else:
                handle = _write_shard(_draft(file), shard, files, work.wrote)
                finished[name] = threads.submit(work.part, _finish, handle, file, files, checksums, durable)
        sums = {name: future.result() for name, future in finished.items()}
        files.check()
    if len(names) > 1:
        _write_index(folder, names, shards)
    return {name: found for name, found in sums.items() if found is not None}


def write_file(file: Path, pieces: Iterable[Piece]) -> None:
    """Write one file of tensors; only when it is whole and on the disk it is seen under its name."""
    hidden = file.with_name(f".{file.name}")
    draft = _draft(hidden)
    try:
        with Files() as files:
            handle = _write_shard(draft, _aligned(pieces), files, lambda count: None)
            _finish(handle, hidden, files, checksums=False, durable=True)
        hidden.replace(file)
    finally:
        draft.unlink(missing_ok=True)
        hidden.unlink(missing_ok=True)


def _sources(shards: Sequence[Sequence[Piece]]) -> set[Path]:
    contents = (piece.content for shard in shards for piece in shard)
    return {content.source.file for content in contents if isinstance(content, Selection)}


class _Stopped(Exception):
    """Another part of the work failed."""


class _Work:
    """What several threads write: its progress is told as one, and all of it stops where a part fails."""

    def __init__(self, told: Told, total: int) -> None:
        self._told, self._total = told, total
        self._lock = Lock()
        self._done = 0
        self._failure: BaseException | None = None

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._fail(error)
        if isinstance(error, _Stopped) and self._failure is not None:
            raise self._failure from None

    def part(self, write: Callable[..., str | None], *args: object) -> str | None:
        """Do a part of it, in any thread."""
        try:
            return write(*args)
        except BaseException as error:
            self._fail(error)
            raise

    def wrote(self, count: int) -> None:
        """So many bytes more are written.

        Raises:
            _Stopped: there is no use in going on.
        """
        with self._lock:
            if self._failure is not None:
                raise _Stopped
            self._done += count
            self._told(self._done, self._total)

    def _fail(self, error: BaseException | None) -> None:
        with self._lock:
            self._failure = self._failure or error


def _split(pieces: Sequence[Piece], shard_size: int) -> list[list[Piece]]:
    """Tensors by file, in order; none is larger than asked, but for one with a single tensor."""
    shards: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        if shards[-1] and size + piece.nbytes > shard_size:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.nbytes
    return [_aligned(shard) for shard in shards]


def _aligned(pieces: Iterable[Piece]) -> list[Piece]:
    """The widest elements first, so that every tensor begins where its elements are aligned."""
    return sorted(pieces, key=lambda piece: -BITS[piece.dtype])


def _names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE]
    stem = SINGLE.removesuffix(".safetensors")
    return [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _draft(file: Path) -> Path:
    return file.with_name(f"{file.name}{DRAFT}")


def _copy_shard(
    file: Path, shard: Sequence[Piece], files: Files, work: _Work, checksums: bool, durable: bool
) -> str | None:
    """Write one file whole, of selections."""
    handle = _write_shard(_draft(file), shard, files, work.wrote)
    return _finish(handle, file, files, checksums, durable)


def _write_shard(draft: Path, shard: Sequence[Piece], files: Files, wrote: Callable[[int], None]) -> int:
    """Write one file, and tell of every tensor's bytes; its open handle."""
    header = _header(shard)
    handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        os.pwrite(handle, header, 0)
        place = len(header)
        for piece in shard:
            if isinstance(piece.content, Selection):
                files.copy(piece.content, handle, place)
            else:
                put(handle, memoryview(piece.content()).cast("B"), place)
            place += piece.nbytes
            wrote(piece.nbytes)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _header(shard: Sequence[Piece]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for piece in shard:
        entries[piece.name] = {
            "dtype": piece.dtype,
            "shape": list(piece.shape),
            "data_offsets": [place, place + piece.nbytes],
        }
        place += piece.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    return len(text).to_bytes(8, "little") + text


def _finish(handle: int, file: Path, files: Files, checksums: bool, durable: bool) -> str | None:
    """To the disk, then to its name, if what was read is still what it was."""
    draft = _draft(file)
    try:
        files.check()
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
    found = checksum(draft) if checksums else None
    draft.rename(file)
    return found


def _write_index(folder: Path, names: Sequence[str], shards: Sequence[Sequence[Piece]]) -> None:
    pieces = [piece for shard in shards for piece in shard]
    index = {
        "metadata": {
            "total_parameters": sum(prod(piece.shape) for piece in pieces),
            "total_size": sum(piece.nbytes for piece in pieces),
        },
        "weight_map": {
            piece.name: name for name, shard in zip(names, shards, strict=True) for piece in shard
        },
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
