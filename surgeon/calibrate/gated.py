"""Gated: what routed experts give, and the gates that the router gives them, seen where they meet.

Behind the last product of an expert come a bias or a norm, and then the gate: a factor of one number a
row that does not depend on what it multiplies. It is followed through the ops of the running model, so
whatever the router does (softmax or sigmoid, corrections, groups, renormalised or not) is what is read,
and no expert runs on a token that it was not given. Where no such factor comes, the gate was on what
entered, and rows of zeros are tokens that the expert was not given.

Not here: which products are an expert's (`taps`), and what is accumulated (one file a Statistic).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["Entered", "Following", "Gated"]

_aten = torch.ops.aten

_FACTORS = (_aten.mul.Tensor, _aten.mul_.Tensor)


class Entered(Protocol):
    """Rows that met a stack of matrices (`surgeon.calibrate.taps.Entering`)."""

    @property
    def param(self) -> str:
        """Name of the stack."""
        ...

    @property
    def dim(self) -> int:
        """Which dim of the stack was contracted."""
        ...

    @property
    def rows_NF(self) -> Tensor:
        """The rows."""
        ...

    @property
    def slices(self) -> int | None:
        """How many matrices there are."""
        ...

    @property
    def slice_N(self) -> Tensor | None:
        """Which one each row met."""
        ...


@dataclass(frozen=True, eq=False)
class Gated:
    """Rows of tokens at the experts that they were given to, detached.

    `outputs_NH`: what the experts give, gates not applied; `gates_N`: the gates, None where they were on
    what entered; `slice_N`: the expert of each row, of `slices`; `rows`: what entered the expert's stacks
    of matrices, the outlet's own included, by parameter, and `dims` which dim of that it met. `row_N`: the
    row's place in the product, of `product_rows`.
    """

    outlet: str
    outputs_NH: Tensor
    gates_N: Tensor | None
    slice_N: Tensor
    slices: int
    rows: Mapping[str, Tensor]
    dims: Mapping[str, int]
    row_N: Tensor
    product_rows: int


class Following:
    """Follows the outputs of some stacks through one forward of the module that owns them."""

    def __init__(self, outlets: Mapping[str, tuple[Callable[[Gated], None], ...]]) -> None:
        self.outlets = outlets
        self._entered: dict[str, Entered] = {}
        self._outlet: Entered | None = None
        self._current: Tensor | None = None
        self._derived: list[Tensor] = []

    def begin(self, seen: Entered, out: Tensor) -> None:
        """A product with a stack was seen, and gave `out`."""
        if not self.outlets:
            return
        self._entered[seen.param] = seen
        if seen.param in self.outlets:
            self.end()
            self._outlet, self._current, self._derived = seen, out.detach(), [out]

    def step(self, func: Any, args: Any, out: Any) -> None:
        """Any other op ran."""
        if self._current is None or not any(_shares(t, known) for t in _of(args) for known in self._derived):
            return
        gates = self._gates(func, args)
        if gates is not None:
            self._emit(self._rows_of(args), gates)
            return
        for tensor in _of((out,)):
            self._derived.append(tensor)
            if tensor.numel() == self._current.numel() and tensor.is_floating_point():
                self._current = tensor.detach()

    def end(self) -> None:
        """The forward, or the expert, is through: what met no gate carries it already."""
        if self._current is not None and self._outlet is not None:
            self._emit(self._current.reshape(len(self._outlet.rows_NF), -1), None)

    def _gates(self, func: Any, args: Any) -> Tensor | None:
        """The factor of one number a row that does not come from the rows themselves."""
        if func not in _FACTORS or not all(isinstance(arg, Tensor) for arg in args[:2]):
            return None
        wide, narrow = sorted(args[:2], key=Tensor.numel, reverse=True)
        if narrow.shape != (*wide.shape[:-1], 1) or self._current is None or not _shares(wide, self._current):
            return None
        return None if any(_shares(narrow, known) for known in self._derived) else narrow

    def _rows_of(self, args: Any) -> Tensor:
        return max(args[:2], key=Tensor.numel)

    def _emit(self, outputs: Tensor, gates: Tensor | None) -> None:
        outlet = self._outlet
        self._current, self._derived, self._outlet = None, [], None
        if outlet is None or outlet.slice_N is None or outlet.slices is None:
            return
        rows = {name: seen.rows_NF for name, seen in self._entered.items() if _alike(seen, outlet)}
        dims = {name: self._entered[name].dim for name in rows}
        count = len(outlet.rows_NF)
        outputs, slice_N = outputs.detach().reshape(count, -1), outlet.slice_N
        row_N = torch.arange(count, device=slice_N.device)
        if gates is None:
            given = outlet.rows_NF.any(-1)
            outputs, slice_N, row_N = outputs[given], slice_N[given], row_N[given]
            rows = {name: entered[given] for name, entered in rows.items()}
        else:
            gates = gates.detach().reshape(-1)
        done = Gated(outlet.param, outputs, gates, slice_N, outlet.slices, rows, dims, row_N, count)
        for see in self.outlets[outlet.param]:
            see(done)


def _alike(seen: Entered, outlet: Entered) -> bool:
    """Whether the same rows, in the same order, went through both."""
    if seen.slice_N is None or outlet.slice_N is None or len(seen.slice_N) != len(outlet.slice_N):
        return False
    return bool(torch.equal(seen.slice_N, outlet.slice_N))


def _shares(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _of(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _of(value)
