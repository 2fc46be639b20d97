from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.errors import InfeasibleError
from surgeon.graph import Axis, Group
from surgeon.operations.allocation.ranking import Global
from surgeon.operations.allocation.uniform import Uniform
from surgeon.operations.pool import Member, Pool
from surgeon.plan import Amount


def member(scores, name="x", cost=1):
    size = len(scores)
    return Member(Group(Axis(name, "ffn", size), ()), tuple(range(size)), np.array(scores, dtype=float), cost)


@st.composite
def pool(draw):
    left = draw(st.integers(1, 24))
    axes = draw(st.integers(1, 3))
    scores = st.lists(st.integers(0, 9), min_size=left, max_size=left)
    cost = draw(st.integers(1, 50))
    members = tuple(member(draw(scores), f"x{i}", cost) for i in range(axes))
    multiple = draw(st.integers(1, left))
    return Pool(members, left + draw(st.integers(0, 4)), draw(st.sampled_from([1, 4])), multiple)


POOLS = st.lists(pool(), min_size=1, max_size=4).map(tuple)
ALLOCATIONS = st.sampled_from([Uniform(), Global(), Global(per="unit")])


@given(POOLS, ALLOCATIONS)
def test_ladders_go_down_in_allowed_steps_from_all_to_least(pools, allocation):
    ladder = allocation.ladder(pools)
    every = [ladder.at(place) for place in range(ladder.length)]
    assert every[0] == tuple(p.top for p in pools)
    assert every[-1] == tuple(p.multiple_of for p in pools)
    for before, after in pairwise(every):
        assert all(a <= b for a, b in zip(after, before, strict=True))
    for counts in every:
        assert all(n % p.multiple_of == 0 and 0 < n <= p.left for n, p in zip(counts, pools, strict=True))


@given(POOLS, ALLOCATIONS, st.integers(0, 2000))
def test_a_budget_is_never_exceeded_and_no_higher_rung_would_fit(pools, allocation, budget):
    def cost(counts):
        return sum(n * p.cost for n, p in zip(counts, pools, strict=True))

    ladder = allocation.ladder(pools)
    found = ladder.first(lambda counts: cost(counts) <= budget)
    every = [ladder.at(place) for place in range(ladder.length)]
    fitting = [counts for counts in every if cost(counts) <= budget]
    assert found == (fitting[0] if fitting else None)


@given(POOLS, ALLOCATIONS, st.floats(0.3, 1))
def test_a_smaller_fraction_keeps_a_subset(pools, allocation, fraction):
    multiple = pools[0].multiple_of
    pools = tuple(Pool(p.members, p.began, p.channels, min(multiple, p.left)) for p in pools)
    try:
        more, less = (allocation.counts(pools, Amount(fraction=f)) for f in (fraction, fraction * 0.8))
    except InfeasibleError:
        return
    for pool, high, low in zip(pools, more, less, strict=True):
        for one in pool.members:
            assert set(one.best(low)) <= set(one.best(high))
            assert len(one.best(high)) == high


@given(st.lists(st.integers(0, 5), min_size=2, max_size=20), st.floats(0.1, 1))
def test_uniform_is_uniform(scores, fraction):
    pools = tuple(Pool((member(scores[i:] + scores[:i], f"x{i}"),), len(scores)) for i in range(3))
    try:
        counts = Uniform().counts(pools, Amount(fraction=fraction))
    except InfeasibleError:
        assert len(scores) * fraction < 1
        return
    assert set(counts) == {int(len(scores) * fraction + 1e-9)}


def test_heads_go_only_whole():
    """Of 6 heads of 16 channels, 25 % are 24 channels: one whole head, as in LLM-Pruner's local mode."""
    heads = Pool((member(range(6)),), 6, channels=16)
    assert Uniform().counts((heads,), Amount(fraction=0.75)) == (5,)
    assert Uniform().counts((Pool((member(range(6)),), 6),), Amount(fraction=0.75)) == (4,)


def test_of_equal_scores_the_lower_index_goes_first():
    assert member([1, 0, 0, 1, 0]).best(3) == (0, 3, 4)
    pools = (Pool((member([0, 0, 0]),), 3), Pool((member([0, 0, 0]),), 3))
    assert Global(per="unit").counts(pools, Amount(fraction=0.5)) == (1, 2)


def test_per_parameter_ranks_by_score_over_cost():
    heads, neurons = Pool((member([8, 9], "h", 10),), 2), Pool((member([1, 2, 3, 4], "n", 1),), 4)
    ladder = Global().ladder((heads, neurons))
    assert [ladder.at(i) for i in range(ladder.length)] == [(2, 4), (1, 4), (1, 3), (1, 2), (1, 1)]
    ladder = Global(per="unit").ladder((heads, neurons))
    assert [ladder.at(i) for i in range(ladder.length)] == [(2, 4), (2, 3), (2, 2), (2, 1), (1, 1)]
    # 24 parameters in all: half of them are 12, so a head (10) and two neurons go.
    assert Global().counts((heads, neurons), Amount(fraction=0.5)) == (1, 2)
    # 6 units in all: three of them go.
    assert Global(per="unit").counts((heads, neurons), Amount(fraction=0.5)) == (2, 1)


def test_tied_axes_rank_by_their_mean():
    tied = Pool((member([0, 10], "a"), member([8, 10], "b")), 2)
    single = Pool((member([3, 5], "c"),), 2)
    ladder = Global(per="unit").ladder((tied, single))
    assert [ladder.at(i) for i in range(ladder.length)] == [(2, 2), (2, 1), (1, 1)]


def test_what_costs_nothing_has_no_score_per_parameter():
    free = (Pool((member([1, 2], cost=0),), 2),)
    with pytest.raises(InfeasibleError, match="removing from 'x' saves no parameter"):
        Global().ladder(free)
    assert Global(per="unit").ladder(free).length == 2


def test_pools_of_unlike_or_too_small_axes_are_refused():
    with pytest.raises(InfeasibleError, match="one common count, and differ already: 'a' has 2, 'b' has 3"):
        Pool((member([1, 2], "a"), member([1, 2, 3], "b")), 3)
    with pytest.raises(InfeasibleError, match="no multiple of 8 fits in 'a', which has 2 indices"):
        Pool((member([1, 2], "a"),), 2, multiple_of=8)
