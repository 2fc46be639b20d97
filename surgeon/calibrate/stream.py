"""The residual stream where a Block takes it in and hands it on, whatever else it takes and returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from surgeon.errors import SurgeonError

__all__ = ["entering", "leaving", "replaced"]


def leaving(output: object) -> Tensor:
    """The stream in what a Block returned."""
    first = output[0] if isinstance(output, tuple) else output
    if not isinstance(first, Tensor):
        raise SurgeonError(f"a block returned {type(output).__name__}, which holds no stream in first place")
    return first


def entering(args: Sequence[object], kwargs: Mapping[str, object], output: object) -> Tensor:
    """The stream in what a Block was given: the first tensor shaped like what it returned."""
    shape = leaving(output).shape
    for given in (*args, *kwargs.values()):
        if isinstance(given, Tensor) and given.shape == shape:
            return given
    raise SurgeonError(f"a block returned {list(shape)} and was given nothing of that shape")


def replaced(output: object, state: Tensor) -> object:
    """What a Block returned, with another stream in its place."""
    return (state, *output[1:]) if isinstance(output, tuple) else state
