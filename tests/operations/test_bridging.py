from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from surgeon.errors import InfeasibleError
from surgeon.operations.drop_blocks import DropBlocks
from surgeon.rebuild import apply_plan, compare, probe_tokens
from tests.operations.depth import model_of, samples_of, state_of

REFIT = {"repair": "refit", "target": "stream", "ridge": 0.05}


def drop(gone, repair=REFIT) -> DropBlocks:
    return DropBlocks.model_validate({"op": "drop_blocks", "drop": list(gone), "repair": repair})


def states(module, ids, weights):
    """By plain hooks, some weights exchanged: stream behind every block, inputs of every down_proj."""
    behind, inside, handles = {}, {}, []
    old = {name: module.get_parameter(name).data for name in weights}
    for name, value in weights.items():
        module.get_parameter(name).data = value
    for place, block in enumerate(module.model.layers):

        def after(part, args, output, place=place):
            behind[place] = output.reshape(-1, output.shape[-1]).numpy()

        def enter(part, args, place=place):
            inside[place] = args[0].reshape(-1, args[0].shape[-1]).numpy()

        handles += [block.register_forward_hook(after), block.mlp.down_proj.register_forward_pre_hook(enter)]
    with torch.no_grad():
        module(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    for name, value in old.items():
        module.get_parameter(name).data = value
    return behind, inside


def test_the_projection_before_a_gap_is_the_ridge_solution():
    module = model_of("dense")
    found = state_of(module, samples_of(89, 9), limited=False)
    after, record = drop([2, 3]).run(found)
    name = "model.layers.1.mlp.down_proj.weight"
    assert after.plan.assigned == (name,)
    assert record.notes == ("1 of 1 gaps bridged",)
    behind, inside = states(module, found.trial().samples.ids, {})
    a, e = inside[1], behind[3] - behind[1]
    w0 = module.get_parameter(name).detach().numpy().T
    gram = a.T @ a / len(a)
    lam = 0.05 * np.trace(gram) / len(gram)
    want = w0 + np.linalg.solve(gram + lam * np.eye(len(gram)), a.T @ e / len(a))
    got = after.plan.values[name].numpy()
    np.testing.assert_allclose(got, want.T, rtol=1e-4, atol=1e-5)  # norms drop to float32 inside


def test_gaps_are_bridged_from_the_front_and_see_each_other():
    module = model_of("dense")
    found = state_of(module, samples_of(89, 9), limited=False)
    after, record = drop([1, 4]).run(found)
    first, second = (f"model.layers.{place}.mlp.down_proj.weight" for place in (0, 3))
    assert after.plan.assigned == (first, second)
    small, _ = apply_plan(module, after.plan, found.graph)
    assert compare(module, small, after.plan, found.graph, probe_tokens(module)).require()
    ids = found.trial().samples.ids
    goal, _ = states(module, ids, {})
    got, _ = states(small, ids, {})
    plain, _ = apply_plan(module, drop([1, 4], "none").run(found)[0].plan, found.graph)
    bare, _ = states(plain, ids, {})
    last = goal[5]
    assert np.square(got[3] - last).sum() < np.square(bare[3] - last).sum()
    assert np.square(got[2] - goal[4]).sum() < np.square(bare[2] - goal[4]).sum()
    assert record.notes == ("2 of 2 gaps bridged",)


def test_where_experts_write_attention_takes_over():
    module = model_of("moe")
    found = state_of(module, limited=False)
    after, _ = drop([3]).run(found)
    assert after.plan.assigned == ("model.layers.2.self_attn.o_proj.weight",)


def test_a_gap_at_the_start_has_nothing_before_it():
    found = state_of(model_of("dense"), limited=False)
    with pytest.raises(InfeasibleError, match="none of 1 gaps can be bridged: they start the stack"):
        drop([0]).run(found)


def test_a_norm_behind_every_projection_is_said():
    found = state_of(model_of("sliding"), limited=False)
    with pytest.raises(InfeasibleError, match="does not simply join the stream"):
        drop([2]).run(found)


@pytest.mark.parametrize("repair", ["bias", {"repair": "refit", "target": "layer"}])
def test_other_repairs_are_refused(repair):
    with pytest.raises(ValidationError, match="mends projections that lost inputs"):
        drop([1], repair)
