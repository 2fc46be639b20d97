from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.graph import Axis, Group
from surgeon.operations.allocation.adaptive import Adaptive
from surgeon.operations.pool import Member, Pool
from surgeon.plan import Amount

STRUCTURES = ("ul_um", "ul_mm", "al_mm", "al_am")


def pool(name, kind, scores, cost, multiple_of=1, spread=None):
    group = Group(Axis(name, kind, len(scores)), ())
    member = Member(group, tuple(range(len(scores))), np.asarray(scores, dtype=np.float64), cost, spread)
    return Pool((member,), len(scores), 1, multiple_of)


@st.composite
def pools(draw):
    found = []
    for layer in range(draw(st.integers(1, 3))):
        for kind, sizes in (("kv_group", (2, 6)), ("ffn", (4, 20))):
            size, cost = draw(st.integers(*sizes)), draw(st.integers(1, 40))
            rng = np.random.default_rng(draw(st.integers(0, 10**6)))
            found.append(pool(f"{layer}.{kind}", kind, rng.normal(size=size) * 10**layer, cost))
    return tuple(found)


def parameters(found, counts):
    return sum(p.cost * n for p, n in zip(found, counts, strict=True))


@pytest.mark.parametrize("structure", STRUCTURES)
@given(found=pools(), fraction=st.floats(0.5, 1))
def test_nothing_is_emptied_and_nothing_grows(structure, found, fraction):
    counts = Adaptive(structure=structure).counts(found, Amount(fraction=fraction))
    assert all(1 <= n <= p.left for p, n in zip(found, counts, strict=True))


@given(found=pools(), fraction=st.floats(0.3, 1))
def test_joint_ranking_comes_nearest_to_the_parameters(found, fraction):
    counts = Adaptive().counts(found, Amount(fraction=fraction))
    whole = parameters(found, [p.left for p in found])
    least = parameters(found, [1] * len(found))
    away = abs(parameters(found, counts) - fraction * whole)
    assert away <= max(max(p.cost for p in found) / 2, least - fraction * whole) + 1e-6


@pytest.mark.parametrize("structure", STRUCTURES)
@given(found=pools())
def test_the_ladder_falls_from_everything(structure, found):
    ladder = Adaptive(structure=structure).ladder(found)
    rungs = [ladder.at(place) for place in range(ladder.length)]
    assert rungs[0] == tuple(p.left for p in found)
    kept = [parameters(found, counts) for counts in rungs]
    dearest = max(p.cost for p in found)
    assert all(later <= earlier + dearest for earlier, later in pairwise(kept))
    assert kept[-1] < kept[0] or all(p.left == 1 for p in found)


def test_layers_compare_after_standardising():
    """A layer whose scores are all a thousand times larger loses as many as its twin."""
    scores = np.array([0.0, 1, 2, 3, 10])
    twins = (pool("a", "ffn", scores, 3), pool("b", "ffn", scores * 1000 + 7, 3))
    assert Adaptive().counts(twins, Amount(fraction=0.6)) == (3, 3)


def test_the_spread_of_channels_is_what_divides():
    """With a larger spread behind them, the same scores say less, so both ends come nearer to the mean."""
    narrow, wide = [0.0, 1, 2, 3], [0.0, 1, 2, 3]
    found = (pool("a", "kv_group", narrow, 1), pool("b", "kv_group", wide, 1, spread=100.0))
    assert Adaptive().counts(found, Amount(fraction=0.75)) == (2, 4)


def test_a_head_counts_by_its_parameters():
    """One head costs ten channels: with it gone, one channel goes and not four."""
    found = (pool("h", "kv_group", [0.0, 5.0], 100), pool("f", "ffn", [1.0, 2.0, 3.0, 4.0], 10))
    assert Adaptive().counts(found, Amount(fraction=130 / 240)) == (1, 3)


def test_attention_apart_keeps_its_share():
    found = (
        pool("h0", "kv_group", [1.0, 2, 3, 4], 12),
        pool("h1", "kv_group", [1.0, 1.1, 1.2, 9], 12),
        pool("f0", "ffn", range(16), 3),
        pool("f1", "ffn", np.arange(16) ** 3, 3),
    )
    uniform = Adaptive(structure="ul_mm", heads=0.5).counts(found, Amount(fraction=0.75))
    assert uniform[:2] == (2, 2)
    assert uniform[2] == uniform[3] == 16
    joint = Adaptive(structure="al_mm", heads=0.5).counts(found, Amount(fraction=0.5))
    assert sum(joint[:2]) == 4
    assert sum(joint[2:]) == 16


def test_released_rounds_weights_down_and_removes_the_threshold_unit():
    found = (pool("h", "kv_group", [0.0, 5.0], 25), pool("f", "ffn", [1.0, 2.0, 3.0, 4.0], 10))
    exact, released = (
        Adaptive(variant=variant).counts(found, Amount(fraction=0.7)) for variant in ("paper", "released")
    )
    assert sum(released) == sum(exact) - 1
