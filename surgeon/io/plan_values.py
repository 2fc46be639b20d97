"""The tensors that a Plan assigns, in a safetensors file beside it; they need torch, the Plan does not.

Not here: the Plan itself (`plan_files`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from surgeon.errors import CheckpointError, InputError
from surgeon.io.disk_layout import piece_of
from surgeon.io.disk_source import DiskTensor
from surgeon.io.header import read_header
from surgeon.io.shards import write_file
from surgeon.io.slices import Files
from surgeon.rebuild.lazy import as_lazy
from surgeon.rebuild.unread import Unread

__all__ = ["read_values", "write_values"]


def write_values(values: Mapping[str, Tensor], beside: Path) -> None:
    """Write named tensors as one file; it is seen when it is whole.

    Raises:
        InputError: it cannot be written.
    """
    try:
        write_file(beside, [piece_of(name, as_lazy(value)) for name, value in values.items()])
    except OSError as error:
        raise InputError(f"{beside} cannot be written: {error.strerror}") from error


def read_values(file: Path, beside: Path) -> dict[str, Tensor]:
    """The tensors in `beside` that the Plan in `file` assigns, each read at each use.

    Raises:
        InputError: they are missing, or broken.
    """
    try:
        files = Files()
        return {name: Unread(DiskTensor(header, files)) for name, header in read_header(beside).items()}
    except CheckpointError as error:
        raise InputError(
            f"the tensors of {file} cannot be read from {beside}: {error.message}",
            hint=f"put {beside.name} beside {file.name}",
        ) from error
