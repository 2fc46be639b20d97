"""SHA-256 of files, and ``SHA256SUMS``, which ``sha256sum -c`` reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["SUMS", "checksum", "write_checksums"]

SUMS = "SHA256SUMS"


def checksum(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_checksums(folder: Path, known: Mapping[str, str]) -> None:
    """Write ``SHA256SUMS`` of all files in `folder`, those that are not `known` by name read for it."""
    others = {file.name for file in folder.iterdir() if file.is_file()} - set(known) - {SUMS}
    sums = {**known, **{name: checksum(folder / name) for name in others}}
    lines = [f"{found}  {name}\n" for name, found in sorted(sums.items())]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
