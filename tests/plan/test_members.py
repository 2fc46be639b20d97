"""Regrouped Axes in plans and limits: everything is said of their members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from surgeon.errors import ConflictError
from surgeon.graph import Graph
from surgeon.passes.regroup import Regroup
from surgeon.plan import (
    DropBlock,
    GroupedLimits,
    Keep,
    Limits,
    Plan,
    Refusal,
    Unlimited,
    check_plan,
    cuts_of,
    kept_of,
    plan_document,
    plan_from_document,
    sizes,
    traced_edits,
)
from tests.conftest import llama_config
from tests.handmade import llama_graph

TRACED = llama_graph(llama_config())


@pytest.fixture(scope="module")
def tied() -> Graph:
    return Regroup.model_validate({"select": {"kind": "ffn", "blocks": "1:"}}).run(TRACED)


NAME = "layers.*.mlp.ffn"
MEMBERS = ("layers.1.mlp.ffn", "layers.2.mlp.ffn")


def test_a_keep_of_a_regrouped_axis_replays_on_a_fresh_trace(tied):
    edits = traced_edits([Keep(NAME, (0, 5), 3), DropBlock("model.layers.0", 4)], tied)
    assert edits == (*(Keep(name, (0, 5), 3) for name in MEMBERS), DropBlock("model.layers.0", 4))
    plan = Plan("llama", edits)
    check_plan(plan, tied)
    check_plan(plan, TRACED)
    cuts, same = cuts_of(plan, tied), cuts_of(plan, TRACED)
    assert {p: {d: k.tolist() for d, k in dims.items()} for p, dims in cuts.items()} == {
        p: {d: k.tolist() for d, k in dims.items()} for p, dims in same.items()
    }
    assert plan_from_document(plan_document(plan, tied), TRACED) == plan


def test_kept_indices_of_a_regrouped_axis_are_those_that_all_members_have_left(tied):
    plan = Plan("llama", (Keep(MEMBERS[0], tuple(range(10)), 0), Keep(MEMBERS[1], tuple(range(5, 40)), 0)))
    assert kept_of(plan, tied.group(NAME)) == tuple(range(5, 10))
    assert sizes(plan, tied)[NAME] == 5
    plan.add(traced_edits([Keep(NAME, (6, 8), 1)], tied))
    with pytest.raises(ConflictError, match="step 1 keeps 1 indices"):
        plan.add(traced_edits([Keep(NAME, (4, 6), 1)], tied))


class OneField(Unlimited):
    """A config in which one field holds every ffn and nothing else is held together."""

    def tied(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        ffn = tuple(name for name in names if name.endswith("ffn"))
        return (ffn, *((name,) for name in names if name not in ffn))

    def refuse(self, sizes: Mapping[str, int]) -> Refusal | None:
        counts = {size for name, size in sizes.items() if name.endswith("ffn")}
        return Refusal(f"counts {sorted(counts)}") if len(counts) > 1 else None

    def nearest(self, names: Sequence[str], count: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        assert all("*" not in name for name in (*names, *sizes))
        return (count - 1, count + 1)


def test_limits_are_asked_about_members(tied):
    limits = GroupedLimits(OneField(), tied)
    assert isinstance(limits, Limits)
    assert limits.tied((NAME, "hidden", "layers.0.mlp.ffn")) == ((NAME, "layers.0.mlp.ffn"), ("hidden",))
    assert limits.refuse({NAME: 8, "layers.0.mlp.ffn": 8}) is None
    assert limits.refuse({NAME: 8, "layers.0.mlp.ffn": 9}) == Refusal("counts [8, 9]")
    assert limits.nearest((NAME,), 8, {"layers.0.mlp.ffn": 8}) == (7, 9)


def test_without_limits_each_axis_stands_alone():
    limits = Unlimited()
    assert limits.tied(("a", "b")) == (("a",), ("b",))
    assert limits.refuse({"a": 3}) is None
    assert limits.nearest(("a",), 3, {}) == (3,)
