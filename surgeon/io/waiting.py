"""Waiting: tensors that nobody needs for now, in memory up to a budget and past it in files without a name.

A file is read where its tensor is, and is gone with it, also where the process is killed.
"""

from __future__ import annotations

import mmap
import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor

from surgeon.errors import SurgeonError
from surgeon.io.memory import free_memory

__all__ = ["Waiting"]

SHARE = 4
"""What waits takes one part of so many of the memory that is free."""


class Waiting:
    """Keeps tensors of up to `budget` bytes in memory, others below `folder`.

    None for `budget` is a share of what is free, None for `folder` the system's place for temporary files.
    """

    def __init__(self, budget: int | None = None, folder: str | Path | None = None) -> None:
        self.budget = free_memory() // SHARE if budget is None else budget
        self.folder = Path(tempfile.gettempdir() if folder is None else folder).expanduser()
        self.held = 0
        self._mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    def keep(self, tensor: Tensor) -> Tensor:
        """A tensor with the elements of `tensor`, which may be the same one; not to be written to.

        Raises:
            SurgeonError: there is no room on the disk.
        """
        size = tensor.numel() * tensor.element_size()
        if size == 0 or tensor.device.type != "cpu":
            return tensor
        if self.held + size > self.budget:
            return self._filed(tensor)
        self.held += size
        weakref.finalize(tensor, self._released, size)
        return tensor

    def _released(self, size: int) -> None:
        self.held -= size

    def _filed(self, tensor: Tensor) -> Tensor:
        for earlier in self._mapped:  # what was read of them is not to add up; it can be read again
            earlier.madvise(mmap.MADV_DONTNEED)
        flat = tensor.detach().contiguous().reshape(-1)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(flat.view(torch.uint8).numpy().data)
                file.flush()
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise SurgeonError(
                f"{flat.nbytes / 1e9:.1f} GB that wait between blocks cannot be put into {self.folder}: "
                f"{error.strerror}",
                hint="--cache on a disk with room, more --memory, or fewer samples",
            ) from error
        self._mapped.add(mapped)
        return torch.frombuffer(mapped, dtype=tensor.dtype).view(tensor.shape)
