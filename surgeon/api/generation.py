"""Generation with the cache computes what one pass without it does: the part of a reload that keeps state.

Where the original's own generation goes wrong too (an encoder that is used as a decoder, a cache that a
family lost), that is said and held against nobody. Not here: loading (`reload`).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from surgeon.errors import VerifyError
from surgeon.rebuild.forward import first_output
from surgeon.rebuild.quiet import quiet_transformers

__all__ = ["GENERATED", "check_generation", "within"]

GENERATED = 7
"""Tokens that are generated with the cache, to compare with a forward pass without one."""

ROUNDING = 10_000
"""Allowed difference in units of the dtype's rounding. State-space layers compute a pass in chunks and a
token as a recurrence, which in float32 are up to 9e-4 apart; a cache that lost something is off by tenths."""

NOISE = 10
"""How many times as far apart as the original's own it may be, where that is close to the limit."""


def check_generation(
    model: PreTrainedModel, prompt: Tensor, original: PreTrainedModel | None = None, count: int = GENERATED
) -> str:
    """Generate `count` tokens after `prompt` [1, length] with the cache; what came of it, in words.

    Raises:
        VerifyError: it fails or computes something else, and the original does not.
    """
    try:
        apart = _cached(model, prompt, count)
    except VerifyError as error:
        if original is None:
            raise
        own = _own(original, prompt, count)
        if own is not None:
            apart = _cached(model, prompt, count, NOISE * own)
            return f"{_said(count, apart)}, the original's by {own:.1e}"
        return f"generation with the cache goes wrong, and so it does with the original: {error.message}"
    return _said(count, apart)


def _said(count: int, apart: float) -> str:
    return f"{count} tokens generated with the cache: logits differ by {apart:.1e} from one pass without"


def _own(original: PreTrainedModel, prompt: Tensor, count: int) -> float | None:
    """The same difference of the original; None where its generation goes wrong."""
    try:
        return _cached(original, prompt.to(next(original.parameters()).device), count)
    except VerifyError:
        return None


@torch.no_grad()
def _cached(model: PreTrainedModel, prompt: Tensor, count: int, allowed: float = 0.0) -> float:
    """Relative difference of the logits, generated step by step and computed at once.

    Raises:
        VerifyError: it fails, or they are further apart than rounding and `allowed`.
    """
    two_sided = bool(model.config.is_encoder_decoder)
    kept: Any = model.generation_config
    start = {"decoder_start_token_id": 0} if two_sided and kept.decoder_start_token_id is None else {}
    try:
        with quiet_transformers():
            written = cast(Any, model).generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_logits=True,
                **start,
            )
        fed = {"input_ids": prompt, "decoder_input_ids": written.sequences}
        whole = model(**(fed if two_sided else {"input_ids": written.sequences}), use_cache=False)
    except Exception as error:  # generation runs foreign code, which may raise anything
        words = " ".join(str(error).split())
        raise VerifyError(f"generation with the cache fails: {type(error).__name__}: {words}") from error
    got = torch.stack(written.logits, 1)
    want = first_output(whole).value[:, -count - 1 : -1]
    tolerance = max(ROUNDING * torch.finfo(model.dtype).eps, allowed)
    return within(
        got.to(want.dtype), want, tolerance, "cached generation differs from a pass without a cache"
    )


def within(got: Tensor, want: Tensor, tolerance: float, what: str) -> float:
    """The difference of two tensors, relative to the largest entry of `want`.

    Raises:
        VerifyError: it is more than `tolerance`.
    """
    largest = float(want.abs().max())
    apart = float((got - want).abs().max()) / (largest or 1.0)
    if not apart <= tolerance:
        raise VerifyError(f"{what} by {apart:.3g} of the largest; allowed is {tolerance:.1e}")
    return apart
