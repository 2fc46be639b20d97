from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surgeon.criteria.expression import Expression
from surgeon.criteria.formula import parse

W, G, X = (np.random.default_rng(i).normal(size=(4, 3)) for i in range(3))
G, X = np.abs(G), X[:1] ** 2
CASES = {
    "W": W,
    "mul(sqr(W), minmax(G))": W**2 * (G - G.min()) / (G.max() - G.min() + 1e-9),
    "add(abs(W), neg(sqrt(X)))": np.abs(W) - np.sqrt(X),
    "div(W, exp(tanh(G)))": W / (np.linalg.norm(np.exp(np.tanh(G))) + 1e-9),
    " sub( log(W) ,skip(zscore(G)) ) ": np.log(np.abs(W) + 1e-3) - (G - G.mean()) / (G.std() + 1e-9),
}


@pytest.mark.parametrize("text", CASES)
def test_value(text):
    leaves = {"W": torch.from_numpy(W), "G": torch.from_numpy(G), "X": torch.from_numpy(X)}
    np.testing.assert_allclose(parse(text).value(leaves).numpy(), CASES[text], rtol=1e-9)


def test_leaves():
    assert parse("mul(sqr(W), add(X, W))").leaves() == {"W", "X"}
    assert {k.statistic for k in Expression(formula="mul(W, X)").needs()} == {"input_moment"}
    assert {k.statistic for k in Expression(gradient_norm="l2").needs()} == {"squared_gradient"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1: expected a symbol, got the end"),
        ("mul(W, H)", r"character 8: no symbol 'H'; try one of W, G, X"),
        ("mul(W G)", r"character 7: expected ',', got 'G'"),
        ("abs(W, G)", r"character 6: expected '\)', got ','"),
        ("zscor(W)", "character 1: no symbol 'zscor'; try 'zscore'"),
        ("W)", r"character 2: expected the end, got '\)'"),
        ("mul(W, __import__('os'))", "character 8: no symbol '__import__'"),
        ("abs(W + G)", r"character 7: '\+' is no part of a formula"),
        ("abs(" * 70 + "W" + ")" * 70, "more than 64 calls within each other"),
    ],
)
def test_errors_say_where(text, message):
    with pytest.raises(ValueError, match=message):
        Expression(formula=text)


@given(st.text(alphabet="WGXabsneg(), ", max_size=30))
def test_nothing_but_a_value_error(text):
    try:
        leaves = parse(text).leaves()
    except ValueError:
        leaves = frozenset()
    assert leaves <= {"W", "G", "X"}
