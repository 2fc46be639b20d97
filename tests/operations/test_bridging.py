from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from surgeon.errors import InfeasibleError
from surgeon.graph import BlockSelector
from surgeon.operations.drop_blocks import DropBlocks
from surgeon.operations.mending import bridged
from surgeon.operations.remove import Remove
from surgeon.plan import DropBlock
from surgeon.rebuild import apply_plan, compare, probe_tokens
from surgeon.repair.refit import Refit
from tests.operations.depth import model_of, samples_of, state_of

PARTS = ("self_attn.o_proj", "mlp.down_proj")
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
    after, record = drop([0]).run(found)
    assert after.plan.assigned == ()
    assert record.notes == ("0 of 1 gaps bridged", "a gap at the start of the stack has nothing before it")


def test_through_a_norm_that_scales_a_step_is_made_and_kept_where_it_helps():
    module = model_of("sliding")
    found = state_of(module, samples_of(89, 9), limited=False)
    after, record = drop([2]).run(found)
    assert record.notes[0] == "1 of 1 gaps bridged"
    assert after.plan.assigned == ("model.layers.1.mlp.down_proj.weight",)
    ids = found.trial().samples.ids
    goal, _ = states(module, ids, {})
    mended, _ = states(module, ids, dict(after.plan.values))
    assert np.square(mended[1] - goal[2]).mean() < np.square(goal[1] - goal[2]).mean()


def test_before_a_norm_on_the_stream_a_step_is_kept_only_where_it_helps(monkeypatch):
    from surgeon.operations import bridging

    found = state_of(model_of("encoder"), limited=False)
    after, _ = drop([2]).run(found)
    assert after.plan.assigned == ("bert.encoder.layer.1.output.dense.weight",)
    errors = iter([2.0, 1.0])
    monkeypatch.setattr(bridging, "end_error", lambda *given: next(errors))
    after, record = drop([2]).run(found)
    assert after.plan.assigned == ()
    assert record.notes[0] == "0 of 1 gaps bridged"
    assert "left as it is: fitted too, the gap ends further off" in record.notes[1]


def test_attention_is_left_where_its_fit_would_do_harm(monkeypatch):
    from surgeon.operations import bridging

    errors = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(bridging, "end_error", lambda *given: next(errors))
    found = state_of(model_of("dense"), limited=False)
    after, record = drop([2], {**REFIT, "reach": "layer"}).run(found)
    assert after.plan.assigned == ("model.layers.1.mlp.down_proj.weight",)
    assert "o_proj.weight left as it is: fitted too, the gap ends further off" in record.notes[1]


@pytest.mark.parametrize("repair", ["bias", {"repair": "refit", "target": "layer"}])
def test_other_repairs_are_refused(repair):
    with pytest.raises(ValidationError, match="mends projections that lost inputs"):
        drop([1], repair)


def ridge(a, e, w0, strength=0.05):
    """The anchored ridge solution in float64, transposed as a Linear's weight."""
    gram = a.T @ a / len(a)
    lam = strength * np.trace(gram) / len(gram)
    return (w0.T + np.linalg.solve(gram + lam * np.eye(len(gram)), a.T @ e / len(a))).T


def test_reach_layer_fits_attention_and_then_the_mlp():
    module = model_of("dense")
    found = state_of(module, samples_of(89, 9), limited=False)
    after, _ = drop([2, 3], {**REFIT, "reach": "layer"}).run(found)
    first, second = "model.layers.1.self_attn.o_proj.weight", "model.layers.1.mlp.down_proj.weight"
    assert after.plan.assigned == (first, second)
    ids = found.trial().samples.ids
    goal, _ = states(module, ids, {})
    behind, inside = states(module, ids, {first: after.plan.values[first]})
    want = ridge(inside[1], goal[3] - behind[1], module.get_parameter(second).detach().numpy())
    np.testing.assert_allclose(after.plan.values[second].numpy(), want, rtol=1e-4, atol=1e-5)


def test_reach_rest_follows_the_original_to_the_end():
    module = model_of("dense")
    found = state_of(module, samples_of(89, 40), limited=False)
    ids = found.trial().samples.ids
    goal, _ = states(module, ids, {})
    left = {}
    for reach in ("gap", "rest"):
        after, record = drop([1], {**REFIT, "reach": reach}).run(found)
        small, _ = apply_plan(module, after.plan, found.graph)
        left[reach] = np.square(states(small, ids, {})[0][4] - goal[5]).mean()
    assert left["rest"] < left["gap"]
    fitted = after.plan.assigned
    assert {name.split(".")[2] for name in fitted} == {"0", "2", "3", "4", "5"}
    assert set(fitted) >= {f"model.layers.{n}.{part}.weight" for n in (2, 5) for part in PARTS}
    assert record.notes[0] == "1 of 1 gaps bridged"
    assert record.notes[-1] == f"{len(fitted)} projections fitted in all"


@pytest.mark.parametrize(("part", "taker"), [("mlp", "self_attn.o_proj"), ("self_attn", "mlp.down_proj")])
def test_what_is_left_of_a_layer_takes_over_for_its_sublayer(part, taker):
    module = model_of("dense")
    found = state_of(module, samples_of(89, 9), limited=False)
    cut = found.after([DropBlock(f"model.layers.2.{part}", 0)])
    mended = bridged(Refit(), BlockSelector(), found, cut)
    assert [edit.param for edit in mended.edits] == [f"model.layers.2.{taker}.weight"]


def test_reach_is_about_depth_only():
    found = state_of(model_of("dense"), limited=False)
    step = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.5}, "criterion": "magnitude"}
    with pytest.raises(InfeasibleError, match="reach: rest is about gaps in the depth"):
        Remove.model_validate({**step, "repair": {**REFIT, "reach": "rest"}}).run(found)
