"""Depth: a config field that counts blocks; and the shallowest config that shows every block.

Blocks of the same shapes teach nothing new, so widths are probed on a copy that is only as deep as
it takes to see each sort of block once: an 80-layer model is probed at the cost of one layer. Not here:
how such a field is found (`config_counted`), widths (`config_probe`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedConfig

from surgeon.errors import RebuildError
from surgeon.graph import Graph
from surgeon.rebuild.config_tree import (
    Path,
    resize_depth,
)
from surgeon.rebuild.rebuild import members_of
from surgeon.rebuild.signature import Signature, measure

__all__ = ["Depth", "Shallow", "replaced", "shallow_copy"]


@dataclass(frozen=True)
class Depth:
    """The field that counts the blocks of one Stack, or of several that are as deep as each other.

    Attributes:
        path: where the field lies; a number, or a list with one entry per block.
        containers: those of the Stacks.
        blocks: how many blocks it counts in each.
        lists: fields beside it with one entry per block.
        members: fields beside it that list some blocks by their numbers.
        keyed: mappings beside it whose keys are numbers of blocks.
        firsts: fields beside it that say how many of the first blocks are of another sort.
        lasts: the same of the last blocks.
    """

    path: Path
    containers: tuple[str, ...]
    blocks: int
    lists: tuple[Path, ...] = ()
    members: tuple[Path, ...] = ()
    keyed: tuple[Path, ...] = ()
    firsts: tuple[Path, ...] = ()
    lasts: tuple[Path, ...] = ()

    @property
    def beside(self) -> tuple[Path, ...]:
        """Fields that follow which blocks are left."""
        return (*self.lists, *self.members, *self.keyed, *self.firsts, *self.lasts)

    def resize(self, config: PreTrainedConfig, keep: Sequence[int]) -> PreTrainedConfig:
        """A new config with only the blocks `keep`; a RebuildError where its validators refuse."""
        ends = {"firsts": self.firsts, "lasts": self.lasts}
        return resize_depth(config, self.path, keep, self.lists, self.members, self.keyed, **ends)


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
        return replaced(name, self.sorts)

    def shown(self, name: str) -> str:
        """The name, in the shallow model, of the tensor that stands for the tensor `name`."""
        return replaced(name, self.stands_for)


def replaced(name: str, blocks: Mapping[str, str]) -> str:
    """`name` with the longest path in front of it that `blocks` knows replaced."""
    steps = name.split(".")
    for place in range(len(steps), 0, -1):
        block = ".".join(steps[:place])
        if block in blocks:
            return ".".join([blocks[block], *steps[place:]])
    return name


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
            by_stack = [_sorts(graph, container) for container in depth.containers]
            last = max(
                place for sorts in by_stack for place, name in enumerate(sorts) if name in sorts.values()
            )
            small = depth.resize(small, range(last + 1))
            for sorts in by_stack:
                firsts |= sorts
                places = enumerate(sorts.items())
                stands_for |= {name: name if place <= last else first for place, (name, first) in places}
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
