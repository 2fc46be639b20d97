"""Optimal brain surgeon against refitting by numpy's least squares, and against trying everything."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from surgeon.calibrate import Statistics
from surgeon.calibrate.gram import Gram
from surgeon.calibrate.input_moment import InputMoment
from surgeon.criteria.obs import Obs
from surgeon.criteria.removal_loss import RemovalLoss, greedy_order
from surgeon.graph import Axis, Group, Layout, Mode, Site
from surgeon.rebuild import ModuleSource

TOKENS, FEATURES, OUTPUTS = 200, 6, 4


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(TOKENS, FEATURES)) @ rng.normal(size=(FEATURES, FEATURES))
    return x, rng.normal(size=(OUTPUTS, FEATURES))


def refit_loss(x, w, gone):
    """Mean squared error of the outputs with the best weights on what is kept."""
    kept = [i for i in range(x.shape[1]) if i not in gone]
    y = x @ w.T
    fitted = x[:, kept] @ np.linalg.lstsq(x[:, kept], y, rcond=None)[0]
    return ((y - fitted) ** 2).sum() / len(x)


def loss_of(x, w, layout):
    inverse = torch.from_numpy(np.linalg.inv(x.T @ x / len(x)))
    return RemovalLoss(inverse, torch.from_numpy(w.T.copy()), torch.from_numpy(layout.positions()))


PLAIN = Layout.plain(FEATURES)
PAIRS = Layout(0, (Mode(3, 2), Mode(2, 1)), 0)


@pytest.mark.parametrize("layout", [PLAIN, PAIRS], ids=["channels", "pairs"])
def test_losses_are_those_of_a_refit(data, layout):
    x, w = data
    loss = loss_of(x, w, layout)
    positions = layout.positions()
    want = [refit_loss(x, w, set(p.tolist())) for p in positions]
    np.testing.assert_allclose(loss.each().numpy(), want, rtol=1e-6)
    for pair in combinations(range(len(positions)), 2):
        want = refit_loss(x, w, set(positions[list(pair)].reshape(-1).tolist()))
        assert loss.together(pair) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("layout", [PLAIN, PAIRS], ids=["channels", "pairs"])
def test_greedy_is_greedy_by_refitting(data, layout):
    x, w = data
    positions = layout.positions()
    values = greedy_order([loss_of(x, w, layout)], len(positions))
    gone: set[int] = set()
    for index in np.argsort(values)[:-1]:
        left = [i for i in range(len(positions)) if i not in gone]
        losses = {i: refit_loss(x, w, set(positions[[*gone, i]].reshape(-1).tolist())) for i in left}
        assert min(losses, key=losses.get) == index
        assert values[index] == pytest.approx(losses[index], rel=1e-6)
        gone.add(int(index))


def measured(x, name="w"):
    gram = torch.from_numpy(x.T @ x / len(x))
    count = torch.tensor(float(len(x)), dtype=torch.float64)
    return Statistics({Gram(): {name: gram}, InputMoment("count"): {name: count}}, 1)


def module(w):
    holder = torch.nn.Module()
    holder.w = torch.nn.Parameter(torch.from_numpy(w))
    return ModuleSource(holder)


def test_best_sets_are_found_by_trying_all(data):
    x, w = data
    group = Group(Axis("a", "kv_group", 3), (Site("w", 1, PAIRS, "consumer"),))
    scores = Obs(damp=1e-12).score(group, module(w), measured(x))
    positions = PAIRS.positions()
    for count in (1, 2):
        options = {
            kept: refit_loss(x, w, set(range(6)) - set(positions[list(kept)].reshape(-1).tolist()))
            for kept in combinations(range(3), count)
        }
        assert scores.best[count] == min(options, key=options.get)
    assert Obs(damp=1e-12, exhaustive=0).score(group, module(w), measured(x)).best == {}


def test_a_dead_input_goes_first_and_costs_nothing(data):
    x, w = data
    x[:, 2] = 0
    group = Group(Axis("a", "ffn", FEATURES), (Site("w", 1, PLAIN, "consumer"),))
    scores = Obs().score(group, module(w), measured(x)).values
    assert scores.argmin() == 2
    assert scores[2] <= 1e-3 * scores.max()


def test_a_redundant_input_goes_before_a_smaller_needed_one(data):
    x, w = data
    x[:, 5] = x[:, 4]
    x[:, 0] *= 0.1
    group = Group(Axis("a", "ffn", FEATURES), (Site("w", 1, PLAIN, "consumer"),))
    assert Obs().score(group, module(w), measured(x)).values.argmin() in (4, 5)


def test_stacked_matrices_count_by_their_tokens(data):
    x, w = data
    group = Group(Axis("a", "ffn", FEATURES), (Site("w", 2, PLAIN, "consumer"),))
    gram = torch.from_numpy(x.T @ x / len(x))
    idle = torch.zeros_like(gram)
    statistics = Statistics(
        {
            Gram(): {"w": torch.stack([gram, idle])},
            InputMoment("count"): {"w": torch.tensor([200.0, 0.0], dtype=torch.float64)},
        },
        1,
    )
    stacked = Obs().score(group, module(np.stack([w, 2 * w])), statistics)
    flat = Group(Axis("a", "ffn", FEATURES), (Site("w", 1, PLAIN, "consumer"),))
    np.testing.assert_allclose(stacked.values, Obs().score(flat, module(w), measured(x)).values, rtol=1e-9)
