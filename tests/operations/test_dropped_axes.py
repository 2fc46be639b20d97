"""Steps behind one that drops layers: what lies in these is nobody's concern."""

from __future__ import annotations

import pytest

from surgeon.errors import SelectorError
from surgeon.operations.drop_blocks import DropBlocks
from surgeon.operations.remove import Remove
from surgeon.plan import LeftLimits, Refusal
from surgeon.rebuild import apply_plan, compare, probe_tokens
from tests.operations.depth import model_of, state_of


def remove(**options) -> Remove:
    return Remove.model_validate({"op": "remove", "criterion": "magnitude", **options})


@pytest.fixture(scope="module")
def dense():
    return model_of("dense")


@pytest.fixture(scope="module")
def state(dense):
    step = DropBlocks.model_validate({"op": "drop_blocks", "drop": [1, 4]})
    return step.run(state_of(dense))[0]


def test_only_what_is_left_is_cut_and_the_config_follows(dense, state):
    after, record = remove(select={"kind": "ffn"}, keep={"fraction": 0.5}).run(state)
    assert sorted(after.plan.kept()) == [f"layers.{place}.mlp.ffn" for place in (0, 2, 3, 5)]
    assert len(record.choices) == 4
    small, _ = apply_plan(dense, after.plan, state.graph)
    assert small.config.intermediate_size == 20
    assert compare(dense, small, after.plan, state.graph, probe_tokens(dense)).require()


def test_a_selection_of_what_is_gone_is_refused(state):
    with pytest.raises(SelectorError, match="went with blocks that steps before step 1 dropped"):
        remove(select={"kind": "ffn", "blocks": [1, 4]}, keep={"fraction": 0.5}).run(state)


class OneField:
    """Limits in which all names share one count, which must be even."""

    def tied(self, names):
        return (tuple(names),)

    def refuse(self, sizes):
        counts = set(sizes.values())
        return None if len(counts) == 1 and min(counts) % 2 == 0 and len(sizes) == 3 else Refusal("no")

    def nearest(self, names, count, sizes):
        return (count - count % 2,) if len(names) == 3 and not sizes else ()


def test_what_is_gone_comes_along_where_one_field_holds_all():
    limits = LeftLimits(OneField(), ("gone",))
    assert limits.refuse({"a": 4, "b": 4}) is None
    assert limits.refuse({"a": 5, "b": 5}) == Refusal("no")
    assert limits.nearest(("a", "b"), 5, {}) == (4,)
    assert limits.tied(("a", "b")) == (("a", "b"),)
