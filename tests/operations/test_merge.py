from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from surgeon.errors import InfeasibleError
from surgeon.operations.fusing import slerp
from surgeon.operations.merge import Merge
from surgeon.rebuild import apply_plan, compare, probe_tokens
from tests.operations.depth import model_of, samples_of, state_of


def merge(**options) -> Merge:
    return Merge.model_validate({"op": "merge", "neighbours": 3, **options})


@pytest.fixture(scope="module")
def dense():
    return model_of("dense")


@pytest.fixture(scope="module")
def state(dense):
    return state_of(dense, samples_of(89, 24))


@pytest.mark.parametrize(
    ("weights", "share"), [("fixed", 0.3), ("mean", 0.5), ("similarity", None), ("slerp", 0.3)]
)
def test_the_most_alike_neighbours_become_one(dense, state, weights, share):
    step = merge(
        keep={"count": 5}, weights=weights, **({"share": 0.3} if weights in ("fixed", "slerp") else {})
    )
    after, record = step.run(state)
    left, similar = step.similarities(state)
    place = int(np.argmax(similar.diagonal(1)))
    assert after.plan.dropped == (left[place + 1],)
    assert record.choices[place + 1].why == f"merged into {left[place]}"
    assert after.plan.assigned
    share = float(np.clip(similar[place, place + 1], 0, 1)) if share is None else share
    for name, value in dense.named_parameters():
        if not name.startswith(f"{left[place]}."):
            continue
        other = dense.get_parameter(name.replace(left[place], left[place + 1])).detach()
        if weights == "slerp":
            want = slerp(1 - share)((value.detach(), other))
        else:
            want = share * value.detach() + (1 - share) * other
        assert torch.allclose(after.plan.values.get(name, value.detach()), want, atol=1e-12)


def test_merging_changes_weights_and_is_what_the_original_computes_with_them(dense, state):
    after, _ = merge(keep={"count": 4}, weights="mean").run(state)
    assert len(after.plan.dropped) == 2
    assert all(not torch.equal(dense.get_parameter(n), v) for n, v in after.plan.values.items())
    small, _ = apply_plan(dense, after.plan, state.graph)
    assert compare(dense, small, after.plan, state.graph, probe_tokens(dense)).require()


def test_slerp_keeps_the_length_and_meets_both_ends():
    one, other = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    middle = slerp(0.5)((one, other))
    assert float(middle.norm()) == pytest.approx(3.0, abs=1e-6)
    assert torch.allclose(slerp(0.0)((one, other)), one)
    assert torch.allclose(slerp(1.0)((one, other)), other, atol=1e-6)
    assert torch.equal(slerp(0.25)((one, one)), one)


def test_unlike_blocks_do_not_merge():
    found = state_of(model_of("moe"), limited=False)
    with pytest.raises(InfeasibleError, match=r"no two neighbours can be merged: .* are not alike"):
        merge(keep={"count": 5}, select={"blocks": "1:3"}).run(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": {"params": 0.5}}, "params is not for blocks"),
        ({"keep": {"count": 2}, "repair": "bias"}, "mends projections that lost inputs"),
    ],
)
def test_contradicting_options(options, message):
    with pytest.raises(ValidationError, match=message):
        merge(**options)
