from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surgeon.calibrate import Samples, check_ids, encode, pack, rows, shares
from surgeon.errors import InputError


@given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 8), st.integers(0, 5))
def test_pack_draws_distinct_windows_of_the_stream(seq_len, windows, rest, seed):
    stream = list(range(windows * seq_len + min(rest, seq_len - 1)))
    got = pack(stream, windows, seq_len, seed)
    assert got.mask.all()
    assert sorted(got.ids[:, 0].tolist()) == [i * seq_len for i in range(windows)]
    assert torch.equal(got.ids - got.ids[:, :1], torch.arange(seq_len).expand(windows, -1))


def test_pack_is_a_prefix_in_samples_and_depends_on_the_seed():
    stream = list(range(200))
    few, many = pack(stream, 4, 10, 3), pack(stream, 9, 10, 3)
    assert torch.equal(few.ids, many.ids[:4])
    assert not torch.equal(few.ids, pack(stream, 4, 10, 4).ids)


def test_pack_says_how_much_text_there_is():
    with pytest.raises(
        InputError, match=r"8 samples of 10 tokens \(80 tokens\); the text has 35 tokens"
    ) as e:
        pack(list(range(35)), 8, 10, 0)
    assert e.value.hint is not None
    assert "samples: 3" in e.value.hint
    with pytest.raises(InputError, match="which makes 0") as e:
        pack([1, 2], 1, 10, 0)
    assert e.value.hint == "more text"
    with pytest.raises(InputError, match="seq_len 1 leaves no token"):
        pack([1, 2], 1, 1, 0)


def test_rows_are_cut_padded_and_masked():
    got = rows([[5, 6, 7, 8], [1, 2]], seq_len=3)
    assert got.ids.tolist() == [[5, 6, 7], [1, 2, 0]]
    assert got.mask.tolist() == [[True, True, True], [True, True, False]]
    assert got.predicted == 3
    assert len(rows([[1, 2], [3, 4]], samples=1)) == 1


def test_rows_refuse_too_few_and_too_short():
    with pytest.raises(InputError, match="asks for 3 samples; the token file has 2 rows"):
        rows([[1, 2], [3, 4]], samples=3)
    with pytest.raises(InputError, match="the token file has 0 rows"):
        rows([])
    with pytest.raises(InputError, match=r"rows \[1\] of the token file have fewer than 2 tokens"):
        rows([[1, 2], [3]])


@given(st.integers(1, 200), st.lists(st.floats(0.1, 10), min_size=1, max_size=6))
def test_shares_add_up_and_stay_within_one_of_proportional(samples, weights):
    got = shares(samples, weights)
    assert sum(got) == samples
    for part, weight in zip(got, weights, strict=True):
        assert abs(part - samples * weight / sum(weights)) < 1 + 1e-9


def test_joined_pads_to_the_longest():
    one = rows([[1, 2, 3]])
    two = rows([[4, 5]])
    both = Samples.joined([one, two])
    assert both.ids.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert both.mask.tolist() == [[True] * 3, [True, True, False]]


class Letters:
    def encode(self, text, *, add_special_tokens=True, verbose=True):
        return [0] * add_special_tokens * bool(text) + [ord(c) - 96 for c in text]


def test_encode_joins_documents_each_with_its_special_tokens():
    assert encode(Letters(), ["ab", "c"]) == (0, 1, 2, 0, 3)
    with pytest.raises(InputError, match="holds no token"):
        encode(Letters(), [""])


def test_ids_outside_the_vocabulary_are_refused():
    check_ids([[0, 4]], 5)
    with pytest.raises(InputError, match=r"row 1 .* id 5; the model's vocabulary has 5 \(ids 0 to 4\)"):
        check_ids([[0], [1, 5]], 5)
