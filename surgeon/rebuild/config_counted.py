"""Which config field counts the blocks of a Stack: one less takes away exactly one block's tensors.

It is a number, or a list that has as many entries. What goes along is found the same way: lists with an
entry a block, lists of block numbers, mappings keyed by them, counts of first or last blocks. Not here: what
is done with such a field (`config_depth`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace

from transformers import PreTrainedConfig

from surgeon.errors import RebuildError
from surgeon.graph import Graph
from surgeon.rebuild.config_depth import Depth, replaced
from surgeon.rebuild.config_tree import (
    Path,
    entry,
    keyed_beside,
    leaves,
    list_sizes,
    lists_beside,
    numbered_beside,
    vary,
)
from surgeon.rebuild.rebuild import members_of
from surgeon.rebuild.signature import Signature, measure

__all__ = ["find_depths"]

Blocks = tuple[str, ...]
"""Module paths of the blocks at one place, one in each Stack that a field counts."""


def find_depths(config: PreTrainedConfig, graph: Graph) -> tuple[Depth, ...]:
    """For every Stack the field that counts its blocks; a Stack that no field counts is left out."""
    whole = measure(config)
    # Lists first: where one counts alone, a number that goes along with it is another's.
    counts = list_sizes(config) | {p: value for p, value in leaves(config).items() if type(value) is int}
    depths = {stack.container: len(members_of(stack.container, graph)) for stack in graph.stacks}
    found: list[Depth] = []
    for container, blocks in depths.items():
        known = {name for depth in found for name in depth.containers}
        alike = [name for name, other in depths.items() if other == blocks and name not in known]
        paths = [path for path, value in counts.items() if value == blocks]
        # Alone, else with the others of this depth: one field may count the blocks of all of them.
        tried = itertools.product(dict.fromkeys(((container,), tuple(alike))), paths)
        of_these = (_depth(path, config, names, graph, whole) for names, path in tried)
        depth = None if container in known else next(filter(None, of_these), None)
        found += [depth] if depth else []
    return tuple(found)


def _depth(
    path: Path, config: PreTrainedConfig, containers: tuple[str, ...], graph: Graph, whole: Signature
) -> Depth | None:
    """The Depth of the field at `path`; None where it does not count the blocks in these containers."""
    places = list(zip(*(members_of(container, graph) for container in containers), strict=True))
    # Lists of another Stack have as many entries where that has as many blocks.
    for lists in dict.fromkeys((lists_beside(config, path), ())):
        depth = Depth(path, containers, len(places), lists)
        depth = replace(depth, keyed=_keyed(depth, config, whole))
        if _counts(depth, config, places, graph, whole):
            depth = _only_lists_per_block(depth, config, whole)
            members = _lists_of_blocks(depth, config, places, whole)
            firsts, lasts = _counts_of_ends(depth, config, places, whole)
            return replace(depth, members=members, firsts=firsts, lasts=lasts)
    return None


def _counts(
    depth: Depth, config: PreTrainedConfig, places: Sequence[Blocks], graph: Graph, whole: Signature
) -> bool:
    """Whether one block less takes away exactly one block of each Stack, or one more adds exactly one.

    It is the last block as a rule; another where the last ones are of a sort of their own.
    Buffers that the model computes for itself (a table for the blocks of one sort) may go along.
    """
    computed = {name for name, p in graph.parameters.items() if p.buffer and not p.stored}
    for kept in _trials(depth):
        try:
            other = measure(depth.resize(config, kept))
        except RebuildError:
            continue
        names, now = whole.shapes.keys(), other.shapes.keys()
        fewer = len(kept) < depth.blocks
        large, small = (names, now) if fewer else (now, names)
        more = tuple(f"{container}.{depth.blocks}" for container in depth.containers)
        every = places if fewer else (*places, more)
        left = (_without(every, at, large) for at in reversed(range(len(every))))
        return not names ^ now <= computed and any(small ^ expected <= computed for expected in left)
    return False


def _without(places: Sequence[Blocks], place: int, names: Set[str]) -> Set[str]:
    """Names of tensors where the blocks at `place` are gone and those after them have moved up."""
    now = {
        block: moved
        for at, blocks in enumerate(places)
        for block, moved in zip(blocks, places[at - (at > place)], strict=True)
    }
    gone = _heads(places[place])
    return {replaced(name, now) for name in names if not name.startswith(gone)}


def _heads(blocks: Blocks) -> tuple[str, ...]:
    return tuple(f"{block}." for block in blocks)


def _trials(depth: Depth) -> Iterator[Sequence[int]]:
    """Blocks to keep on trial: without the last, with the last or first twice; validators refuse some."""
    every = range(depth.blocks)
    if depth.blocks > 1:
        yield every[:-1]
    yield (*every, depth.blocks - 1)
    yield (*every, 0)


def _only_lists_per_block(depth: Depth, config: PreTrainedConfig, whole: Signature) -> Depth:
    """The Depth without lists that have as many entries as there are blocks only by chance."""
    kept = next(kept for kept in _trials(depth) if _builds(depth, config, kept))
    lists: list[Path] = []
    for path in depth.lists:
        others = tuple(p for p in depth.lists if p != path)
        needed = not _builds(replace(depth, lists=others), config, kept)
        if needed or _reaches_block(path, config, depth, whole):
            lists.append(path)
    return replace(depth, lists=tuple(lists))


def _builds(depth: Depth, config: PreTrainedConfig, kept: Sequence[int]) -> bool:
    try:
        measure(depth.resize(config, kept))
    except RebuildError:
        return False
    return True


def _reaches_block(path: Path, config: PreTrainedConfig, depth: Depth, whole: Signature) -> bool:
    """Whether another value in the list's last entry changes anything in the last block."""
    entries = entry(config, path)
    assert isinstance(entries, list)
    last = entries[depth.blocks - 1]
    others = [value for at, value in enumerate(entries) if value != last and value not in entries[:at]]
    for value in [*others, last * 2] if type(last) is int else others:
        try:
            other = measure(vary(config, {(*path, depth.blocks - 1): value}))
        except RebuildError:
            continue
        if other != whole:
            return True
    return False


