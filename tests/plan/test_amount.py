"""Amount: the key says what a number means; counts are LLM-Pruner's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from surgeon.errors import InfeasibleError, PlanError
from surgeon.plan import Amount


@pytest.mark.parametrize(
    ("said", "size", "kept"),
    [
        ({"fraction": 0.8}, 160, 128),
        ({"fraction": 0.8}, 4, 3),
        ({"fraction": 0.29}, 100, 29),
        ({"fraction": 2 / 3}, 3, 2),
        ({"fraction": 0.75, "multiple_of": 8}, 172, 128),
        ({"fraction": 0.01, "multiple_of": 8}, 172, 8),
        ({"fraction": 1}, 7, 7),
        ({"count": 4}, 7, 4),
        ({"count": 8, "multiple_of": 4}, 8, 8),
    ],
)
def test_counts(said, size, kept):
    assert Amount.model_validate(said).kept(size) == kept


@given(
    size=st.integers(1, 4096),
    fraction=st.floats(0.001, 1),
    multiple=st.sampled_from([1, 2, 3, 8, 16, 64]),
)
def test_a_fraction_is_never_exceeded_by_more_than_the_one_multiple(size, fraction, multiple):
    amount = Amount(fraction=fraction, multiple_of=multiple)
    if size < multiple or int(size * fraction + 1e-9) == 0:
        with pytest.raises(InfeasibleError):
            amount.kept(size)
        return
    kept = amount.kept(size)
    assert kept % multiple == 0
    assert multiple <= kept <= max(size * fraction + 1e-6, multiple)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "exactly one of fraction, count, params; got none"),
        ({"fraction": 0.5, "count": 2}, "got fraction and count"),
        ({"fraction": 0}, "greater than 0"),
        ({"fraction": 1.5}, "less than or equal to 1"),
        ({"fraction": "0.5"}, "valid number"),
        ({"fraction": True}, "valid number"),
        ({"fraction": float("nan")}, "finite"),
        ({"params": float("inf")}, "finite"),
        ({"count": 2.0}, "valid integer"),
        ({"count": 0}, "greater than or equal to 1"),
        ({"count": 10, "multiple_of": 8}, "count 10 is not a multiple of multiple_of 8"),
        ({"params": 2.5}, "neither a share"),
        ({"ratio": 0.5}, "Extra inputs"),
    ],
)
def test_meaning_is_checked(said, message):
    with pytest.raises(ValidationError, match=message):
        Amount.model_validate(said)


def test_what_a_size_cannot_give_is_refused_with_numbers():
    with pytest.raises(InfeasibleError, match=r"fraction 0\.4 of an axis of size 2 keeps nothing") as caught:
        Amount(fraction=0.4).kept(2)
    assert "at least 0.5" in str(caught.value)
    with pytest.raises(InfeasibleError, match="count 9 is more than there is: 8"):
        Amount(count=9).kept(8)
    with pytest.raises(InfeasibleError, match="no multiple of 16 fits in an axis of size 8"):
        Amount(fraction=0.5, multiple_of=16).kept(8)


def test_a_target_for_the_model_is_a_share_up_to_one_and_a_number_above():
    assert Amount(params=0.8).parameters(1000) == 800
    assert Amount(params=1).parameters(1000) == 1000
    assert Amount(params=750).parameters(1000) == 750
    with pytest.raises(InfeasibleError, match="params 1001 is more than the model has: 1000"):
        Amount(params=1001).parameters(1000)


def test_targets_of_model_and_axis_are_not_mixed_up():
    with pytest.raises(PlanError, match="for the whole model"):
        Amount(params=0.8).kept(10)
    with pytest.raises(PlanError, match="only a params amount"):
        Amount(count=8).parameters(10)
