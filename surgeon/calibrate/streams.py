"""Which Statistics can be had Block by Block, of a model that does not fit (`streamed`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from surgeon.calibrate.statistic import Statistic
from surgeon.errors import SurgeonError

__all__ = ["check_streams", "streams"]


def streams(key: Statistic, blocks: Sequence[str]) -> bool:
    """Whether `key` can be had Block by Block: what it looks at lies inside of `blocks`, or between them."""
    if key.between:
        return key.between == tuple(blocks)
    inside = tuple(f"{block}." for block in blocks)
    looks = [f"{path}.".startswith(inside) for path in key.places or ()]
    return all(looks) and (key.inside or (key.gradients and bool(looks)))


def check_streams(blocks: Sequence[str], wanted: Collection[Statistic]) -> None:
    """Refuse what is not of these Blocks: it would be missing without a word.

    Raises:
        SurgeonError: which Statistic, and what of it lies elsewhere.
    """
    inside = tuple(f"{block}." for block in blocks)
    for key in wanted:
        if streams(key, blocks):
            continue
        outside = [path for path in key.places or () if not f"{path}.".startswith(inside)]
        if outside:
            raise SurgeonError(
                f"statistic '{key.statistic}' of '{outside[0]}' cannot be streamed: it lies in no block",
                hint="select other axes, or do not stream",
            )
        if key.gradients:
            raise SurgeonError(
                f"statistic '{key.statistic}' of all parameters cannot be streamed: some lie in no block",
                hint="ask for those of blocks, or do not stream",
            )
        raise SurgeonError(f"statistic '{key.statistic}' is not of single blocks", hint="do not stream")
