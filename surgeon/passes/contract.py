"""The contract of a graph pass: a recipe step that rewrites the Graph and cuts nothing.

A pass is a frozen value whose options are its fields. Its author writes `rewrite`, and where there is
something to demand or to promise, `requires` and `ensures`; `run` calls the three in that order and
checks what holds for every pass:

- the parameters stay what they are, and every traced Group lies whole in one Group of the result:
  tracing proved that its Sites are cut together, a pass may only tie more together;
- a lock is lifted only by a pass that declares it in `lifts`.

Not here: operations, which propose Edits (`surgeon.operations`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator

from surgeon.errors import PassError, SurgeonError
from surgeon.graph import Graph, Group, Site
from surgeon.graph.strict import Strict
from surgeon.registry import Registry

__all__ = ["GraphPass", "passes"]

passes: Registry[type[GraphPass]] = Registry("pass", "surgeon.passes")


class GraphPass(Strict, ABC):
    """A step that rewrites the Graph; a subclass has ``op: Literal["its_name"]`` and its options."""

    op: str

    def requires(self, graph: Graph) -> None:
        """Refuse, with a PassError, a Graph that this pass cannot work on."""
        return

    @abstractmethod
    def rewrite(self, graph: Graph) -> Graph:
        """A new Graph; the given one is immutable."""

    def ensures(self, before: Graph, after: Graph) -> None:
        """Raise a PassError where the result is not what this pass promises."""
        return

    def lifts(self) -> frozenset[str]:
        """The reasons of locks that this pass may take away."""
        return frozenset()

    def run(self, graph: Graph, earlier: tuple[str, ...] = ()) -> Graph:
        """`requires`, `rewrite`, `ensures`, and the checks of the contract.

        Args:
            graph: what to rewrite.
            earlier: names of the passes that ran before, for messages.

        Raises:
            PassError: the pass broke the contract, or failed; other errors of surgeon keep their type.
        """
        where = f"pass '{self.op}' (after {', '.join(earlier)})" if earlier else f"pass '{self.op}'"
        try:
            self.requires(graph)
            after = self.rewrite(graph)
            if not isinstance(after, Graph):
                raise PassError(f"returned {type(after).__name__}, not a Graph")
            broken = list(_broken(graph, after, self.lifts()))
            if broken:
                raise PassError("broke the contract: " + "; ".join(broken))
            self.ensures(graph, after)
        except SurgeonError as error:
            error.message = f"{where}: {error.message}"
            raise
        except Exception as error:
            raise PassError(f"{where}: failed with {type(error).__name__}: {error}") from error
        return after


def _broken(before: Graph, after: Graph, lifts: frozenset[str]) -> Iterator[str]:
    """What a rewrite did that no pass may do."""
    if dict(before.parameters) != dict(after.parameters):
        changed = dict(before.parameters).items() ^ dict(after.parameters).items()
        yield f"it changed the parameters {sorted({name for name, _ in changed})}"
    twice = [name for name, count in Counter(group.name for group in after.groups).items() if count > 1]
    if twice:
        yield f"two groups are called {twice}"
    unknown = {site.param for group in after.groups for site in group.sites} - before.parameters.keys()
    if unknown:
        yield f"sites name the parameters {sorted(unknown)}, which do not exist"
    owners: dict[Site, list[Group]] = {}
    for group in after.groups:
        for site in group.sites:
            owners.setdefault(site, []).append(group)
    for group in before.groups:
        near = owners.get(group.sites[0], []) if group.sites else after.groups
        heirs = [heir for heir in near if set(group.sites) <= set(heir.sites)]
        if not heirs:
            yield f"it took '{group.name}' apart or lost some of its {len(group.sites)} sites"
        for heir in heirs:
            lifted = group.locks - heir.locks - lifts
            if lifted:
                yield f"it lifted a lock of '{group.name}' that it does not declare: {sorted(lifted)}"
