"""OnDemand: the weights that a plan looks at, each read from the checkpoint when it is asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surgeon.errors import CheckpointError
from surgeon.rebuild import ModuleSource
from surgeon.rebuild.unread import Unread

__all__ = ["OnDemand"]


class OnDemand:
    """Tensors of `module`, those that lie on disk as their values; `name` of the model is for messages."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self._source = ModuleSource(module)
        self._name = name

    def names(self) -> tuple[str, ...]:
        """All names, aliases included."""
        return self._source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor; it is not read."""
        return self._source.shape(name)

    def get(self, name: str) -> Tensor:
        """One tensor, read now where it lies on disk.

        Raises:
            CheckpointError: it holds NaN or infinity, which make every score worthless.
        """
        found = self._source.get(name)
        if not isinstance(found, Unread):
            return found
        values = found.values()
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise CheckpointError(
                f"the weights in {self._name} hold NaN or infinite values, in '{name}' first",
                hint="a checkpoint whose training did not diverge",
            )
        return values
