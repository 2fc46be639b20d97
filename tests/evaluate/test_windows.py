"""Every token is scored once, with the context that the protocol promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surgeon.errors import InputError
from surgeon.evaluate import Windowing, windows


@given(n=st.integers(2, 60), window=st.integers(2, 20), data=st.data(), bos=st.sampled_from([None, 99]))
def test_overlapping_windows_score_every_token_once(n, window, data, bos):
    stride = data.draw(st.integers(1, window - 1)) if bos is None else data.draw(st.integers(1, window))
    scored = torch.cat([w.targets for w in windows(torch.arange(n), Windowing(window, stride, bos))])
    expected = torch.arange(n) if bos is not None else torch.arange(1, n)
    assert scored.tolist() == expected.tolist()


def test_windows_side_by_side_leave_out_their_first_tokens():
    found = [w.targets.tolist() for w in windows(torch.arange(10), Windowing(4))]
    assert found == [[1, 2, 3], [5, 6, 7], [9]]


def test_predictions_stand_before_their_targets():
    (_, window) = windows(torch.arange(6), Windowing(4, 2))
    logits = torch.arange(4.0)[None, :, None]
    assert window.tokens.tolist() == [[2, 3, 4, 5]]
    assert window.targets.tolist() == [4, 5]
    assert window.predictions(logits)[:, 0].tolist() == [1, 2]


def test_a_protocol_says_what_it_is():
    assert str(Windowing(128)) == "window 128, stride 128, no start token"
    assert str(Windowing(128, 64, 1)) == "window 128, stride 64, start token 1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1,), "window of 1 tokens"), ((8, 9), "stride 9 does not fit"), ((8, 0), "stride 0 does not fit")],
)
def test_a_protocol_that_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        Windowing(*arguments)


def test_a_text_too_short_to_score():
    with pytest.raises(InputError, match="the text has 1 tokens, at least 2"):
        list(windows(torch.arange(1), Windowing(4)))