def _keyed(depth: Depth, config: PreTrainedConfig, whole: Signature) -> tuple[Path, ...]:
    """Mappings with numbers of blocks as keys that decide anything: the labels of a classifier do not."""
    found: list[Path] = []
    for path in keyed_beside(config, depth.path):
        try:
            decides = measure(vary(config, {path: {}})) != whole
        except RebuildError:
            decides = True
        if decides:
            found.append(path)
    return tuple(found)


def _counts_of_ends(
    depth: Depth, config: PreTrainedConfig, places: Sequence[Blocks], whole: Signature
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Numbers that count first blocks of another sort, and numbers that count last ones.

    One less changes exactly the last of those that are counted, one more the next, and no larger number
    that one: a width that only this block has, of as many heads as it has blocks up to it, changes it
    either way.
    """
    firsts: list[Path] = []
    lasts: list[Path] = []
    for path, value in leaves(config).items():
        beside = path[:-1] == depth.path[:-1] and path != depth.path
        if not (beside and type(value) is int and 0 < value <= len(places)):
            continue
        less, more, many = (_moved(config, {path: n}, whole) for n in (value - 1, value + 1, value * 2))
        for order, found in ((places, firsts), (places[::-1], lasts)):
            own = _heads(order[value - 1])
            following = _heads(order[value]) if value < len(order) else ()
            if less and _all_in(less, own) and _all_in(more, following) and not _any_in(many, own):
                found.append(path)
                break
    return tuple(firsts), tuple(lasts)


def _all_in(names: Set[str], heads: tuple[str, ...]) -> bool:
    return all(f"{name}.".startswith(heads) for name in names)


def _any_in(names: Set[str], heads: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(heads) for name in names)


def _moved(config: PreTrainedConfig, changes: Mapping[Path, object], whole: Signature) -> set[str]:
    """Names of tensors and modules that are otherwise with these changes; none where they are refused."""
    try:
        other = measure(vary(config, changes))
    except RebuildError:
        return set()
    return {name for name, _ in whole.shapes.items() ^ other.shapes.items()} | {
        path for (path, _), _ in whole.numbers.items() ^ other.numbers.items()
    }


def _lists_of_blocks(
    depth: Depth, config: PreTrainedConfig, places: Sequence[Blocks], whole: Signature
) -> tuple[Path, ...]:
    """Lists of block numbers: an entry less changes that block and nothing else."""
    found: list[Path] = []
    for path, numbers in numbered_beside(config, depth.path).items():
        if path in depth.lists:
            continue
        moved = _moved(config, {path: numbers[1:]}, whole)
        if moved and all(f"{name}.".startswith(_heads(places[numbers[0]])) for name in moved):
            found.append(path)
    return tuple(found)
