"""The header of a safetensors file, read and checked without reading a tensor.

The format: eight bytes of length, that many bytes of JSON, then the tensors' bytes without gaps. Not
here: the tensors (`checkpoint`), and which files make a checkpoint (`weights`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgeon.errors import CheckpointError

__all__ = ["TensorHeader", "read_header"]

PREFIX = 8
LARGEST_HEADER = 100_000_000
"""The format's own limit, in bytes."""

BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F4": 4,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}
AGAIN = "download or copy the file again"


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor in a file: `start` and `end` are its bytes, counted from the file's first."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, TensorHeader]:
    """Every tensor of one safetensors file, by name.

    Raises:
        CheckpointError: the file is truncated, or no safetensors file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(PREFIX)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < PREFIX or length > min(LARGEST_HEADER, size - PREFIX):
                raise CheckpointError(
                    f"{file} is truncated or no safetensors file: its {size} bytes do not hold the "
                    f"header of {length} bytes that it announces",
                    hint=AGAIN,
                )
            text = stream.read(length)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    entries = _entries(file, text)
    found = {name: _tensor(file, name, entry, PREFIX + length) for name, entry in entries.items()}
    _check_bytes(file, found, PREFIX + length, size)
    return found


def _entries(file: Path, text: bytes) -> Mapping[str, object]:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{file} has a corrupt header: {error}", hint=AGAIN) from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file} has a corrupt header: it is no JSON object", hint=AGAIN)
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}


def _tensor(file: Path, name: str, entry: object, base: int) -> TensorHeader:
    try:
        fields: Any = entry
        start, end = fields["data_offsets"]
        shape = tuple(map(int, fields["shape"]))
        tensor = TensorHeader(name, str(fields["dtype"]), shape, file, base + int(start), base + int(end))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} has a corrupt header: the entry of '{name}'", hint=AGAIN) from error
    dtype = tensor.dtype
    if dtype not in BITS:
        known = ", ".join(BITS)
        raise CheckpointError(f"{file}: '{name}' has the unknown dtype {dtype}", hint=f"one of {known}")
    expected = tensor.numel * BITS[dtype] // 8
    if tensor.end - tensor.start != expected:
        raise CheckpointError(
            f"{file}: '{name}' of shape {list(shape)} and dtype {dtype} needs {expected} bytes, its header "
            f"gives it {tensor.end - tensor.start}",
            hint=AGAIN,
        )
    return tensor


def _check_bytes(file: Path, tensors: Mapping[str, TensorHeader], base: int, size: int) -> None:
    """The tensors' bytes follow each other without gap or overlap, up to the end of the file."""
    place = base
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != place:
            raise CheckpointError(
                f"{file}: '{tensor.name}' starts at byte {tensor.start}, the one before ends at {place}",
                hint=AGAIN,
            )
        place = tensor.end
    if place != size:
        raise CheckpointError(
            f"{file} is {'truncated' if size < place else 'too long'}: its header describes {place} bytes, "
            f"the file has {size}",
            hint=AGAIN,
        )
