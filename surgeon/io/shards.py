"""Safetensors shards, written tensor by tensor: copied where it is selected, else computed in its turn.

A shard bears its name only when it is whole and on the disk, so a run that is killed leaves whole shards
and at most one draft; written again into the same folder, it goes on after them. Needs neither torch nor
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

from surgeon.io.checksums import checksum
from surgeon.io.header import BITS
from surgeon.io.slices import Files, Selection, put
from surgeon.io.weights import INDEX, SINGLE

__all__ = ["Piece", "Told", "unheard", "write_file", "write_shards"]

ALIGNED = 8
DRAFT = ".draft"

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
    total, done = sum(piece.nbytes for shard in shards for piece in shard), 0
    finished: dict[str, Future[str | None]] = {}
    with Files() as files, ThreadPoolExecutor(1) as finisher:
        files.watch(_sources(shards))
        for name, shard in zip(names, shards, strict=True):
            if not (folder / name).exists():
                handle = _write_shard(folder / f"{name}{DRAFT}", shard, files, _from(told, done, total))
                finished[name] = finisher.submit(_finish, handle, folder / name, checksums, durable)
            elif checksums:
                finished[name] = finisher.submit(checksum, folder / name)
            done += sum(piece.nbytes for piece in shard)
            told(done, total)
            files.check()
        sums = {name: future.result() for name, future in finished.items()}
    if len(names) > 1:
        _write_index(folder, names, shards)
    return {name: found for name, found in sums.items() if found is not None}


def write_file(file: Path, pieces: Iterable[Piece]) -> None:
    """Write one file of tensors; it bears its name only when it is whole and on the disk."""
    draft = file.with_name(f"{file.name}{DRAFT}")
    try:
        with Files() as files:
            handle = _write_shard(draft, _aligned(pieces), files, lambda count: None)
        _finish(handle, file, checksums=False, durable=True)
    finally:
        draft.unlink(missing_ok=True)


def _sources(shards: Sequence[Sequence[Piece]]) -> set[Path]:
    contents = (piece.content for shard in shards for piece in shard)
    return {content.source.file for content in contents if isinstance(content, Selection)}


def _from(told: Told, begin: int, total: int) -> Callable[[int], None]:
    """Tells of bytes that are counted from `begin`."""
    return lambda count: told(begin + count, total)


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


def _write_shard(draft: Path, shard: Sequence[Piece], files: Files, told: Callable[[int], None]) -> int:
    """Write one file; its open handle."""
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
            told(place - len(header))
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


def _finish(handle: int, file: Path, checksums: bool, durable: bool) -> str | None:
    """To the disk, then to its name."""
    draft = file.with_name(f"{file.name}{DRAFT}")
    try:
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
