"""Distilling experts: nearer to the original, in what is left only, the same for the same seed."""

from __future__ import annotations

import pytest
import torch

from surgeon.errors import InfeasibleError
from surgeon.operations import operations
from surgeon.plan import cuts_of
from surgeon.rebuild import apply_plan, compare, probe_tokens
from tests.operations.test_remove_experts import GROUPED, PLAIN, outputs, remove, state

BIASED = "softmax of the chosen, biased"
INPUTS = "all experts run, gates on their inputs"


def distil(**fields):
    given = {"op": "distil_experts", "steps": 30, "lr": 0.01, "batch_tokens": 64, **fields}
    return operations.get("distil_experts").model_validate(given)


@pytest.mark.parametrize("name", [PLAIN, GROUPED, BIASED, INPUTS])
def test_comes_nearer_to_the_original_and_stays_a_cut(name):
    model, before = state(name)
    cut, _ = remove(keep={"count": 3}, criterion="frequency").run(before)
    after, record = distil(lr=0.003).run(cut)
    assert len(record.notes) == len(after.plan.kept())
    errors = [(float(note.split()[3]), float(note.split()[5])) for note in record.notes]
    assert all(now <= was for was, now in errors)
    assert any(now < was for was, now in errors)
    want, bare, better = (outputs(model, p, before.graph) for p in (before.plan, cut.plan, after.plan))
    assert (better[-1] - want[-1]).norm() < (bare[-1] - want[-1]).norm()
    small, _ = apply_plan(model, after.plan, before.graph)
    compare(model, small, after.plan, before.graph, probe_tokens(model)).require()


def test_only_what_is_left_of_experts_changes():
    model, before = state(PLAIN)
    first, _ = remove(keep={"count": 5}).run(before)
    cut, _ = remove(keep={"count": 10}, select={"kind": "ffn"}, criterion="magnitude").run(first)
    after, _ = distil().run(cut)
    cuts = cuts_of(after.plan, before.graph)
    assert {name.rpartition(".")[2] for name in after.plan.values} == {"gate_up_proj", "down_proj"}
    for name, value in after.plan.values.items():
        kept = torch.ones(value.shape, dtype=torch.bool)
        for dim, positions in cuts[name].items():
            gone = sorted(set(range(value.shape[dim])) - set(positions.tolist()))
            kept.index_fill_(dim, torch.tensor(gone), False)
        assert not value[~kept].any()
        assert not torch.equal(value[kept], model.get_parameter(name).detach()[kept])


def test_same_seed_same_weights():
    _, before = state(PLAIN)
    cut, _ = remove(keep={"count": 5}).run(before)
    one, same, other = (distil(steps=5, seed=seed).run(cut)[0].plan.values for seed in (1, 1, 2))
    name = min(one)
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])


def test_nothing_changes_where_nothing_helps():
    """What was not cut is its own target: no step can do better."""
    model, before = state(PLAIN)
    after, record = distil(steps=3).run(before)
    assert all("held-out error 0 to 0" in note for note in record.notes)
    for name, value in after.plan.values.items():
        assert torch.equal(value, model.get_parameter(name).detach())


def test_other_kinds_are_refused():
    _, before = state(PLAIN)
    with pytest.raises(InfeasibleError, match="of kind ffn, and only experts are distilled"):
        distil(select={"kind": "ffn"}).run(before)
