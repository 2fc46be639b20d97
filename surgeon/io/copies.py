"""Copies: what a Plan that only selects means for the files of one checkpoint, worked out beforehand.

A Plan speaks of axes; to carry it out, the model is traced, its config solved and names are translated, for
which torch and transformers are needed. Of a plan that computes nothing the outcome is a list of stored
tensors with the positions that are kept, and a few small text files. It lies beside the plan, so that
carrying it out costs about what copying costs. It counts only for the very files that it was made for.
Not here: how it comes about (`surgeon.api.copying`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from surgeon.errors import InputError
from surgeon.io.boot import boot_id
from surgeon.io.documents import write_document
from surgeon.io.header import TensorHeader
from surgeon.io.shards import Piece
from surgeon.io.slices import Selection

__all__ = ["Copies", "copies_file", "copies_key", "read_copies", "write_copies"]

VERSION = 1
SUFFIX = ".copies.json"
KEY = 16


@dataclass(frozen=True)
class Copies:
    """What to write: tensors by their new name, of which stored tensor, and what is kept; and text files.

    `files` are the source files with size and time of last change, `pages` texts by file name.
    """

    pieces: tuple[Piece, ...]
    pages: Mapping[str, str]
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def copies_file(plan: Path) -> Path:
    """Where the copies of the plan in `plan` lie."""
    return plan.with_suffix(SUFFIX)


def copies_key(plan: Path, found: Copies, shard_size: str) -> str:
    """What two runs must have in common for one to go on after the shards of the other.

    That the machine was not started anew is part of it: what was not waited for may not be on the disk.
    """
    said = (copies_file(plan).read_bytes(), sorted(found.files.items()), shard_size, boot_id())
    return hashlib.sha256(repr(said).encode()).hexdigest()[:KEY]


def write_copies(plan: Path, pieces: Iterable[Piece], pages: Mapping[str, str], folder: Path) -> bool:
    """Write the copies beside a plan, where every tensor is selected; whether it is so.

    Raises:
        InputError: the file cannot be written.
    """
    pieces = tuple(pieces)
    file = copies_file(plan)
    if not all(isinstance(piece.content, Selection) for piece in pieces):
        file.unlink(missing_ok=True)
        return False
    sets: dict[bytes, int] = {}
    tensors = [[piece.name, *_entry(piece, sets)] for piece in pieces]
    sources = {piece.content.source.file for piece in pieces if isinstance(piece.content, Selection)}
    write_document(
        {
            "surgeon_copies": VERSION,
            "plan": _sum(plan),
            "config": _sum(folder / "config.json"),
            "files": {path.name: list(_stamp(path)) for path in sorted(sources)},
            "sets": [np.frombuffer(kept, dtype=np.int64).tolist() for kept in sets],
            "tensors": tensors,
            "pages": dict(pages),
        },
        file,
    )
    return True


def read_copies(plan: Path, folder: Path, stored: Mapping[str, TensorHeader]) -> Copies | None:
    """The copies beside a plan, or None where there are none for these very files.

    Args:
        plan: a plan file.
        folder: the checkpoint.
        stored: its tensors by name.
    """
    file = copies_file(plan)
    if not file.is_file():
        return None
    try:
        read: Any = json.loads(file.read_bytes())
        known = (read["surgeon_copies"], read["plan"], read["config"])
        if known != (VERSION, _sum(plan), _sum(folder / "config.json")):
            return None
        files = {name: (int(size), int(time)) for name, (size, time) in read["files"].items()}
        if any(_stamp(folder / name) != stamp for name, stamp in files.items()):
            return None
        return Copies(tuple(_pieces(read, stored)), dict(read["pages"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{file} is broken: {type(error).__name__}: {error}", hint="remove it, or make the plan again"
        ) from error


def _entry(piece: Piece, sets: dict[bytes, int]) -> tuple[object, ...]:
    content = piece.content
    if not isinstance(content, Selection):
        raise TypeError(f"'{piece.name}' is computed")
    dims = {
        str(dim): sets.setdefault(np.ascontiguousarray(kept, dtype=np.int64).tobytes(), len(sets))
        for dim, kept in content.dims.items()
    }
    return (content.source.name, dims, list(piece.shape))


def _pieces(read: Mapping[str, Any], stored: Mapping[str, TensorHeader]) -> Iterator[Piece]:
    sets = [np.asarray(kept, dtype=np.int64) for kept in read["sets"]]
    for name, old, dims, shape in read["tensors"]:
        source = stored[old]
        kept = {int(dim): sets[number] for dim, number in dims.items()}
        yield Piece(name, source.dtype, tuple(shape), Selection(source, kept))


def _sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
