"""SublayerCalls: how sublayers were called on calibration text, held so that they can be run again.

Each call keeps the arguments, the tensors that were in force then (a masked view's too) and the output,
so the sublayer can run alone later, with a part of it absent or changed, and be compared. Not here: what
is tried (`reconstruction`, `expert_alone`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.packing import Samples
from surgeon.rebuild.forward import call_with

__all__ = ["SublayerCall", "SublayerCalls"]


@dataclass(frozen=True, eq=False)
class SublayerCall:
    """One batch of one sublayer: how it was called, the tensors in force then, and what it gave."""

    part: nn.Module
    args: tuple
    kwargs: dict[str, Any]
    tensors: dict[str, Tensor]
    output: Tensor

    def again(self, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
        """What the sublayer gives when it is called so again, run the plain way.

        Args:
            tensors: by local name, in place of those that were in force.
        """
        return _first(call_with(self.part, {**self.tensors, **(tensors or {})}, *self.args, **self.kwargs))


class SublayerCalls:
    """Holds the calls of the sublayers at `paths`, by their key there, up to about `tokens` tokens.

    `read` counts the tokens that went by.
    """

    def __init__(self, module: nn.Module, paths: Mapping[str, str], tokens: int) -> None:
        self.held: dict[str, list[SublayerCall]] = {name: [] for name in paths}
        self._parts = {name: module.get_submodule(path) for name, path in paths.items()}
        self._tokens = tokens
        self.read = 0

    def attach(self) -> tuple[RemovableHandle, ...]:
        """Hooks on the sublayers."""
        return tuple(
            part.register_forward_hook(self._hook(name), with_kwargs=True)
            for name, part in self._parts.items()
        )

    def taken(self) -> list[tuple[str, SublayerCall]]:
        """All calls with the keys of their sublayers, held no longer."""
        found = [(name, call) for name, calls in self.held.items() for call in calls]
        self.held = {name: [] for name in self.held}
        return found

    def count(self, batch: Samples) -> None:
        """Called after `batch` has run."""
        self.read += batch.ids.numel()

    def _hook(self, name: str) -> Callable[..., None]:
        def after(part: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            if self.read >= self._tokens:
                return
            tensors = dict(part.named_parameters()) | dict(part.named_buffers())
            held = {key: tensor.detach() for key, tensor in tensors.items()}
            self.held[name].append(SublayerCall(part, args, kwargs, held, _first(output).detach()))

        return after


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
