"""The pass contract: order of the calls, and what no pass may do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

import pytest

from surgeon.errors import PassError, SelectorError
from surgeon.graph import Graph, Parameter
from surgeon.passes import GraphPass, passes, run_passes
from tests.conftest import llama_config
from tests.handmade import llama_graph

GRAPH = llama_graph(llama_config())


def rewriting(change: Callable[[Graph], object]) -> GraphPass:
    """A pass whose rewrite is `change`."""

    class Changed(GraphPass):
        op: Literal["changed"] = "changed"

        def rewrite(self, graph: Graph) -> Graph:
            return change(graph)  # type: ignore[return-value]

    return Changed()


def drop_site(graph: Graph) -> Graph:
    return graph.map_groups(lambda g: replace(g, sites=g.sites[:-1]) if g.name == "layers.1.mlp.ffn" else g)


def split(graph: Graph) -> Graph:
    whole = graph.group("layers.1.mlp.ffn")
    first = replace(whole, sites=whole.sites[:1])
    second = replace(whole, axis=replace(whole.axis, name="second"), sites=whole.sites[1:])
    rest = tuple(g for g in graph.groups if g is not whole)
    return replace(graph, groups=(*rest, first, second))


def rename_parameter(graph: Graph) -> Graph:
    parameters = dict(graph.parameters)
    parameters["model.other.weight"] = replace(parameters.pop("model.norm.weight"), name="model.other.weight")
    return replace(graph, parameters=parameters)


def invented_site(graph: Graph) -> Graph:
    one = graph.group("hidden")
    more = (*one.sites, replace(one.sites[0], param="nowhere.weight"))
    return graph.map_groups(lambda g: replace(g, sites=more) if g is one else g)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda graph: None, "pass 'changed': returned NoneType, not a Graph"),
        (drop_site, r"took 'layers\.1\.mlp\.ffn' apart or lost some of its 3 sites"),
        (split, r"took 'layers\.1\.mlp\.ffn' apart"),
        (rename_parameter, r"changed the parameters \['model.norm.weight', 'model.other.weight'\]"),
        (invented_site, r"\['nowhere.weight'\], which do not exist"),
        (lambda graph: replace(graph, groups=graph.groups * 2), "two groups are called"),
        (lambda graph: graph.map_groups(lambda g: g.unlock("because")), r"does not declare: \['because'\]"),
        (lambda graph: 1 / 0, "pass 'changed': failed with ZeroDivisionError"),
    ],
)
def test_what_no_pass_may_do(change, message):
    graph = GRAPH.map_groups(lambda g: g.lock(["because"]))
    with pytest.raises(PassError, match=message):
        rewriting(change).run(graph)


def test_a_change_of_shape_is_found():
    bigger = {**GRAPH.parameters, "model.norm.weight": Parameter("model.norm.weight", (7,))}
    with pytest.raises(PassError, match=r"changed the parameters \['model.norm.weight'\]"):
        rewriting(lambda graph: replace(graph, parameters=bigger)).run(GRAPH)


def test_requires_rewrite_ensures_in_that_order():
    class Recorded(GraphPass):
        op: Literal["recorded"] = "recorded"
        calls: ClassVar[list[str]] = []

        def requires(self, graph: Graph) -> None:
            self.calls.append("requires")

        def rewrite(self, graph: Graph) -> Graph:
            self.calls.append("rewrite")
            return graph

        def ensures(self, before: Graph, after: Graph) -> None:
            self.calls.append("ensures")
            raise PassError("not so")

    with pytest.raises(PassError, match=r"pass 'recorded' \(after lock, unlock\): not so"):
        Recorded().run(GRAPH, earlier=("lock", "unlock"))
    assert Recorded.calls == ["requires", "rewrite", "ensures"]


def test_a_pipeline_runs_in_order_and_shows_every_step():
    lock = passes.get("lock").model_validate({"select": {"kind": "ffn"}, "reason": "a"})
    unlock = passes.get("unlock").model_validate({"select": {"blocks": 1}, "reason": "a"})
    seen: list[tuple[str, int, int]] = []

    def locked(graph: Graph) -> int:
        return sum(group.locked is not None for group in graph.groups)

    after = run_passes(
        (lock, unlock), GRAPH, lambda step, old, new: seen.append((step.op, locked(old), locked(new)))
    )
    assert seen == [("lock", 0, 3), ("unlock", 3, 2)]
    assert locked(after) == 2


def test_the_error_names_the_pass_and_those_before_and_keeps_its_type():
    lock = passes.get("lock").model_validate({"select": {"kind": "ffn"}})
    nothing = passes.get("lock").model_validate({"select": {"kind": "expert"}})
    with pytest.raises(SelectorError, match=r"pass 'lock' \(after lock\): .*selects nothing"):
        run_passes((lock, nothing), GRAPH)


def test_passes_are_values():
    lock = passes.get("lock")
    one, other = (lock.model_validate({"select": {"kind": "ffn"}}) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
