"""Answers are found once; without whoever finds them, only what is known is answered."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from surgeon.plan import AnsweredLimits, Answers, DropBlock, Keep, Plan, Refusal, Unanswered, structure_of
from tests.conftest import llama_config
from tests.handmade import llama_graph

NAMES = ("a", "b", "c")


class Counting:
    """Limits that tie all, allow even counts, and count how often they are asked."""

    def __init__(self):
        self.asked = 0

    def tied(self, names):
        self.asked += 1
        return (tuple(names),)

    def refuse(self, sizes):
        self.asked += 1
        odd = [count for count in sizes.values() if count % 2]
        return Refusal("odd", lambda: (odd[0] - 1, odd[0] + 1)) if odd else None

    def nearest(self, names, count, sizes):
        self.asked += 1
        return (count - count % 2,)


def ask(limits):
    return (
        limits.tied(NAMES),
        limits.refuse({"a": 2}),
        limits.refuse({"a": 3, "b": 2}),
        limits.refuse({"a": 3, "b": 2}).nearest,
        limits.nearest(NAMES, 5, {"d": 2}),
    )


def test_limits_are_asked_once_and_answered_without_them():
    answers, inner = Answers(), Counting()
    found = ask(AnsweredLimits(answers, inner))
    assert found == ask(Counting())
    asked = inner.asked
    assert ask(AnsweredLimits(answers, inner)) == found
    assert inner.asked == asked
    kept = Answers(json.loads(json.dumps(answers.known)))
    assert ask(AnsweredLimits(kept)) == found
    assert AnsweredLimits(kept).refuse({"b": 2, "a": 3}) == found[2]


@pytest.mark.parametrize(
    "question",
    [
        lambda limits: limits.tied(("a", "b")),
        lambda limits: limits.refuse({"a": 4}),
        lambda limits: limits.refuse({"a": 5}).nearest,
        lambda limits: limits.nearest(NAMES, 5, {}),
        lambda limits: limits.nearest(NAMES, 4, {"d": 2}),
    ],
)
def test_what_is_not_known_is_not_made_up(question):
    answers = Answers()
    ask(AnsweredLimits(answers, Counting()))
    AnsweredLimits(answers, Counting()).refuse({"a": 5})  # and what is near was not asked
    with pytest.raises(Unanswered):
        question(AnsweredLimits(answers))


@pytest.fixture
def graph():
    return llama_graph(llama_config())


def plan(graph, *edits):
    return Plan(graph.model_type, edits)


def test_indices_of_weights_count_and_nothing_else(graph):
    one = plan(graph, Keep("layers.0.mlp.ffn", (0, 1, 2), 0), Keep("layers.1.mlp.ffn", (0, 1), 0))
    alike = plan(graph, Keep("layers.1.mlp.ffn", (5, 7), 1), Keep("layers.0.mlp.ffn", (3, 4, 9), 2))
    fewer = plan(graph, Keep("layers.0.mlp.ffn", (0, 1, 2), 0), Keep("layers.1.mlp.ffn", (0,), 0))
    shallow = plan(graph, *one.edits, DropBlock("model.layers.1", 0))
    assert structure_of(one, graph) == structure_of(alike, graph)
    assert len({repr(structure_of(each, graph)) for each in (one, fewer, shallow)}) == 3


def test_which_indices_stay_counts_where_more_than_weights_tells_them_apart(graph):
    name = "layers.0.mlp.ffn"
    param = graph.group(name).sites[0].param
    computed = replace(graph.parameters[param], buffer=True)
    beside = replace(graph, parameters={**graph.parameters, param: computed})
    kept = [plan(graph, Keep(name, (0, first), 0)) for first in (1, 2)]
    assert structure_of(kept[0], graph) == structure_of(kept[1], graph)
    assert structure_of(kept[0], beside) != structure_of(kept[1], beside)
    ports = [group.name for group in graph.groups if group.ports]
    for port in ports:
        one, other = (plan(graph, Keep(port, (0, first), 0)) for first in (1, 2))
        assert structure_of(one, graph) != structure_of(other, graph)
