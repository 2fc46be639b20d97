"""Whether the cache that stock transformers makes of a config still works once blocks are gone.

In a hybrid, attention layers tell how long the cached sequence is. Without the last of them a forward
pass with a cache fails in the family's own code, long after the blocks were chosen; the cache says so at
once. Not here: generating with the whole model (`surgeon.api.generation`).
"""

from __future__ import annotations

from transformers import DynamicCache, PreTrainedConfig

__all__ = ["cache_fault"]


def cache_fault(before: PreTrainedConfig, after: PreTrainedConfig) -> str | None:
    """Why a cache made of `after` cannot tell its length; None where it can, or one of `before` cannot."""
    return _fault(after) if _fault(before) is None else None


def _fault(config: PreTrainedConfig) -> str | None:
    try:
        DynamicCache(config=config).get_seq_length()
    except Exception as error:  # a config is foreign code
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None
