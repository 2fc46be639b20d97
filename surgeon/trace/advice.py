"""Advice that a model logs about its inputs, which decides nothing that it computes.

transformers compares ids with the padding's to warn of a missing mask. Recorded, that comparison would
look as if the numbers of the ids mattered. Not here: comparisons that the output depends on (`rules`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

__all__ = ["without_advice"]

_ADVICE = "warn_if_padding_and_no_attention_mask"


@contextlib.contextmanager
def without_advice(module: nn.Module) -> Iterator[None]:
    """While open, `module` and its parts do not look at their inputs to warn about them."""
    models = [part for part in module.modules() if isinstance(part, PreTrainedModel)]
    before = {part: vars(part).get(_ADVICE) for part in models}
    try:
        for part in models:
            setattr(part, _ADVICE, _say_nothing)
        yield
    finally:
        for part, own in before.items():
            delattr(part, _ADVICE)
            if own is not None:
                setattr(part, _ADVICE, own)


def _say_nothing(*args: Any, **kwargs: Any) -> None:
    """In the place of a warning."""
