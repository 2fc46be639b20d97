"""Described tensors read as what torch computes, and stay selections where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.rebuild.lazy import Stored, Value, as_lazy, selection


def stored(name="a", shape=(4, 3)):
    tensor = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape) + len(name)

    def read(dims):
        found = tensor
        for dim, kept in dims.items():
            found = found.index_select(dim, torch.from_numpy(kept))
        return found

    return tensor, Stored(name, shape, tensor.dtype, read)


FUNCTIONS = {
    "transpose": lambda t: torch.transpose(t, 0, 1),
    "transpose by name": lambda t: torch.transpose(t, dim0=0, dim1=1),
    "cat": lambda t: torch.cat([t, torch.mul(t, 2)], dim=0),
    "stack": lambda t: torch.stack([t, torch.add(t, 1)], dim=0).flatten(0, 1),
    "chunk": lambda t: torch.chunk(t, 2, dim=0)[0],
    "split": lambda t: torch.split(t, [1, t.shape[0] - 1], dim=0)[1],
    "select": lambda t: t.select(0, -1).unsqueeze(0),
    "item": lambda t: t[0].unsqueeze(0),
    "slice": lambda t: t[: max(1, t.shape[0] // 2)],
    "squeeze": lambda t: t.unsqueeze(1).squeeze(1),
    "keep": lambda t: t.index_select(1, torch.tensor([t.shape[1] - 1, 0])),
    "fill": lambda t: t.index_fill(0, torch.tensor([0]), 7.0),
    "cast": lambda t: t.to(torch.float64),
    "reshape": lambda t: t.reshape(t.shape[1], t.shape[0]),
}


@given(st.lists(st.sampled_from(sorted(FUNCTIONS)), max_size=5), st.integers(2, 5), st.integers(2, 5))
@settings(max_examples=120, deadline=None)
def test_reads_what_torch_computes(names, rows, columns):
    want, got = stored(shape=(rows, columns))
    for name in names:
        if name in ("split",) and want.shape[0] < 2:
            continue
        want, got = FUNCTIONS[name](want), FUNCTIONS[name](got)
        assert got.shape == want.shape
        assert got.dtype == want.dtype
    assert torch.equal(as_lazy(got).read(), want)
    kept = np.arange(0, want.shape[0], 2)
    assert torch.equal(as_lazy(got).keep(0, kept).read(), want[::2])


def test_experts_that_are_joined_cut_and_split_again_are_selections():
    gates, ups = ([stored(f"{kind}{n}", (6, 5))[1] for n in range(4)] for kind in ("gate", "up"))
    fused = torch.cat([torch.stack(gates), torch.stack(ups)], dim=1)
    assert fused.shape == (4, 12, 5)
    experts, ffn = torch.tensor([0, 3]), torch.tensor([1, 4, 7, 10])
    cut = fused.index_select(0, experts).index_select(1, ffn).contiguous()
    gate, up = torch.chunk(cut, 2, dim=1)
    for kind, part in (("gate", gate), ("up", up)):
        for place, expert in enumerate((0, 3)):
            found = selection(torch.chunk(part, 2, dim=0)[place].squeeze(0))
            assert found is not None
            assert found[0].name == f"{kind}{expert}"
            assert {dim: kept.tolist() for dim, kept in found[1].items()} == {0: [1, 4]}
    whole = torch.chunk(torch.chunk(fused, 2, dim=1)[1], 4, dim=0)[2].squeeze(0)
    assert selection(whole) == (ups[2], {})


def test_what_is_computed_is_no_selection():
    _, one = stored()
    assert selection(one) == (one, {})
    assert selection(one.transpose(0, 1).transpose(0, 1)) == (one, {})
    assert selection(one.transpose(0, 1)) is None
    assert selection(torch.mul(one, 2)) is None
    assert selection(Value(torch.ones(2))) is None
    with pytest.raises(AttributeError, match="has no attribute 'weight'"):
        _ = one.weight
