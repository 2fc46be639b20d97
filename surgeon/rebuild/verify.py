"""The promise of every cut: the rebuilt model computes what the masked original computes.

Not here: the promise of a Group (`symmetry`), and how good either model is (`surgeon.evaluate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from surgeon.errors import VerifyError
from surgeon.graph import Graph
from surgeon.graph.layout import Positions
from surgeon.plan import Plan
from surgeon.rebuild.forward import (
    Output,
    PrecisionLoss,
    all_tensors,
    call_with,
    cast_inputs,
    feed,
    first_output,
    in_dtype_or_own,
)
from surgeon.rebuild.masked import masked

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far two models' outputs are apart; `relative` is `max_abs` over the `largest` output.

    `agreement` is the share of positions where both have the same largest entry, `precision` the
    dtype that was computed in.
    """

    max_abs: float
    largest: float
    relative: float
    agreement: float
    tolerance: float
    tokens: int
    precision: str

    @property
    def ok(self) -> bool:
        """Whether the difference is within the tolerance; never where an output is not finite."""
        return self.relative <= self.tolerance

    def require(self) -> Comparison:
        """The comparison itself.

        Raises:
            VerifyError: it is not `ok`.
        """
        if not self.ok:
            raise VerifyError(
                f"the rebuilt model differs from the masked original by {self.max_abs:.3g}, "
                f"{self.relative:.3g} of the largest output ({self.largest:.3g}); allowed is "
                f"{self.tolerance:.0e} in {self.precision}; {self.agreement:.1%} of the top choices agree",
                hint="report this with the recipe: a cut that was planned as exact is not",
            )
        return self

    def to_dict(self) -> dict[str, object]:
        """Plain values for a report."""
        return {**asdict(self), "ok": self.ok}


def compare(
    original: nn.Module,
    small: nn.Module,
    plan: Plan,
    graph: Graph,
    tokens: Tensor,
    *,
    dtype: torch.dtype | None = torch.float64,
    tolerance: float | None = None,
) -> Comparison:
    """Compare `small` with the masked view of `original` on `tokens`.

    Where the plan cuts an Axis of the output or of the input ids (a vocabulary), only kept entries
    are compared, and removed ids are replaced by kept ones.

    Args:
        original: the traced module.
        small: the rebuilt one.
        plan: what lies between them.
        graph: the Graph of `original`.
        tokens: input ids [rows, length] in the vocabulary of `original`.
        dtype: what to compute in; None computes in the weights' own, and so does a model whose code
            insists on them.
        tolerance: allowed difference, relative to the largest output; None takes 1e-9 in float64,
            1e-5 where the model drops to a narrower float inside, and in another dtype the root of
            its rounding.

    Raises:
        VerifyError: a model's output cannot be compared.
        RebuildError: the plan cannot be masked.
    """
    ids, small_ids = _inputs(tokens, plan, graph)
    loss = PrecisionLoss()

    def outputs(dtype: torch.dtype | None) -> tuple[Output, Output]:
        return (
            first_output(masked(original, plan, graph, dtype)(**cast_inputs(feed(original, ids), dtype))),
            first_output(
                call_with(small, all_tensors(small, dtype), **cast_inputs(feed(small, small_ids), dtype))
            ),
        )

    with torch.no_grad(), loss:
        want, got = in_dtype_or_own(outputs, dtype)
    wanted = want.value
    for dim, gone in _gone(plan, graph, want.name, "output").items():
        kept = np.setdiff1d(np.arange(wanted.shape[dim]), gone)
        wanted = wanted.index_select(dim, torch.from_numpy(kept).to(wanted.device))
    if wanted.shape != got.value.shape:
        raise VerifyError(
            f"'{want.name}' of the masked original is {list(wanted.shape)}, of the rebuilt model "
            f"{list(got.value.shape)}"
        )
    own = wanted.dtype
    usual = loss.tolerance if own == torch.float64 else float(torch.finfo(own).eps) ** 0.5
    return _measure(wanted, got.value, usual if tolerance is None else tolerance, ids.numel())


def _measure(want: Tensor, got: Tensor, tolerance: float, tokens: int) -> Comparison:
    precision = str(want.dtype).removeprefix("torch.")
    want, got = want.to("cpu", torch.float64), got.to("cpu", torch.float64)
    max_abs, largest = float((want - got).abs().max()), float(want.abs().max())
    return Comparison(
        max_abs=max_abs,
        largest=largest,
        relative=max_abs / largest if largest > 0 else max_abs,
        agreement=float((want.argmax(-1) == got.argmax(-1)).double().mean()),
        tolerance=tolerance,
        tokens=tokens,
        precision=precision,
    )


def _gone(plan: Plan, graph: Graph, name: str, direction: str) -> Mapping[int, Positions]:
    """Removed positions of every dim of the output or input called `name`, or of its values under -1."""
    found: dict[int, Positions] = {}
    for axis, indices in plan.kept().items():
        group = graph.group(axis)
        removed = np.setdiff1d(np.arange(group.size), indices)
        for port in group.ports:
            if port.name == name and port.direction == direction:
                dim = -1 if port.dim is None else port.dim
                positions = port.layout.positions(removed).reshape(-1)
                found[dim] = np.union1d(found.get(dim, np.arange(0)), positions)
    return found


def _inputs(tokens: Tensor, plan: Plan, graph: Graph) -> tuple[Tensor, Tensor]:
    """Input ids for the original, and the same ones as the small model numbers them."""
    gone = _gone(plan, graph, "input_ids", "input").get(-1)
    if gone is None:
        return tokens, tokens
    ids = tokens.cpu().numpy()
    kept = np.setdiff1d(np.arange(np.append(gone, ids.max()).max() + 1), gone)
    ids = np.where(np.isin(ids, kept), ids, kept[ids % len(kept)])
    ranks = np.searchsorted(kept, ids)
    return torch.from_numpy(ids).to(tokens), torch.from_numpy(ranks).to(tokens)
