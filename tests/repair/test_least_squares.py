from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.repair.least_squares import anchored


def problem(seed, tokens=60, features=5, outputs=3):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(tokens, features)) @ rng.normal(size=(features, features))
    return a, rng.normal(size=(tokens, outputs)), rng.normal(size=(features, outputs))


def solve(a, r, w0, ridge, constant=False):
    n = len(a)
    gram, cross = torch.from_numpy(a.T @ a / n), torch.from_numpy(a.T @ r / n)
    return anchored(gram, cross, torch.from_numpy(w0), ridge, constant).numpy()


def stacked(a, r, w0, strengths):
    """The same problem as one plain least squares: the ridge as rows that pull toward the anchor."""
    pull = np.diag(np.sqrt(len(a) * strengths))
    return np.linalg.lstsq(np.vstack([a, pull]), np.vstack([r, pull @ w0]), rcond=None)[0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1e-3, 0.01, 1.0]))
def test_equals_lstsq(seed, ridge):
    a, r, w0 = problem(seed)
    strength = ridge * (a**2).mean()
    want = stacked(a, r, w0, np.full(5, strength))
    np.testing.assert_allclose(solve(a, r, w0, ridge), want, rtol=1e-5, atol=1e-7)


def test_the_constant_is_not_held_back():
    a, r, w0 = problem(1)
    with_one = np.concatenate([a, np.ones((len(a), 1))], 1)
    anchor = np.concatenate([w0, np.zeros((1, 3))])
    strengths = np.append(np.full(5, 0.01 * (a**2).mean()), 0)
    want = stacked(with_one, r, anchor, strengths)
    np.testing.assert_allclose(solve(with_one, r, anchor, 0.01, constant=True), want, rtol=1e-6)


def test_without_tokens_the_anchor_stays():
    _, _, w0 = problem(2)
    got = anchored(torch.zeros(5, 5), torch.zeros(5, 3), torch.from_numpy(w0), 0.01)
    np.testing.assert_array_equal(got.numpy(), w0)


@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_a_feature_that_never_moves_keeps_its_weights(ridge):
    a, r, w0 = problem(3)
    a[:, 2] = 0
    np.testing.assert_allclose(solve(a, r, w0, ridge)[2], w0[2], rtol=1e-9)


def test_a_strong_ridge_holds_the_anchor():
    a, r, w0 = problem(4)
    np.testing.assert_allclose(solve(a, r, w0, 1e9), w0, rtol=1e-6)
