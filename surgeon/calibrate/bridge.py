"""What a projection should add so that its Block ends on given states, as Gram matrices.

For a gap in the depth of a model: A is what enters the projection in the cut model, E the states that
the original has behind the gap minus those that the cut model's Block ends on. Only ``A^T A`` and
``A^T E`` are kept. Where a norm that only scales stands behind the projection, both are taken in its units;
its scale moves with the projection, so the result is a first-order step, to be kept where it helps. Not
here: a projection that lost inputs (`gap`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from surgeon.calibrate.behind_norm import norm_behind, scales_of
from surgeon.calibrate.gram import GramSum
from surgeon.calibrate.passage import Passage, Projection
from surgeon.calibrate.walk import Forward, Walk

__all__ = ["bridge_gap", "end_error"]

Rows = tuple[Tensor, Tensor]
"""A [tokens, features] and E [tokens, outputs] of one batch."""


def bridge_gap(
    param: str, kept: Tensor, targets: Sequence[Tensor], walk: Walk, forward: Forward
) -> tuple[Tensor, Tensor] | None:
    """``A^T A / n`` [features, features] and ``A^T E / n`` [features, outputs], float64.

    E is in units of what the projection gives. None where its output does not join the stream, neither
    simply nor behind a norm that only scales.

    Args:
        param: the projection's matrix.
        kept: features of what enters that count, ascending.
        targets: states [rows, length, hidden] that the Block should end on, batch by batch.
        walk: the cut model, before the Block.
        forward: runs the cut model.
    """
    projection = Projection(param, walk)
    found = _gathered(projection, kept, targets, forward, None)
    if found is not None:
        return found
    norm = norm_behind(projection.part, walk, forward)
    return None if norm is None else _gathered(projection, kept, targets, forward, norm)


def _gathered(
    projection: Projection, kept: Tensor, targets: Sequence[Tensor], forward: Forward, norm: nn.Module | None
) -> tuple[Tensor, Tensor] | None:
    """Both means over all batches, through `norm` where there is one."""
    total = GramSum()
    for number, target in enumerate(targets):
        passage = projection.run(forward, number, norm)
        if not passage.junction.joined or passage.rows_NF is None:
            return None
        a_NF = passage.rows_NF[:, kept.to(passage.rows_NF.device)]
        e_NG = ((target - passage.end) / passage.junction.scale).reshape(-1, target.shape[-1])
        rows = (a_NF, e_NG) if norm is None else _before_norm(a_NF, e_NG, passage)
        if rows is None:
            return None
        total.add(*rows)
    return total.means()


def _before_norm(a_NF: Tensor, e_NG: Tensor, passage: Passage) -> Rows | None:
    """Features as the norm scales their tokens, errors in what its weight makes of them."""
    given, own = passage.junction.given, passage.junction.own
    scales = None if given is None or own is None else scales_of(given, own)
    if scales is None:
        return None
    token, feature = scales
    return a_NF.double() * token, torch.where(feature != 0, e_NG.double() / feature, 0)


def end_error(targets: Sequence[Tensor], walk: Walk, forward: Forward) -> float:
    """Mean square of what lies between the states that the current Block ends on and those it should."""
    total, count = 0.0, 0
    for number, target in enumerate(targets):
        apart = walk.run(forward, number) - target
        total, count = total + float(apart.double().square().sum()), count + apart.numel()
    return total / count
