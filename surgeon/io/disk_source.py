"""DiskSource: the tensors of a checkpoint folder under their names in the module, read when they are needed.

Not here: how names are translated (`conversion`), which bytes are read (`slices`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from surgeon.errors import CheckpointError
from surgeon.graph.layout import Positions
from surgeon.io.computed import computed_tensors
from surgeon.io.conversion import to_module
from surgeon.io.header import TensorHeader
from surgeon.io.loading import check_report
from surgeon.io.slices import Files, Selection
from surgeon.io.stored_numbers import has_numbers, stored_numbers
from surgeon.rebuild.lazy import Lazy, Stored, Value
from surgeon.rebuild.tensors import Numbers, stored_tensors

__all__ = ["DTYPES", "DiskSource", "DiskTensor"]

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}
"""Types of torch by their names in a safetensors header."""


class DiskTensor(Stored):
    """A tensor in a safetensors file."""

    def __init__(self, header: TensorHeader, files: Files) -> None:
        super().__init__(header.name, header.shape, DTYPES[header.dtype], self._read)
        self.header = header
        self._files = files

    def numbers(self, starts: range) -> Iterator[Numbers] | None:
        """Runs of entries of the first dim as numbers of numpy; None where it knows no such type."""
        return stored_numbers(self._files, self.header, starts) if has_numbers(self.header) else None

    def _read(self, dims: Mapping[int, Positions]) -> Tensor:
        chosen = Selection(self.header, dims)
        if not chosen.nbytes:
            return torch.empty(chosen.shape, dtype=self.dtype)
        return torch.frombuffer(self._files.read(chosen), dtype=self.dtype).reshape(chosen.shape)


class DiskSource:
    """A TensorSource over a folder's tensors; `get` gives Lazy ones."""

    def __init__(self, folder: Path, tensors: Mapping[str, TensorHeader], model: PreTrainedModel) -> None:
        """Translate the names; nothing is read.

        Args:
            folder: of the checkpoint, for messages.
            tensors: every tensor under its name on disk.
            model: built without storage from the folder's config.

        Raises:
            CheckpointError: tensors are missing, unexpected, or of another shape than the config says.
        """
        self.files = Files()
        self._folder, self._headers, self._model = folder, tensors, model

    @cached_property
    def tensors(self) -> dict[str, Lazy]:
        """All tensors, under each of their names in the module."""
        lazy = {name: DiskTensor(header, self.files) for name, header in self._headers.items()}
        found, unexpected = to_module(self._model, lazy)
        places = stored_tensors(self._model)
        by_place = {id(places[name]): tensor for name, tensor in found.items() if name in places}
        lacking = [name for name, place in places.items() if id(place) not in by_place]
        by_place |= {
            id(places[name]): Value(tensor) for name, tensor in computed_tensors(self._model, lacking).items()
        }
        complete = {name: by_place[id(place)] for name, place in places.items() if id(place) in by_place}
        check_report(
            self._folder,
            {
                "mismatched_keys": [
                    (name, tensor.shape, places[name].shape)
                    for name, tensor in complete.items()
                    if tensor.shape != places[name].shape
                ],
                "missing_keys": [name for name in places if name not in complete],
                "unexpected_keys": unexpected,
                "error_msgs": (),
            },
        )
        return complete

    def names(self) -> tuple[str, ...]:
        """All names in the module, aliases included."""
        return tuple(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return tuple(self._find(name).shape)

    def get(self, name: str) -> Tensor:
        """One tensor, described and not yet read."""
        return self._find(name)  # type: ignore[return-value]  # stands in for a tensor wherever one is taken

    def _find(self, name: str) -> Lazy:
        if name not in self.tensors:
            raise CheckpointError(f"{self._folder} holds no tensor for '{name}'")
        return self.tensors[name]
