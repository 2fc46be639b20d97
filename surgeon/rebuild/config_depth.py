"""Which config field counts the blocks of a Stack, and the shallowest config that shows every block.

Blocks of the same shapes teach nothing new, so widths are probed on a copy that is only as deep as
it takes to see each sort of block once: an 80-layer model is probed at the cost of one layer. Both are
measured: a field counts blocks when one less takes away exactly one block's tensors. Not here:
widths (`config_probe`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from transformers import PreTrainedConfig

from surgeon.errors import RebuildError
from surgeon.graph import Graph
from surgeon.rebuild.config_tree import (
    Path,
    entry,
    keyed_beside,
    leaves,
    lists_beside,
    numbered_beside,
    resize_depth,
    vary,
)
from surgeon.rebuild.rebuild import members_of
from surgeon.rebuild.signature import Signature, measure

__all__ = ["Depth", "Shallow", "find_depths", "shallow_copy"]


@dataclass(frozen=True)
class Depth:
    """The field that counts the blocks of one Stack.

    Attributes:
        path: where the field lies.
        container: the Stack's container.
        blocks: how many blocks it counts.
        lists: fields beside it with one entry per block.
        members: fields beside it that list some blocks by their numbers.
        keyed: mappings beside it whose keys are numbers of blocks.
        firsts: fields beside it that say how many of the first blocks are of another sort.
    """

    path: Path
    container: str
    blocks: int
    lists: tuple[Path, ...] = ()
    members: tuple[Path, ...] = ()
    keyed: tuple[Path, ...] = ()
    firsts: tuple[Path, ...] = ()

    def resize(self, config: PreTrainedConfig, keep: Sequence[int]) -> PreTrainedConfig:
        """A new config with only the blocks `keep`; a RebuildError where its validators refuse."""
        return resize_depth(config, self.path, keep, self.lists, self.members, self.keyed, self.firsts)


@dataclass(frozen=True)
class Shallow:
    """A config with a few first blocks, and which of them stands for each block of the whole.

    Attributes:
        config: the shallow config.
        base: Signature of what it builds.
        stands_for: module path of every block: that of the shown block with the same shapes, and of a
            shown block itself.
        sorts: module path of every block: that of the first block with the same shapes.
    """

    config: PreTrainedConfig
    base: Signature
    stands_for: Mapping[str, str]
    sorts: Mapping[str, str] = field(default_factory=dict)

    def first(self, name: str) -> str:
        """The name of the tensor in the first block of the sort that the tensor `name` lies in."""
        return _replaced(name, self.sorts)

    def shown(self, name: str) -> str:
        """The name, in the shallow model, of the tensor that stands for the tensor `name`."""
        return _replaced(name, self.stands_for)


def _replaced(name: str, blocks: Mapping[str, str]) -> str:
    """`name` with the longest path in front of it that `blocks` knows replaced."""
    steps = name.split(".")
    for place in range(len(steps), 0, -1):
        block = ".".join(steps[:place])
        if block in blocks:
            return ".".join([blocks[block], *steps[place:]])
    return name


def find_depths(config: PreTrainedConfig, graph: Graph) -> tuple[Depth, ...]:
    """For every Stack the field that counts its blocks; a Stack that no field counts is left out."""
    whole = measure(config)
    numbers = {path: value for path, value in leaves(config).items() if type(value) is int}
    found: list[Depth] = []
    for stack in graph.stacks:
        blocks = members_of(stack.container, graph)
        for path, value in numbers.items():
            if value == len(blocks):
                depth = Depth(path, stack.container, value, lists_beside(config, path))
                depth = replace(depth, keyed=_keyed(depth, config, whole))
                if _counts(depth, config, blocks, graph, whole):
                    depth = _only_lists_per_block(depth, config, whole)
                    members = _lists_of_blocks(depth, config, blocks, whole)
                    firsts = _counts_of_first(depth, config, blocks, whole)
                    found.append(replace(depth, members=members, firsts=firsts))
                    break
    return tuple(found)


def shallow_copy(config: PreTrainedConfig, graph: Graph, depths: Sequence[Depth]) -> Shallow:
    """The config with as few blocks as show every sort of block; the whole config where that fails.

    It fails where entries of a list give each block its own widths, or where the shallow model's
    blocks have other shapes than the same blocks of the whole one.
    """
    stands_for: dict[str, str] = {}
    firsts: dict[str, str] = {}
    small = config
    try:
        for depth in depths:
            sorts = _sorts(graph, depth.container)
            last = max(place for place, name in enumerate(sorts) if name in sorts.values())
            small = depth.resize(small, range(last + 1))
            firsts |= sorts
            stands_for |= {
                name: name if place <= last else first for place, (name, first) in enumerate(sorts.items())
            }
        base = measure(small)
        if all(base.shapes[name] == graph.parameters[name].shape for name in base.shapes):
            return Shallow(small, base, stands_for, firsts)
    except (RebuildError, KeyError):
        pass
    return Shallow(config, measure(config), {})


def _sorts(graph: Graph, container: str) -> dict[str, str]:
    """For every block the first one whose tensors have the same relative names and shapes."""
    firsts: dict[frozenset, str] = {}
    sorts: dict[str, str] = {}
    for block in members_of(container, graph):
        head = f"{block}."
        shapes = frozenset(
            (name.removeprefix(head), p.shape)
            for name, p in graph.parameters.items()
            if name.startswith(head)
        )
        sorts[block] = firsts.setdefault(shapes, block)
    return sorts


def _counts(
    depth: Depth, config: PreTrainedConfig, blocks: Sequence[str], graph: Graph, whole: Signature
) -> bool:
    """Whether one block less takes away exactly one block, or one more adds exactly one.

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
        every = blocks if fewer else (*blocks, f"{depth.container}.{depth.blocks}")
        left = (_without(every, at, large) for at in reversed(range(len(every))))
        return not names ^ now <= computed and any(small ^ expected <= computed for expected in left)
    return False


