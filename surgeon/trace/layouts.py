"""From the Term of a dim to the Layout of every Atom in it."""

from __future__ import annotations

from surgeon.graph import Layout, Mode
from surgeon.trace.terms import Atom, Product, Term, resolve

__all__ = ["placements"]


def placements(term: Term) -> list[tuple[Atom, Layout]]:
    """Every occurrence of every Atom larger than one in `term`, with the positions it owns."""
    found: list[tuple[Atom, Layout]] = []
    _walk(resolve(term), 0, 1, (), (), found)
    return found


def _walk(
    term: Term,
    offset: int,
    stride: int,
    outer: tuple[Mode, ...],
    inner: tuple[Mode, ...],
    found: list[tuple[Atom, Layout]],
) -> None:
    """`term` lies at `offset` with unit `stride`, nested between the loops `outer` and `inner`."""
    if isinstance(term, Atom):
        if term.size > 1:
            layout = Layout(offset, (*outer, Mode(term.size, stride), *inner), len(outer))
            found.append((term, layout))
        return
    if isinstance(term, Product):
        modes: list[Mode] = []
        reach = stride
        for part in reversed(term.parts):
            modes.insert(0, Mode(part.size, reach))
            reach *= part.size
        for place, part in enumerate(term.parts):
            before, after = tuple(modes[:place]), tuple(modes[place + 1 :])
            _walk(part, offset, modes[place].stride, (*outer, *before), (*after, *inner), found)
        return
    for part in term.parts:
        _walk(part, offset, stride, outer, inner, found)
        offset += part.size * stride
