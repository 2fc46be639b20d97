"""What a projection of a cut model should add to the residual stream and does not, as Gram matrices.

On two walks side by side: E, the original's states behind the projection minus the cut model's, and A,
what enters the projection there. Streamed over tokens: only ``A^T A`` and ``A^T E`` are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surgeon.calibrate.gram import GramSum
from surgeon.calibrate.junction import Junction
from surgeon.calibrate.passage import Passage, Projection, behind
from surgeon.calibrate.walk import Forward, Walk
from surgeon.errors import SurgeonError

__all__ = ["Aims", "Rows", "StreamGap", "states_behind", "stream_gap", "stream_rows"]


@dataclass(frozen=True, eq=False)
class StreamGap:
    """``A^T A / n`` [features, features] and ``A^T E / n`` [features, outputs], float64.

    `joined` is False where the projection's output meets something else than the stream, so that E is of
    that output itself.
    """

    gram: Tensor
    cross: Tensor
    joined: bool


@dataclass(frozen=True, eq=False)
class Aims:
    """States of a model behind a projection, and those that its Block ends on, batch by batch."""

    behind: list[Tensor]
    ends: list[Tensor]


def states_behind(param: str, walk: Walk, forward: Forward) -> Aims:
    """What the stream is behind the projection `param`, in the Block that `walk` stands before.

    Raises:
        SurgeonError: the projection did not run as the output of a module of its own.
    """
    part = walk.module.get_submodule(param.rpartition(".")[0])
    aims = Aims([], [])
    for number in range(len(walk.batches)):
        junction, end = behind(part, walk, forward, number)
        aims.behind.append(walk.keep(_state(junction)))
        aims.ends.append(walk.keep(end))
    return aims


@dataclass(frozen=True, eq=False)
class Rows:
    """Of one batch A [tokens, features] and E [tokens, outputs], and whether they are `joined`."""

    a: Tensor
    e: Tensor
    joined: bool


def stream_rows(
    param: str, kept: Tensor, constant: bool, aims: Sequence[Tensor], walk: Walk, forward: Forward
) -> Iterator[Rows]:
    """Measure batch by batch, before the Block of the projection.

    Args:
        param: the projection's matrix.
        kept: features of what enters that count, ascending.
        constant: append a feature that is always 1.
        aims: the original's states behind the projection, batch by batch.
        walk: the cut model, with the states that there are.
        forward: runs the cut model.

    Raises:
        SurgeonError: the projection did not run as the output of a module of its own.
    """
    projection = Projection(param, walk)
    for number, aim in enumerate(aims):
        have = projection.run(forward, number)
        yield Rows(*_rows(param, aim, have, kept, constant), have.junction.joined)


def stream_gap(measured: Iterable[Rows]) -> StreamGap:
    """Gram matrices of what `stream_rows` gives."""
    total, joined = GramSum(), False
    for rows in measured:
        total.add(rows.a, rows.e)
        joined = rows.joined
    return StreamGap(*total.means(), joined)


def _state(junction: Junction) -> Tensor:
    if junction.state is None:
        raise SurgeonError(
            f"{type(junction.part).__name__} did not give a tensor when its block ran",
            hint="repair: {repair: refit, target: layer}",
        )
    return junction.state


def _rows(param: str, want: Tensor, have: Passage, kept: Tensor, constant: bool) -> tuple[Tensor, Tensor]:
    """A [tokens, features] and E [tokens, outputs] of one batch."""
    got = _state(have.junction)
    error = (want - got).reshape(-1, got.shape[-1]) / have.junction.scale
    if have.rows_NF is None or len(have.rows_NF) != len(error):
        raise SurgeonError(
            f"'{param}' is not used once a token by a module whose output it gives",
            hint="repair: {repair: refit, target: layer}",
        )
    a = have.rows_NF[:, kept.to(error.device)]
    return (torch.cat([a, a.new_ones(len(a), 1)], 1) if constant else a), error
