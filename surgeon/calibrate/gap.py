"""What a projection of a cut model should add to the residual stream and does not, as Gram matrices.

On two walks side by side: E, the original's states behind the projection minus the cut model's, and A,
what enters the projection there. Streamed over tokens: only ``A^T A`` and ``A^T E`` are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surgeon.calibrate.gram import block_gram
from surgeon.calibrate.junction import Junction
from surgeon.calibrate.taps import Entering, Taps
from surgeon.calibrate.walk import Forward, Walk
from surgeon.errors import SurgeonError

__all__ = ["StreamGap", "stream_gap"]


@dataclass(frozen=True, eq=False)
class StreamGap:
    """``A^T A / n`` [features, features] and ``A^T E / n`` [features, outputs], float64.

    `joined` is False where the projection's output meets something else than the stream, so that E is of
    that output itself.
    """

    gram: Tensor
    cross: Tensor
    joined: bool


def stream_gap(
    param: str, kept: Tensor, constant: bool, original: tuple[Walk, Forward], cut: tuple[Walk, Forward]
) -> StreamGap:
    """Measure over all batches; both walks stand before the Block of the projection.

    Args:
        param: the projection's matrix.
        kept: features of what enters that count, ascending.
        constant: append a feature that is always 1.
        original: the walk whose states are aimed at.
        cut: the walk whose states there are.

    Raises:
        SurgeonError: the projection did not run as the output of a module of its own.
    """
    module = cut[0].module
    part = module.get_submodule(param.rpartition(".")[0])
    entered: list[Entering] = []
    taps = Taps(module)
    taps.subscribe((param,), entered.append)
    gram = cross = torch.zeros((), dtype=torch.float64)
    rows, joined = 0, False
    for number in range(len(cut[0].batches)):
        aim = _behind(part, original, number)
        handles = list(taps.attach())
        try:
            entered.clear()
            have = _behind(part, cut, number)
        finally:
            for handle in handles:
                handle.remove()
        a, e = _rows(param, entered, aim, have, kept, constant)
        gram, cross = gram + block_gram(a), cross + block_gram(a, e)
        rows, joined = rows + len(a), have.joined
    return StreamGap(gram / rows, cross / rows, joined)


def _behind(part: torch.nn.Module, walk: tuple[Walk, Forward], number: int) -> Junction:
    junction = Junction(part, walk[0].module.get_submodule(walk[0].blocks[walk[0].at]))
    with junction:
        walk[0].run(walk[1], number)
    return junction


def _state(junction: Junction) -> Tensor:
    if junction.state is None:
        raise SurgeonError(
            f"{type(junction.part).__name__} did not give a tensor when its block ran",
            hint="repair: {repair: refit, target: layer}",
        )
    return junction.state


def _rows(
    param: str, entered: list[Entering], aim: Junction, have: Junction, kept: Tensor, constant: bool
) -> tuple[Tensor, Tensor]:
    """A [tokens, features] and E [tokens, outputs] of one batch."""
    want, got = _state(aim), _state(have)
    error = (want - got).reshape(-1, got.shape[-1]) / have.scale
    if len(entered) != 1 or entered[0].slices is not None or len(entered[0].rows_NF) != len(error):
        raise SurgeonError(
            f"'{param}' is not used once a token by a module whose output it gives",
            hint="repair: {repair: refit, target: layer}",
        )
    a = entered[0].rows_NF[:, kept.to(error.device)]
    return (torch.cat([a, a.new_ones(len(a), 1)], 1) if constant else a), error
