"""Operation ``repair``: what earlier steps cut, mended at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surgeon.errors import InfeasibleError
from surgeon.operations.drop_blocks import DropBlocks
from surgeon.operations.repair import RepairStep
from surgeon.plan import Assign
from surgeon.rebuild import masked
from tests.operations.test_profiles import state_of as traced_state_of
from tests.operations.test_repairing import IDS, removed, state_of

STREAM = {"repair": "refit", "target": "stream", "ridge": 0.01}


def repair(how=STREAM, kinds=("ffn",)):
    return RepairStep.model_validate({"select": {"kind": list(kinds)}, "repair": how})


@pytest.mark.parametrize("target", ["layer", "stream"])
def test_a_step_of_its_own_gives_what_the_field_gives(small_llama, target):
    how = {**STREAM, "target": target}
    state = state_of(small_llama(initializer_range=0.3).double())
    field, _ = removed(state, how)
    cut, _ = removed(state, "none")
    step, record = repair(how).run(cut)
    assert set(step.plan.assigned) == set(field.plan.assigned)
    for name in step.plan.assigned:
        kept = list(field.plan.kept()[f"layers.{name.split('.')[2]}.mlp.ffn"])
        got, want = (state.plan.values[name][:, kept].numpy() for state in (step, field))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    assert record.choices[0].why == "consumer repaired"
    assert record.notes[0] == "3 tensors repaired"


def test_projections_that_lost_nothing_take_over(small_llama):
    model = small_llama(initializer_range=0.3)
    state = state_of(model)
    mended, _ = removed(state, STREAM)
    both, _ = repair(kinds=("ffn", "kv_group")).run(mended)
    assert sum("o_proj" in name for name in both.plan.assigned) == 3

    def gap(plan):
        with torch.no_grad():
            return float(
                (masked(model, plan, state.graph)(input_ids=IDS).logits - model(input_ids=IDS).logits)
                .square()
                .mean()
            )

    assert gap(both.plan) < gap(mended.plan)


def test_bias_goes_by_the_original(small_llama):
    model = small_llama(initializer_range=0.3, mlp_bias=True).double()
    state = traced_state_of(model)
    field, _ = removed(state, "bias")
    step, _ = repair("bias").run(removed(state, "none")[0])
    again, _ = repair("bias").run(step)
    for name in field.plan.assigned:
        for after in (step, again):
            np.testing.assert_allclose(after.plan.values[name], field.plan.values[name], rtol=1e-9)


def test_what_was_dropped_is_not_repaired(small_llama):
    state = state_of(small_llama(initializer_range=0.3))
    dropped, _ = DropBlocks.model_validate({"drop": [1]}).run(state)
    after, _ = repair().run(dropped)
    assert {name.split(".")[2] for name in after.plan.assigned} == {"0", "2"}
    assert all(isinstance(edit, Assign) for edit in after.plan.edits[len(dropped.plan.edits) :])


def test_none_repairs_nothing(small_llama):
    with pytest.raises(InfeasibleError, match="repair 'none' repairs nothing"):
        repair("none").run(state_of(small_llama()))
