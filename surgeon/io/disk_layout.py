"""From a smaller model's named tensors to what is written: names on disk, and where the bytes come from.

Not here: the files (`shards`), the names' translation (`conversion`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from surgeon.errors import RebuildError
from surgeon.io.conversion import to_disk
from surgeon.io.disk_source import DTYPES, DiskTensor
from surgeon.io.shards import Piece
from surgeon.io.slices import Selection
from surgeon.rebuild.lazy import Lazy, as_lazy, selection
from surgeon.rebuild.tensors import stored_tensors

__all__ = ["piece_of", "pieces_of"]

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def pieces_of(
    model: PreTrainedModel, stream: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None = None
) -> tuple[Piece, ...]:
    """What ``save_pretrained`` would write of these tensors, by name, dtype and shape; nothing is read.

    Args:
        model: of the config that goes beside them; it needs no storage.
        stream: tensors by their names in `model`.
        dtype: of the written floats; None leaves each as it is.

    Raises:
        RebuildError: the tensors do not fit `model`, all faults listed.
    """
    tensors = {name: as_lazy(tensor) for name, tensor in stream}
    places = stored_tensors(model)
    faults = [f"{name}: the new module has no such tensor" for name in tensors if name not in places]
    faults += [f"{name}: not filled" for name in places if name not in tensors]
    faults += [
        f"{name}: {list(tensor.shape)} does not fit {list(places[name].shape)}"
        for name, tensor in tensors.items()
        if name in places and tensor.shape != places[name].shape
    ]
    if faults:
        listing = "\n".join(f"  {fault}" for fault in sorted(faults))
        raise RebuildError(f"{len(faults)} tensors do not fit {type(model).__name__}:\n{listing}")
    return tuple(piece_of(name, tensor, dtype) for name, tensor in to_disk(model, tensors).items())


def piece_of(name: str, tensor: Lazy, dtype: torch.dtype | None = None) -> Piece:
    """One tensor under its name on disk: copied where its bytes lie in a file, else computed in its turn."""
    if dtype not in (None, tensor.dtype) and tensor.is_floating_point():
        tensor = tensor.to(dtype)
    found = selection(tensor)
    if found is not None and isinstance(found[0], DiskTensor):
        content: Selection | Callable[[], memoryview] = Selection(found[0].header, found[1])
    else:
        content = _Bytes(tensor)
    return Piece(name, NAMES[tensor.dtype], tuple(tensor.shape), content)


class _Bytes:
    """The bytes of a tensor, computed when they are asked for."""

    def __init__(self, tensor: Lazy) -> None:
        self._tensor = tensor

    def __call__(self) -> memoryview:
        tensor = self._tensor.read().detach().to("cpu").contiguous()
        return tensor.reshape(-1).view(torch.uint8).numpy().data
