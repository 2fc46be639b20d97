"""Gates that are on what enters an expert: how many times the token each row is.

Some routers scale the token before the expert, not what it gives. Then no factor stands behind the
expert's last product; the gate is the ratio of the row that entered the expert to the token that entered
the sublayer. Not here: gates behind experts (`gated`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from surgeon.calibrate.experts import Experts
from surgeon.calibrate.gated import Gated
from surgeon.errors import SurgeonError

__all__ = ["InputGates"]

_TOLERANCE = 1e-2
"""How far a row may be from a multiple of its token, relative to the largest element."""


class InputGates:
    """Remembers the tokens that enter the sublayers of `experts` while these run."""

    def __init__(self, module: nn.Module, experts: Collection[Experts]) -> None:
        self._parts = {
            one.outlet: module.get_submodule(one.sublayer) for one in experts if one.sublayer is not None
        }
        self._entered: dict[str, Tensor] = {}

    def attach(self) -> tuple[RemovableHandle, ...]:
        """Hooks on the sublayers."""
        return tuple(
            part.register_forward_pre_hook(self._before(outlet), with_kwargs=True)
            for outlet, part in self._parts.items()
        )

    def of(self, seen: Gated) -> Tensor:
        """The gate of each row, [rows] float64.

        Raises:
            SurgeonError: rows are no multiples of tokens.
        """
        x_TH = self._entered.get(seen.outlet)
        for name, rows_NH in seen.rows.items():
            if x_TH is None or name == seen.outlet or rows_NH.shape[-1] != x_TH.shape[-1]:
                continue
            tokens_NH = x_TH[seen.row_N % len(x_TH)].double()
            rows = rows_NH.double()
            size = tokens_NH.square().sum(-1)
            gates = (rows * tokens_NH).sum(-1) / size.where(size > 0, 1.0)
            if float((rows - gates[:, None] * tokens_NH).abs().max()) <= _TOLERANCE * float(rows.abs().max()):
                return gates
        raise SurgeonError(
            f"no gate stands behind '{seen.outlet}', and what enters its experts is no multiple of a token",
            hint="frequency in place of gates",
        )

    def _before(self, outlet: str) -> Callable[..., None]:
        def before(part: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            given = (g for g in (*args, *kwargs.values()) if isinstance(g, Tensor) and g.is_floating_point())
            first = next(given, None)
            if first is not None:
                self._entered[outlet] = first.detach().reshape(-1, first.shape[-1])

        return before
