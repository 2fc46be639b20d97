"""The search: which values of which fields give the planned shapes.

A field that holds widths holds a product of some, so its new value is its old one times the kept
shares of a few of them; fields that move the same dims are tried together (a cluster). Every try is
built on meta. Several combinations may give the right shapes; `config_judge` chooses between them.
Not here: blocks of the whole model, and the ledger (`config_solve`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from surgeon.errors import RebuildError
from surgeon.rebuild.config_judge import odd_fields
from surgeon.rebuild.config_probe import ConfigSpace, Dim, Field
from surgeon.rebuild.config_target import Target, Width
from surgeon.rebuild.config_tree import Path
from surgeon.rebuild.signature import Signature

__all__ = ["Changes", "Search"]

Changes = Mapping[Path, object]


@dataclass
class Search:
    """One search over the fields of `space` for `target`; it remembers what it met, for the refusal.

    Attributes:
        refused: combinations that config or model refuse, with their words.
        closest: the wrong dims of the combination with the fewest, and that combination.
    """

    space: ConfigSpace
    target: Target
    refused: list[tuple[Changes, str]] = field(default_factory=list)
    closest: tuple[tuple[str, ...], Changes] | None = None

    def fitting(self) -> Iterator[Changes]:
        """Combinations whose model has every planned shape, the most plausible first."""
        found = [list(self._fit_cluster(cluster)) for cluster in self.clusters]
        for changes in _merged(found):
            signature = self._measured(changes)
            if signature is not None and not self._wrong(signature):
                yield changes

    @cached_property
    def moved(self) -> frozenset[Dim]:
        """Dims whose planned size differs from the present one."""
        base = self.space.shallow.base.shapes
        return frozenset(
            (name, dim)
            for name, shape in self.target.shapes.items()
            for dim, size in enumerate(shape)
            if size != base[name][dim]
        )

    @cached_property
    def clusters(self) -> tuple[tuple[Field, ...], ...]:
        """Number fields that reach the cut dims, those that reach anything in common together."""
        free = [f for f in self.space.fields if f.stands_for is not None]
        clusters: list[tuple[Field, ...]] = []
        for start in self.space.movers(self.moved):
            if start not in free:
                continue
            cluster = [start]
            free.remove(start)
            for member in cluster:  # grows while it is walked
                near = [f for f in free if _related(member, f)]
                cluster += near
                free = [f for f in free if f not in near]
            clusters.append(tuple(cluster))
        return tuple(clusters)

    def _fit_cluster(self, cluster: Sequence[Field]) -> Iterator[Changes]:
        """Values of the cluster's fields that give all dims that it reaches their planned sizes.

        A combination that is refused is let through where every value is what the planned Axis sizes
        say: it may be accepted together with other clusters.
        """
        reach = frozenset(dim for f in cluster for dim in f.dims)
        doubtful: list[Changes] = []
        for changes in _merged([self._options(f, cluster) for f in cluster]):
            signature = self._measured(changes)
            if signature is None:
                if not odd_fields(cluster, self.target, changes):
                    doubtful.append(changes)
            elif not self._wrong(signature, reach):
                yield changes
        yield from doubtful

    def _options(self, f: Field, cluster: Sequence[Field]) -> list[Changes]:
        """Values worth trying for one field: none that alone gives its own dims another size."""
        if f.stands_for is None:
            return [{}]
        reached = [w for w in self.target.cut if w.dims & f.dims]
        if isinstance(f.stands_for, float) and not reached:
            return [{}]
        reached = reached or [w for w in self.target.cut if any(w.dims & other.dims for other in cluster)]
        values = list(dict.fromkeys([*_scaled(f.stands_for, reached), *self._planned(f)]))
        options: list[Changes] = [{}, *({f.path: v} for v in values if f.implicit or v != f.stands_for)]
        options.sort(key=lambda option: len(odd_fields([f], self.target, option)))
        own = f.dims - {dim for other in cluster if other is not f for dim in other.dims}
        return [option for option in options if self._fits(option, own)]

    def _planned(self, f: Field) -> list[int]:
        """What becomes of dims as large as the field's own number; an Axis may be a part of such a dim."""
        shapes, planned = self.space.shallow.base.shapes, self.target.shapes
        alike = [(name, dim) for name, dim in f.dims if name in planned and shapes[name][dim] == f.stands_for]
        return sorted({planned[name][dim] for name, dim in alike})

    def _fits(self, changes: Changes, dims: frozenset[Dim]) -> bool:
        """Whether these changes give `dims` their planned sizes, or are refused as they stand alone."""
        signature = self._measured(changes) if dims else None
        return signature is None or not self._wrong(signature, dims, tensors=False)

    def _measured(self, changes: Changes) -> Signature | None:
        try:
            signature = self.space.measure(changes)
        except RebuildError as error:
            self.refused.append((changes, error.message))
            return None
        wrong = self._wrong(signature)
        if self.closest is None or len(wrong) < len(self.closest[0]):
            self.closest = (wrong, changes)
        return signature

    def _wrong(
        self, built: Signature, dims: frozenset[Dim] | None = None, *, tensors: bool = True
    ) -> tuple[str, ...]:
        """What differs from the plan, in words: sizes of `dims` (None: all), and tensors that come or go."""
        base, planned = self.space.shallow.base, self.target.shapes
        every = ((name, dim) for name, shape in planned.items() for dim in range(len(shape)))
        absent = self.target.absent
        places = [dim for dim in dims or every if not (absent and dim[0].startswith(absent))]
        faults: list[str] = []
        if tensors:
            odd = sorted(n for n in built.shapes.keys() ^ planned.keys() if not n.startswith(absent))
            faults += [f"{name} is {'built' if name in built.shapes else 'not built'}" for name in odd]
            faults += [f"{name} is tied otherwise" for name in sorted(built.ties.keys() ^ base.ties.keys())]
        for name, dim in places:
            shape = built.shapes.get(name, ())
            if dim < len(shape) and shape[dim] != planned[name][dim]:
                faults.append(f"{name} dim {dim} is built {shape[dim]}, planned {planned[name][dim]}")
        return tuple(faults)


def _related(one: Field, other: Field) -> bool:
    """Whether two fields reach anything in common that depends on both."""
    if one.dims & other.dims or one.tensors & other.tensors:
        return True
    return one.bare != other.bare and bool(one.numbers & other.numbers)


def _scaled(value: int | float, widths: Sequence[Width]) -> Iterator[int | float]:
    """`value` times the kept shares of every subset of the Widths; of an int, only what stays whole."""
    ratios = sorted({w.ratio for w in widths})
    for count in range(len(ratios) + 1):
        for chosen in itertools.combinations(ratios, count):
            share = Fraction(1)
            for ratio in chosen:
                share *= ratio
            if isinstance(value, float):
                yield value * float(share)
            elif (value * share).denominator == 1:
                yield int(value * share)


def _merged(lists: Sequence[Sequence[Changes]]) -> Iterator[Changes]:
    """One of each list, all ways, those first that take what stands early in the lists."""
    places = itertools.product(*(range(len(options)) for options in lists))
    for chosen in sorted(places, key=lambda p: (sum(p), p)):
        parts = [options[place] for options, place in zip(lists, chosen, strict=True)]
        yield {path: value for part in parts for path, value in part.items()}
