"""What the experts of a cut model should add to the residual stream and do not, as Gram matrices.

The output of routed experts is linear in their last matrices, stacked: the features of a token are, expert
by expert, its gate times its hidden activation, under the router as it is after the cut. A, [tokens,
experts x features], is mostly zeros and is never held: only ``A^T A`` and ``A^T E`` are, where E is the
original's states minus the cut model's, behind the experts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.calibrate.gap import StreamGap
from surgeon.calibrate.gated import Gated
from surgeon.calibrate.gram import GramSum
from surgeon.calibrate.junction import Junction
from surgeon.calibrate.passage import behind
from surgeon.calibrate.taps import Taps
from surgeon.calibrate.walk import Forward, Walk
from surgeon.errors import SurgeonError

__all__ = ["expert_gap"]

_TOLERANCE = 1e-2
"""How far sums of gated outputs may be from what the experts' module gives, relative to the largest."""


def expert_gap(
    outlet: str, kept: Tensor, original: tuple[Walk, Forward], cut: tuple[Walk, Forward]
) -> StreamGap:
    """Measure over all batches; both walks stand before the Block of the experts.

    Args:
        outlet: the stack of the experts' last matrices.
        kept: experts whose features count, ascending.
        original: the walk whose states are aimed at.
        cut: the walk whose states there are.

    Returns:
        Gram matrices over the features of the kept experts, expert by expert.

    Raises:
        SurgeonError: what the experts' module gives is not the sum of their gated outputs.
    """
    module = cut[0].module
    part = module.get_submodule(outlet.rpartition(".")[0])
    taps, seen, choice = Taps(module), [], []
    taps.follow(outlet, (), seen.append)
    total, joined = GramSum(), False
    for number in range(len(cut[0].batches)):
        aim, _ = behind(part, *original, number)
        handles = [*taps.attach(), part.register_forward_pre_hook(_chosen(choice), with_kwargs=True)]
        try:
            seen.clear()
            choice.clear()
            have, _ = behind(part, *cut, number)
        finally:
            for handle in handles:
                handle.remove()
        a_TF = _features(outlet, seen, next(iter(choice), None), have, kept)
        e_TH = (_state(aim) - _state(have)).reshape(len(a_TF), -1) / have.scale
        total.add(a_TF, e_TH)
        joined = have.joined
    return StreamGap(*total.means(), joined)


def _chosen(found: list[Tensor]) -> Callable[..., None]:
    """Keeps the integers that the experts are handed: for each token, whom it goes to."""

    def before(part: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        for given in (*args, *kwargs.values()):
            if isinstance(given, Tensor) and given.ndim == 2 and not given.is_floating_point():
                found.append(given.detach())

    return before


def _state(junction: Junction) -> Tensor:
    if junction.state is None:
        raise SurgeonError(f"{type(junction.part).__name__} did not give a tensor when its block ran")
    return junction.state


def _features(outlet: str, seen: list[Gated], choice: Tensor | None, have: Junction, kept: Tensor) -> Tensor:
    """[tokens, kept experts x features]: gates times what entered the last matrices."""
    if have.own is None or not seen:
        raise _unlike(outlet)
    own_TH = have.own.reshape(-1, seen[0].outputs_NH.shape[-1])
    token_of = _tokens(outlet, seen, choice, own_TH)
    place = torch.full((seen[0].slices,), -1, device=own_TH.device)
    place[kept] = torch.arange(len(kept), device=own_TH.device)
    a_TEF = own_TH.new_zeros(len(own_TH), len(kept), seen[0].rows[outlet].shape[-1])
    for part, token_N in zip(seen, token_of, strict=True):
        gated = part.rows[outlet] * _gates(part, own_TH)
        mine = place[part.slice_N] >= 0
        at = (token_N[mine], place[part.slice_N][mine])
        a_TEF.index_put_(at, gated[mine], accumulate=True)
    return a_TEF.flatten(1)


def _tokens(outlet: str, seen: list[Gated], choice: Tensor | None, own_TH: Tensor) -> list[Tensor]:
    """Of which token each row is: the order of rows whose gated sum is what the module gave."""
    tokens = len(own_TH)
    for order in (_looped, _token_by_token, _expert_by_expert):
        found = [order(part, choice, tokens) for part in seen]
        if any(token_N is None for token_N in found):
            continue
        known = [token_N for token_N in found if token_N is not None]
        total = torch.zeros_like(own_TH)
        for part, token_N in zip(seen, known, strict=True):
            total.index_add_(0, token_N, part.outputs_NH.to(total) * _gates(part, total))
        if float((total - own_TH).abs().max()) <= _TOLERANCE * float(own_TH.abs().max()):
            return known
    raise _unlike(outlet)


def _gates(part: Gated, like: Tensor) -> Tensor:
    ones = part.slice_N.new_ones(len(part.slice_N)) if part.gates_N is None else part.gates_N
    return ones[:, None].to(like)


def _looped(part: Gated, choice: Tensor | None, tokens: int) -> Tensor | None:
    """One expert at a time, its tokens by their place in the choice, then in order."""
    if choice is None or len(choice) != tokens or len(part.slice_N) == 0:
        return None
    found = (choice.T == part.slice_N[0]).nonzero()[:, 1]
    return found if len(found) == len(part.slice_N) else None


def _token_by_token(part: Gated, choice: Tensor | None, tokens: int) -> Tensor | None:
    """All experts of a token side by side."""
    each, over = divmod(part.product_rows, tokens)
    return None if over or not each else part.row_N // each


def _expert_by_expert(part: Gated, choice: Tensor | None, tokens: int) -> Tensor | None:
    """All tokens at every expert."""
    return None if part.product_rows % tokens else part.row_N % tokens


def _unlike(outlet: str) -> SurgeonError:
    return SurgeonError(
        f"what '{outlet}' gives is not added up, token by token, into the output of its own module",
        hint="repair: none for experts of this family",
    )