def _without(blocks: Sequence[str], place: int, names: Set[str]) -> Set[str]:
    """Names of tensors where the block at `place` is gone and those after it have moved up."""
    now = {block: blocks[at - (at > place)] for at, block in enumerate(blocks)}
    gone = f"{blocks[place]}."
    return {_replaced(name, now) for name in names if not name.startswith(gone)}


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


def _counts_of_first(
    depth: Depth, config: PreTrainedConfig, blocks: Sequence[str], whole: Signature
) -> tuple[Path, ...]:
    """Numbers that, one less, change exactly the last of as many first blocks, and more leave it alone.

    A width that only this block has, of as many heads as it has blocks up to it, changes it either way.
    """
    found: list[Path] = []
    for path, value in leaves(config).items():
        beside = path[:-1] == depth.path[:-1] and path != depth.path
        if beside and type(value) is int and 0 < value <= len(blocks):
            last = f"{blocks[value - 1]}."
            moved = {f"{name}.".startswith(last) for name in _moved(config, {path: value - 1}, whole)}
            more = itertools.chain.from_iterable(
                _moved(config, {path: other}, whole) for other in (value + 1, value * 2)
            )
            if moved == {True} and not any(f"{name}.".startswith(last) for name in more):
                found.append(path)
    return tuple(found)


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
    depth: Depth, config: PreTrainedConfig, blocks: Sequence[str], whole: Signature
) -> tuple[Path, ...]:
    """Lists of block numbers: an entry less changes that block and nothing else."""
    found: list[Path] = []
    for path, numbers in numbered_beside(config, depth.path).items():
        if path in depth.lists:
            continue
        moved = _moved(config, {path: numbers[1:]}, whole)
        if moved and all(f"{name}.".startswith(f"{blocks[numbers[0]]}.") for name in moved):
            found.append(path)
    return tuple(found)
