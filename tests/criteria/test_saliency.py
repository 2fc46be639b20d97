"""Sums over weights that are read in blocks of rows, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surgeon.criteria import saliency
from surgeon.criteria.saliency import summed


class Whole:
    """A source whose tensors are handed out whole."""

    def __init__(self, tensor):
        self.tensor = tensor

    def names(self):
        return ("w",)

    def shape(self, name):
        return tuple(self.tensor.shape)

    def get(self, name):
        return self.tensor


class InRows(Whole):
    """A source that reads rows, and remembers which."""

    def __init__(self, tensor):
        super().__init__(tensor)
        self.read = []

    def get(self, name):
        raise AssertionError("read whole")

    def rows(self, name, start, stop):
        self.read.append((start, stop))
        return self.tensor[start:stop]


@pytest.mark.parametrize("block", [1, 7, 40, 1 << 19])
@pytest.mark.parametrize("kind", [Whole, InRows])
@pytest.mark.parametrize("shape", [(9,), (9, 5), (4, 3, 6), (0, 5), (6, 0)])
def test_sums_over_all_other_dims(monkeypatch, shape, kind, block):
    monkeypatch.setattr(saliency, "BLOCK", block)
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    exact = np.square(tensor.double().numpy())
    for dim in range(len(shape)):
        source = kind(tensor)
        found = summed(source, "w", dim, lambda w, rows: w.square())
        want = exact.sum(axis=tuple(other for other in range(len(shape)) if other != dim))
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), want, rtol=1e-13)
        if kind is InRows:
            assert [place for start, stop in source.read for place in range(start, stop)] == list(
                range(shape[0])
            )


def test_elements_are_told_their_rows(monkeypatch):
    monkeypatch.setattr(saliency, "BLOCK", 6)
    tensor, other = torch.randn(10, 3), torch.randn(10, 3)
    found = summed(Whole(tensor), "w", 1, lambda w, rows: w * other[rows])
    torch.testing.assert_close(found, (tensor.double() * other).sum(0))
