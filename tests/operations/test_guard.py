from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from surgeon.calibrate import next_token_loss
from surgeon.errors import SurgeonError
from surgeon.operations import State
from surgeon.operations.drop_blocks import DropBlocks
from surgeon.operations.guard import Guard
from surgeon.operations.remove import Remove
from surgeon.plan import DropBlock, Plan
from tests.operations.depth import model_of, samples_of, state_of, without

METRICS = ("kl", "perplexity", "similarity", "first_divergent_token")


@pytest.fixture(scope="module")
def dense():
    return model_of("dense")


@pytest.fixture(scope="module")
def state(dense) -> State:
    return state_of(dense, samples_of(89, 3), limited=False)


def drop(**options) -> DropBlocks:
    return DropBlocks.model_validate({"op": "drop_blocks", "criterion": "tail", **options})


def damage(metric: str, state: State, places=()) -> float:
    plan = Plan("llama").add(DropBlock(f"model.layers.{place}", 0) for place in places)
    return Guard(metric=metric, max=1.0).damage(state.trial(), plan)


def test_damage_by_hand(dense, state):
    ids = state.trial().samples.ids
    with torch.no_grad():
        p = dense(input_ids=ids, use_cache=False)
        small = without(dense, "model.layers", [4])
        q = small(input_ids=ids, use_cache=False)
    log_p, log_q = p.logits.log_softmax(-1), q.logits.log_softmax(-1)
    kl = float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
    assert damage("kl", state, [4]) == pytest.approx(kl, rel=1e-4)
    loss = float(next_token_loss(q.logits, state.trial().samples))
    assert damage("perplexity", state, [4]) == pytest.approx(math.exp(loss), rel=1e-6)
    with torch.no_grad():
        states = [
            m.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(1) for m in (dense, small)
        ]
    cosine = float(torch.nn.functional.cosine_similarity(*states).mean())
    assert damage("similarity", state, [4]) == pytest.approx(1 - cosine, abs=1e-6)
    assert 0 < damage("first_divergent_token", state, [4]) <= 1


def test_no_damage_where_nothing_is_done(state):
    for metric in ("kl", "similarity", "first_divergent_token"):
        assert damage(metric, state) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_a_step_is_accepted_up_to_its_bound(state, metric):
    found = damage(metric, state, [4, 5])
    after, record = drop(keep={"count": 4}, guard={"metric": metric, "max": found * 1.001 + 1e-9}).run(state)
    assert len(after.plan.dropped) == 2
    assert record.notes[-1].endswith(": accepted")


def test_a_step_that_does_too_much_is_made_milder(state):
    one, three = damage("kl", state, [5]), damage("kl", state, [3, 4, 5])
    assert one < three
    after, record = drop(keep={"count": 3}, guard={"metric": "kl", "max": (one + three) / 2}).run(state)
    assert after.plan.dropped == ("model.layers.5",)
    assert record.notes[0].endswith("too much")
    assert record.notes[-1].endswith("accepted, made milder")


def test_a_step_is_rejected_where_nothing_milder_will_do(state):
    after, record = drop(keep={"count": 3}, guard={"metric": "kl", "max": 1e-9}).run(state)
    assert after.plan == state.plan
    assert record.choices == ()
    assert record.notes[-1] == "guard: the step is rejected, nothing is changed"
    listed = {"op": "drop_blocks", "drop": [2], "guard": {"metric": "kl", "max": 1e-9}}
    _, record = DropBlocks.model_validate(listed).run(state)
    assert len(record.notes) == 2


def test_any_step_can_carry_one(state):
    options = {"select": {"kind": "ffn"}, "keep": {"fraction": 0.5}, "criterion": "magnitude"}
    free, _ = Remove.model_validate(options).run(state)
    bound = Guard(metric="kl", max=1.0).damage(state.trial(), free.plan) * 0.9
    after, _ = Remove.model_validate({**options, "guard": {"metric": "kl", "max": bound}}).run(state)
    kept = {len(indices) for indices in after.plan.kept().values()}
    assert kept <= {30, 35, 37, 38, 39}


def test_without_text_it_is_an_error(state):
    bare = State(state.graph, state.plan)
    with pytest.raises(SurgeonError, match="tries plans on calibration text"):
        drop(keep={"count": 5}, guard={"metric": "kl", "max": 1.0}).run(bare)


def test_unknown_metric():
    with pytest.raises(ValidationError, match="Input should be 'kl'"):
        drop(keep={"count": 5}, guard={"metric": "taste", "max": 1.0})
