"""What a model's forward takes: tokens alone, and a cache to be handed back."""

from __future__ import annotations

import inspect

from torch import nn

__all__ = ["reads_tokens", "takes_cache"]


def reads_tokens(model: nn.Module) -> bool:
    """Whether token ids are all that it needs; an encoder-decoder wants ids for its decoder too."""
    return not getattr(getattr(model, "config", None), "is_encoder_decoder", False)


def takes_cache(model: nn.Module) -> bool:
    """Whether the cache that one call returns can be handed to the next."""
    return "past_key_values" in inspect.signature(model.forward).parameters
