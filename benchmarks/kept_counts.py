"""How many of an Axis a round trip keeps: about three quarters, moved to what the config can express."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from surgeon.rebuild.config_limits import ConfigLimits

__all__ = ["KEPT", "nearest_smaller", "share_of"]

KEPT = 0.75
"""Share that stays, moved to the nearest count that the config can express."""


def nearest_smaller(
    limits: ConfigLimits, tied: Sequence[str], size: int, others: Mapping[str, int]
) -> int | None:
    """The count nearest to the kept share that the config can express and that cuts something."""
    wanted = share_of(size, KEPT)
    found = [count for count in limits.nearest(tied, wanted, others) if 0 < count < size]
    return min(found, key=lambda count: abs(count - wanted)) if found else None


def share_of(size: int, share: float) -> int:
    """That share of a size of two or more, but neither nothing nor all of it."""
    return min(size - 1, max(1, round(size * share)))
