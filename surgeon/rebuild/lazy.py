"""Lazy: a tensor that is described and not yet read, for the rebuild and for transformers' conversions.

Names and layouts on disk differ from those in the module, and transformers translates them with ordinary
tensor functions (stack the experts, join gate and up, split them again). Given Lazy tensors, the same
functions describe where the numbers come from. Selecting from a join selects from its parts, splitting it
where it was joined gives the parts back; so a cut, converted from the disk and back, is again a selection
of tensors on disk wherever it can be one, and what is untouched is the stored tensor itself. What is not
known to be a selection is deferred: computed by torch when it is read.

Not here: the bytes (`surgeon.io`), and which functions are called (transformers, `rebuild`).
"""

from __future__ import annotations

from collections.abc import Mapping

from surgeon.graph.layout import Positions
from surgeon.rebuild.lazy_functions import FUNCTIONS, as_lazy
from surgeon.rebuild.lazy_nodes import RULES, Kept, Lazy, Read, Stored, Value
from surgeon.rebuild.lazy_shapes import Flat, Lifted

__all__ = ["Lazy", "Read", "Stored", "Value", "as_lazy", "selection"]

RULES.update(FUNCTIONS)


def selection(tensor: Lazy) -> tuple[Stored, Mapping[int, Positions]] | None:
    """The stored tensor, and the positions kept of its dims, whose bytes are those of `tensor`.

    None where the bytes have to be computed.
    """
    while isinstance(tensor, Lifted | Flat):
        tensor = tensor.base
    if isinstance(tensor, Stored):
        return tensor, {}
    if isinstance(tensor, Kept):
        found = selection(tensor.base)
        return (found[0], tensor.dims) if found and found[0] is tensor.base else None
    return None
