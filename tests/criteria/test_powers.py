"""Sums of powers of weights, against numpy in float64: of tensors, of numbers, and of what lies in a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from surgeon.criteria import powers as module
from surgeon.criteria.powers import powers
from surgeon.errors import CheckpointError
from surgeon.io.header import read_header
from surgeon.io.slices import Files
from surgeon.io.stored_numbers import has_numbers, stored_numbers
from surgeon.operations.masked_weights import MaskedWeights
from surgeon.plan import Keep, Plan
from surgeon.rebuild.tensors import as_numbers
from tests.conftest import llama_config
from tests.criteria.test_saliency import InRows, Whole
from tests.handmade import llama_graph

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


def drawn(shape, dtype=torch.bfloat16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


class Numbers(Whole):
    """A source that has numbers and must not be asked for tensors."""

    def get(self, name):
        raise AssertionError("a tensor was asked for")

    def numbers(self, name, starts):
        memory = None
        for start in starts:
            found = as_numbers(self.tensor[start : start + starts.step])
            if memory is None:
                memory = found.copy()
            memory[: len(found)] = found
            yield memory[: len(found)]


@pytest.mark.parametrize("block", [1, 7, 40, 1 << 16])
@pytest.mark.parametrize("kind", [Whole, InRows, Numbers])
@pytest.mark.parametrize("shape", [(9,), (9, 5), (4, 3, 6), (0, 5), (6, 0)])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_sums_over_all_other_dims(monkeypatch, shape, kind, block, norm):
    monkeypatch.setattr(module, "BLOCK", block)
    tensor = drawn(shape)
    exact = np.abs(tensor.double().numpy()) ** (1 if norm == "l1" else 2)
    for dim in range(len(shape)):
        found = powers(kind(tensor), "w", dim, norm)
        want = exact.sum(axis=tuple(other for other in range(len(shape)) if other != dim))
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, want, rtol=1e-13)


def test_every_row_is_read_once(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 10)
    source = InRows(drawn((23, 5)))
    powers(source, "w", 1, "l2")
    assert sorted(place for start, stop in source.read for place in range(start, stop)) == list(range(23))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (6, 5), (3, 4, 2)])
def test_stored_numbers_are_the_elements(tmp_path, dtype, shape):
    tensor = drawn(shape, dtype)
    tensor.view(-1)[:4] = torch.tensor([0.0, -0.0, torch.finfo(dtype).max, torch.finfo(dtype).tiny])
    save_file({"other": torch.ones(3), "w": tensor}, tmp_path / "w.safetensors")
    header = read_header(tmp_path / "w.safetensors")["w"]
    with Files() as files:
        for starts in (range(0, 1, shape[0]), range(0, shape[0], 2), range(1, shape[0], 3), range(0)):
            for start, found in zip(starts, stored_numbers(files, header, starts), strict=True):
                assert found.dtype == (np.float64 if dtype == torch.float64 else np.float32)
                want = tensor[start : start + starts.step]
                assert np.array_equal(found, want.double().numpy())
                assert np.array_equal(as_numbers(want), found)


def test_integers_have_no_stored_numbers(tmp_path):
    save_file({"i": torch.arange(3), "scalar": torch.tensor(1.0)}, tmp_path / "i.safetensors")
    assert not any(map(has_numbers, read_header(tmp_path / "i.safetensors").values()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_source_is_asked_for_what_is_not_finite(bad):
    tensor = drawn((4, 3))
    tensor[2, 1] = bad

    class Knows(Whole):
        def get(self, name):
            raise CheckpointError(f"'{name}' is broken")

        def numbers(self, name, starts):
            return iter([as_numbers(self.tensor)])

    with pytest.raises(CheckpointError, match="'w' is broken"):
        powers(Knows(tensor), "w", 0, "l1")


def test_numbers_under_a_plan_are_those_of_the_tensors():
    graph = llama_graph(llama_config())
    names = [f"model.layers.0.mlp.{part}_proj.weight" for part in ("up", "down")]
    tensors = {name: drawn(graph.parameters[name].shape) for name in names}

    class Source:
        def names(self):
            return tuple(tensors)

        def shape(self, name):
            return tuple(tensors[name].shape)

        def get(self, name):
            return tensors[name]

    kept = (0, 2, 3, 7, 11)
    plan = Plan(graph.model_type, (Keep("layers.0.mlp.ffn", kept, 0),), values={names[0]: -tensors[names[0]]})
    weights = MaskedWeights(Source(), plan, graph)
    for name in names:
        before = tensors[name].clone()
        size = len(tensors[name])
        found = [run.copy() for run in weights.numbers(name, range(0, size, 5))]
        assert np.array_equal(np.concatenate(found), weights.get(name).float().numpy())
        assert torch.equal(tensors[name], before)
