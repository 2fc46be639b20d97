"""Runs of Blocks that become one, or a linear map."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from surgeon.errors import InfeasibleError, SurgeonError
from surgeon.operations.remove import Remove
from surgeon.operations.replace import Replace
from surgeon.rebuild import ModuleSource, apply_plan, compare, probe_tokens
from tests.operations.depth import model_of, samples_of, state_of, without
from tests.operations.test_bridging import states

QUICK = {"epochs": 3, "batch": 4, "rate": 0.003}


def replace(**options) -> Replace:
    return Replace.model_validate({"op": "replace", "training": QUICK, **options})


@pytest.fixture(scope="module")
def dense():
    return model_of("dense")


@pytest.fixture(scope="module")
def state(dense):
    return state_of(dense, samples_of(89, 24), limited=False)


def test_a_block_learns_its_run(dense, state):
    after, record = replace(drop=[3, 4]).run(state)
    assert after.plan.dropped == ("model.layers.3", "model.layers.4")
    assert {name.rpartition("layers.")[2].split(".")[0] for name in after.plan.assigned} == {"2"}
    assert len(after.plan.assigned) == 9
    assert record.notes[0].startswith("model.layers.2 learnt 3 blocks: held-out error ")
    ids = state.trial().samples.ids
    goal, _ = states(dense, ids, {})
    learnt, _ = states(dense, ids, {n: v.to(torch.float64) for n, v in after.plan.values.items()})
    assert np.square(learnt[2] - goal[4]).mean() < np.square(goal[2] - goal[4]).mean()
    small, _ = apply_plan(dense, after.plan, state.graph)
    assert compare(dense, small, after.plan, state.graph, probe_tokens(dense)).require()


def test_the_context_is_the_models_own(dense, state):
    """The states that it is trained on are those of a plain run: masks and rotary positions included."""
    from surgeon.operations.walks import Walks

    walks = Walks.begin(state, state.plan, 76)
    walks.advance_to("model.layers.2")
    walk, forward = walks.cut()
    args, kwargs = walk.call(forward, 1)
    with torch.no_grad():
        got = dense.model.layers[2](*args, **kwargs)
    want, _ = states(dense, walk.batches[1].ids, {})
    np.testing.assert_allclose(got.numpy().reshape(-1, 48), want[2], rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_model_alone(dense, state):
    before = copy.deepcopy(dense.state_dict())
    first, again = (replace(drop=[4]).run(state)[0].plan.values for _ in range(2))
    other = replace(drop=[4], training={**QUICK, "seed": 1}).run(state)[0].plan.values
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert all(value.grad is None for value in dense.parameters())


def test_a_model_in_half_precision_is_the_one_that_was_measured(dense):
    """The bench is wider than the weights; what is assigned is rounded as the checkpoint will be."""
    half = copy.deepcopy(dense).float()
    for parameter in half.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    found = state_of(copy.deepcopy(half).double(), samples_of(89, 8), limited=False)
    found = dataclasses.replace(found, source=ModuleSource(half))
    after, _ = replace(drop=[4]).run(found)
    assert {value.dtype for value in after.plan.values.values()} == {torch.bfloat16}
    small, _ = apply_plan(half, after.plan, found.graph)
    assert compare(half, small, after.plan, found.graph, probe_tokens(half)).require()


def test_several_runs_are_chosen_and_none_starts_the_stack(state):
    criterion = {"criterion": "perplexity", "protect_first": 0}
    after, record = replace(keep={"count": 3}, criterion=criterion, shots="each").run(state)
    assert len(after.plan.dropped) == 3
    assert "model.layers.0" not in after.plan.dropped
    assert all("learnt" in note for note in record.notes)


def test_one_run_is_longer_by_the_block_that_stays(state):
    after, record = replace(keep={"count": 4}, criterion="angular", contiguous=True).run(state)
    places = [int(name.rpartition(".")[2]) for name in after.plan.dropped]
    scores = [c.score if c.score is not None else np.inf for c in record.choices]
    start = int(np.argmin(scores))
    assert places == [start + 1, start + 2]


def test_a_repair_goes_on_where_the_training_ends(state):
    repair = {"repair": "refit", "reach": "rest"}
    after, record = replace(drop=[3], repair=repair).run(state)
    assert record.notes[1:] == ("1 of 1 gaps bridged", "6 projections fitted in all")
    assert len(after.plan.assigned) == 9 + 4


def test_training_stops_when_nothing_is_gained(state):
    training = {"epochs": 9, "rate": 3.0, "patience": 1, "batch": 8}
    _, record = replace(drop=[3], training=training).run(state)
    assert "epochs" in record.notes[0]
    assert int(record.notes[0].split()[-2]) < 9


def test_training_that_runs_away_is_said(state):
    with pytest.raises(SurgeonError, match=r"gave an error of (nan|inf)"):
        replace(drop=[3], training={"epochs": 2, "rate": 1e200}).run(state)


def test_the_first_block_has_none_to_take_its_place(state):
    with pytest.raises(InfeasibleError, match="has none before it that could take its place"):
        replace(drop=[0]).run(state)


def test_widths_come_later(state):
    cut = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.5}, "criterion": "magnitude"}
    narrow, _ = Remove.model_validate(cut).run(state)
    with pytest.raises(InfeasibleError, match="an earlier step has cut into their widths"):
        replace(drop=[3]).run(narrow)


def test_linear_is_a_least_squares_map_in_the_embedding(dense, state):
    after, record = replace(drop=[0, 1], replace="linear").run(state)
    assert after.plan.assigned == ("model.embed_tokens.weight",)
    assert record.notes == ("2 blocks became a linear map, which model.embed_tokens.weight took in",)
    ids = state.trial().samples.ids
    table = dense.model.embed_tokens.weight.detach().numpy()
    goal, _ = states(dense, ids, {})
    x, y = table[ids.numpy().reshape(-1)], goal[1]
    gram = x.T @ x / len(x)
    pull = 1e-4 * np.trace(gram) / len(gram) * np.eye(48)
    want = np.linalg.solve(gram + pull, x.T @ y / len(x) + pull)
    np.testing.assert_allclose(
        after.plan.values["model.embed_tokens.weight"].numpy(), table @ want, rtol=0, atol=1e-4
    )
    small, _ = apply_plan(dense, after.plan, state.graph)
    tokens = probe_tokens(dense)
    assert compare(dense, small, after.plan, state.graph, tokens).require()
    theirs = without(dense, "model.layers", [0, 1])
    theirs.model.embed_tokens.weight.data = torch.from_numpy(table @ want)
    with torch.no_grad():
        far = theirs(input_ids=tokens).logits - small(input_ids=tokens).logits
    assert float(far.abs().max()) < 1e-2


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        ("dense", [0, 2], "'model.layers.2' would stand between blocks"),
        ("encoder", [0], "the stack starts on states that are"),
        ("scaled by depth", [0], "it is one tensor with|the stack starts on states that are"),
    ],
)
def test_a_map_that_has_no_place_is_refused(name, gone, message):
    found = state_of(model_of(name), limited=False)
    with pytest.raises(InfeasibleError, match=message):
        replace(drop=gone, replace="linear").run(found)


def test_linear_takes_a_list():
    with pytest.raises(ValidationError, match="replace: linear takes a list"):
        replace(keep={"count": 3}, criterion="tail", replace="linear")
