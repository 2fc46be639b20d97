"""Statistic ``gram``: second moments of what enters a parameter, of all pairs of features."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from surgeon.calibrate.consumers import consumer_params
from surgeon.calibrate.statistic import Collector, Observation, Run, Statistic, statistics
from surgeon.calibrate.summing import Summing
from surgeon.calibrate.taps import Entering
from surgeon.errors import SurgeonError
from surgeon.graph import Graph, Group

__all__ = ["Gram", "GramSum", "block_gram"]

_BLOCK = 4096
"""Rows of one product; longer ones would lose digits of float32."""

_PANEL = 1024
"""Features of one product: what lies on one side of the diagonal is left out, panel by panel."""


@statistics.register("gram")
@dataclass(frozen=True)
class Gram(Statistic):
    """``X^T X / n`` over the rows X that enter a matrix, by the matrix's name.

    Result [features, features] float64, or [slices, features, features] for a stack of matrices, each
    over the tokens that it got (zero for one that got none). With `constant`, a feature that is always 1
    is appended. Products of up to 4096 rows in float32, or in float64 where the model is, summed in
    float64.
    """

    statistic: ClassVar[str] = "gram"
    inside: ClassVar[bool] = True
    constant: bool = False
    params: tuple[str, ...] | None = None
    """Matrices to watch; None for all."""

    def on(self, graph: Graph, groups: Collection[Group]) -> Gram:
        """Only the parameters that contract an Axis of `groups`."""
        return replace(self, params=consumer_params(graph, groups))

    def collector(self, run: Run) -> Collector:
        """A fresh Collector."""
        return _Grams(self, run)


class GramSum:
    """``A^T A`` [features, features] and ``A^T E`` [features, outputs] over batches, added up in place."""

    def __init__(self) -> None:
        self.rows = 0
        self._gram: Tensor | None = None
        self._cross: Tensor | None = None

    def add(self, a_NF: Tensor, e_NG: Tensor) -> None:
        """One batch more."""
        features, outputs = a_NF.shape[1], e_NG.shape[1]
        if self._gram is None or self._cross is None:
            self._gram = a_NF.new_zeros(features, features, dtype=torch.float64)
            self._cross = a_NF.new_zeros(features, outputs, dtype=torch.float64)
        _add_up(self._gram, _panels(a_NF))
        _add_product(self._cross, a_NF, e_NG)
        self.rows += len(a_NF)

    def means(self) -> tuple[Tensor, Tensor]:
        """``A^T A / n`` and ``A^T E / n``, float64; the sums themselves, which are used up."""
        if self._gram is None or self._cross is None:
            raise SurgeonError("nothing was measured", hint="calibration text with at least one sample")
        return _mirrored(self._gram.div_(self.rows)), self._cross.div_(self.rows)


def block_gram(rows_NF: Tensor, other_NG: Tensor | None = None) -> Tensor:
    """``X^T Y`` (or ``X^T X``) in float64, from products in float32 or wider of at most 4096 rows."""
    if other_NG is None:
        features = rows_NF.shape[1]
        return _mirrored(
            _add_up(rows_NF.new_zeros(features, features, dtype=torch.float64), _panels(rows_NF))
        )
    return _add_product(
        rows_NF.new_zeros(rows_NF.shape[1], other_NG.shape[1], dtype=torch.float64), rows_NF, other_NG
    )


def _add_product(total: Tensor, rows_NF: Tensor, other_NG: Tensor) -> Tensor:
    """Add ``X^T Y`` to `total`, from products in float32 or wider of some rows and features at a time."""
    wide = torch.promote_types(rows_NF.dtype, torch.float32)
    for start in range(0, len(rows_NF), _BLOCK):
        x, y = (part[start : start + _BLOCK].to(wide) for part in (rows_NF, other_NG))
        for first in range(0, x.shape[1], _PANEL):
            total[first : first + _PANEL] += x[:, first : first + _PANEL].T @ y
    return total


def _panels(rows_NF: Tensor) -> Iterator[tuple[int, Tensor]]:
    """``X^T X`` in float32 or wider, some features at a time, and of what follows them only."""
    wide = rows_NF.to(torch.promote_types(rows_NF.dtype, torch.float32))
    for start in range(0, len(wide), _BLOCK):
        x = wide[start : start + _BLOCK]
        for first in range(0, x.shape[1], _PANEL):
            yield first, x[:, first : first + _PANEL].T @ x[:, first:]


def _add_up(total: Tensor, panels: Iterable[tuple[int, Tensor]]) -> Tensor:
    for first, panel in panels:
        total[first : first + _PANEL, first:] += panel
    return total


def _mirrored(total: Tensor) -> Tensor:
    """`total` with what is right of its diagonal panels on their left as well, in place."""
    for first in range(0, total.shape[-1], _PANEL):
        after = first + _PANEL
        total[..., after:, first:after] = total[..., first:after, after:].transpose(-1, -2)
    return total


class _Grams(Summing):
    def __init__(self, key: Gram, run: Run) -> None:
        super().__init__()
        self.constant = key.constant
        self.last: tuple[Tensor, tuple[tuple[int, Tensor], ...]] | None = None
        run.taps.subscribe(key.params, self._see)

    def observe(self, observation: Observation) -> None:
        self.last = None

    def result(self) -> Mapping[str, Tensor]:
        """The sums themselves are divided: two of them would be twice the largest tensor that there is."""
        found = {}
        for key, total in self.sums.items():
            part, _, name = key.partition("/")
            if part != "rows":
                mean = _mirrored(total.div_(self.sums[f"rows/{name}"].clamp(min=1)))
                found[name] = mean if part == "stack" else mean[0]
        return found

    def _see(self, seen: Entering) -> None:
        total, rows = self._sums(seen)
        if seen.slice_N is None:
            if self.last is None or self.last[0] is not seen.rows_NF:
                self.last = (seen.rows_NF, tuple(_panels(self._with_constant(seen.rows_NF))))
            _add_up(total[0], self.last[1])
            rows += len(seen.rows_NF)
            return
        for index in seen.slice_N.unique().tolist():
            rows_NF = self._with_constant(seen.rows_NF[seen.slice_N == index])
            _add_up(total[index], _panels(rows_NF))
            rows[index] += len(rows_NF)

    def _sums(self, seen: Entering) -> tuple[Tensor, Tensor]:
        """The running sum [slices, features, features] and the counts [slices, 1, 1] of a matrix."""
        key = f"{'one' if seen.slices is None else 'stack'}/{seen.param}"
        if key not in self.sums:
            slices, features = seen.slices or 1, seen.rows_NF.shape[1] + self.constant
            like = {"dtype": torch.float64, "device": seen.rows_NF.device}
            self.sums[key] = torch.zeros(slices, features, features, **like)  # right of the diagonal
            self.sums[f"rows/{seen.param}"] = torch.zeros(slices, 1, 1, **like)
        return self.sums[key], self.sums[f"rows/{seen.param}"]

    def _with_constant(self, rows_NF: Tensor) -> Tensor:
        return torch.cat([rows_NF, rows_NF.new_ones(len(rows_NF), 1)], 1) if self.constant else rows_NF
