"""Measured block by block from disk: the same numbers, and one block's weights at a time."""

from __future__ import annotations

import threading

import pytest
import torch

import surgeon
from surgeon.api.subject import Subject
from surgeon.calibrate import Samples, gather, rows
from surgeon.calibrate.absolute_gradient import AbsoluteGradient
from surgeon.calibrate.block_similarity import BlockSimilarity
from surgeon.calibrate.fluctuation import Fluctuation
from surgeon.calibrate.gradient import Gradient
from surgeon.calibrate.gram import Gram
from surgeon.calibrate.input_moment import InputMoment
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.calibrate.streamed import gather_streamed
from surgeon.errors import CheckpointError, SurgeonError
from surgeon.io.disk_source import DiskTensor
from surgeon.io.waiting import Waiting
from surgeon.plan import DropBlock, Keep, Plan
from surgeon.rebuild import masked
from surgeon.rebuild.reading import THREAD
from surgeon.rebuild.unread import Unread
from tests.handmade import llama_graph

BLOCKS = tuple(f"model.layers.{place}" for place in range(3))
PARAMS = tuple(
    f"{block}.{part}" for block in BLOCKS for part in ("mlp.down_proj.weight", "self_attn.o_proj.weight")
)
KEYS = (
    InputMoment("mean", PARAMS),
    InputMoment("variance", PARAMS),
    Gram(params=PARAMS),
    Gram(True, PARAMS),
)
CUT = Plan("llama").add([Keep("layers.1.mlp.ffn", tuple(range(0, 40, 3)), 0)])
SHORT = CUT.add([DropBlock("model.layers.0", 1)])


@pytest.fixture
def samples() -> Samples:
    ids = torch.randint(3, 53, (5, 11), generator=torch.Generator().manual_seed(4))
    return rows([row[: 7 + place] for place, row in enumerate(ids.tolist())])


@pytest.fixture
def folder(small_llama, tmp_path):
    small_llama().bfloat16().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("plan", [Plan("llama"), CUT, SHORT], ids=["whole", "cut", "short"])
def test_the_same_numbers_as_at_once(folder, samples, plan):
    stored, loaded = Subject(folder, stream=True).measured, Subject(folder).wide
    assert all(isinstance(parameter, Unread) for parameter in stored.parameters())
    assert stored.dtype == torch.float32
    graph = llama_graph(loaded.config)
    whole = gather(loaded, samples, KEYS, view=masked(loaded, plan, graph))
    view = masked(stored, plan, graph)
    found = gather_streamed(view, BLOCKS, plan.dropped, samples, KEYS, batch_size=2)
    assert (found.samples, found.tokens, found.loss) == (whole.samples, whole.tokens, None)
    for key in KEYS:
        expected = {n: t for n, t in whole.get(key).items() if not n.startswith(plan.dropped or ("-",))}
        assert set(found.get(key)) == set(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found.get(key)[name], value, rtol=1e-4, atol=1e-6)


SECOND = (Gradient(PARAMS), SquaredGradient(PARAMS), AbsoluteGradient(PARAMS), InputMoment("mean", PARAMS))


@pytest.mark.parametrize("plan", [Plan("llama"), CUT, SHORT], ids=["whole", "cut", "short"])
def test_gradients_are_those_of_the_whole_model(small_llama, samples, plan):
    model = small_llama().double()
    view = masked(model, plan, llama_graph(model.config))
    whole = gather(model, samples, SECOND, view=view)
    found = gather_streamed(view, BLOCKS, plan.dropped, samples, SECOND)
    assert found.loss == pytest.approx(whole.loss, rel=1e-12)
    for key in SECOND:
        gone = plan.dropped or ("-",)
        assert set(found.get(key)) == {name for name in whole.get(key) if not name.startswith(gone)}
        for name, value in found.get(key).items():
            torch.testing.assert_close(value, whole.get(key)[name], rtol=1e-9, atol=1e-15)


def test_gradients_of_stored_weights(folder, samples):
    stored, loaded = Subject(folder, stream=True).measured, Subject(folder).wide
    graph = llama_graph(loaded.config)
    whole = gather(loaded, samples, SECOND, view=masked(loaded, CUT, graph))
    found = gather_streamed(masked(stored, CUT, graph), BLOCKS, (), samples, SECOND)
    for key in SECOND:
        assert set(found.get(key)) == set(PARAMS)
        for name, value in found.get(key).items():
            torch.testing.assert_close(value, whole.get(key)[name], rtol=1e-4, atol=1e-8)


def test_gradients_of_what_blocks_share_are_refused(small_llama, samples):
    model = small_llama()
    shared = model.model.layers[0].mlp.down_proj
    model.model.layers[1].mlp.down_proj.weight = shared.weight
    view = masked(model, Plan("llama"), llama_graph(model.config))
    with pytest.raises(SurgeonError, match="is the same tensor, and lies elsewhere"):
        gather_streamed(view, BLOCKS, (), samples, [Gradient((PARAMS[0],))])


@pytest.mark.parametrize("criterion", [{"criterion": "taylor", "order": "param_mix"}, "gblm"], ids=str)
def test_a_plan_by_gradients_that_is_streamed_is_the_same(folder, criterion):
    ids = torch.randint(3, 53, (5, 12), generator=torch.Generator().manual_seed(0)).tolist()
    step = {"op": "remove", "select": {"kind": ["ffn"]}, "keep": {"fraction": 0.67}, "criterion": criterion}
    recipe = {"surgeon": 1, "steps": [step]}
    plain = surgeon.plan(folder, recipe, texts=[ids])
    assert surgeon.plan(folder, recipe, texts=[ids], stream=True).edits == plain.edits


def test_each_weight_of_a_block_is_read_once(folder, samples, elements_read):
    stored = Subject(folder, stream=True).measured
    view = masked(stored, Plan("llama"), llama_graph(stored.config))
    gather_streamed(view, BLOCKS, (), samples, KEYS)
    for at in range(1, len(BLOCKS)):  # the first is read once more, to see how blocks are called
        assert elements_read[f"model.layers.{at}.mlp.down_proj.weight"] == 48 * 40


@pytest.mark.parametrize("plan", [Plan("llama"), CUT, SHORT], ids=["whole", "cut", "short"])
@pytest.mark.parametrize("keys", [KEYS, SECOND], ids=["forward", "backward"])
def test_the_next_block_is_read_while_one_computes(folder, samples, monkeypatch, plan, keys):
    """As where a device computes: by another thread, which has the next Block before this one is through."""
    seen: list[tuple[str, bool]] = []
    read = DiskTensor._read

    def noted(self, dims):
        seen.append((self.name, threading.current_thread().name.startswith(THREAD)))
        return read(self, dims)

    monkeypatch.setattr(DiskTensor, "_read", noted)
    stored = Subject(folder, stream=True).measured
    view = masked(stored, plan, llama_graph(stored.config))
    expected = gather_streamed(view, BLOCKS, plan.dropped, samples, keys, ahead=False)
    assert not any(apart for _, apart in seen)
    seen.clear()
    found = gather_streamed(view, BLOCKS, plan.dropped, samples, keys, ahead=True)
    for key in keys:
        assert set(found.get(key)) == set(expected.get(key))
        assert all(torch.equal(found.get(key)[name], value) for name, value in expected.get(key).items())
    assert found.loss == expected.loss
    left = [block for block in BLOCKS if block not in plan.dropped]
    begun = {name for name, apart in seen if apart}
    assert {f"{block}.mlp.down_proj.weight" for block in left[1:]} <= begun
    behind = tuple(f"{block}.mlp" for block in left[1:])
    assert not [name for name, apart in seen if not apart and name.startswith(behind)]


def test_what_vanishes_while_it_is_read_ahead_is_said(folder, samples, monkeypatch):
    read = DiskTensor._read

    def failing(self, dims):
        if self.name.startswith(BLOCKS[1]) and threading.current_thread().name.startswith(THREAD):
            raise CheckpointError("the shard is gone")
        return read(self, dims)

    monkeypatch.setattr(DiskTensor, "_read", failing)
    stored = Subject(folder, stream=True).measured
    view = masked(stored, Plan("llama"), llama_graph(stored.config))
    with pytest.raises(CheckpointError, match="the shard is gone"):
        gather_streamed(view, BLOCKS, (), samples, KEYS, ahead=True)


def test_what_is_not_of_single_blocks_is_refused(folder, samples):
    stored = Subject(folder, stream=True).measured
    view = masked(stored, Plan("llama"), llama_graph(stored.config))
    for key, why in (
        (Gradient(), "of all parameters cannot be streamed"),
        (Gradient(("lm_head.weight",)), "it lies in no block"),
        (BlockSimilarity(blocks=BLOCKS[:2]), "is not of single blocks"),
        (InputMoment("mean", ("lm_head.weight",)), "it lies in no block"),
    ):
        with pytest.raises(SurgeonError, match=why):
            gather_streamed(view, BLOCKS, (), samples, [key])
    found = gather_streamed(view, BLOCKS, (), samples, [Fluctuation("baseline", PARAMS)], batch_size=3)
    assert set(found.get(Fluctuation("baseline", PARAMS))) == set(PARAMS)


def test_a_plan_that_is_streamed_is_the_same(folder, tmp_path):
    ids = torch.randint(3, 53, (5, 12), generator=torch.Generator().manual_seed(0)).tolist()
    step = {
        "op": "remove",
        "select": {"kind": ["ffn", "kv_group"]},
        "keep": {"fraction": 0.67},
        "criterion": "flap",
        "repair": {"repair": "refit", "target": "layer", "constant": False},
    }
    recipe = {"surgeon": 1, "steps": [step]}
    plain = surgeon.plan(folder, recipe, texts=[ids])
    streamed = surgeon.plan(folder, recipe, texts=[ids], stream=True)
    assert streamed.edits == plain.edits
    for name, value in plain.values.items():
        torch.testing.assert_close(streamed.values[name], value, rtol=2e-2, atol=1e-3)


def test_a_repair_toward_the_stream_reads_from_disk_too(folder):
    ids = torch.randint(3, 53, (5, 12), generator=torch.Generator().manual_seed(0)).tolist()
    step = {
        "op": "remove",
        "select": {"kind": ["ffn"]},
        "keep": {"fraction": 0.6},
        "criterion": "magnitude",
        "repair": "refit",
    }
    recipe = {"surgeon": 1, "steps": [step, {"op": "drop_blocks", "keep": {"count": 2}, "criterion": "tail"}]}
    plain = surgeon.plan(folder, recipe, texts=[ids])
    streamed = surgeon.plan(folder, recipe, texts=[ids], stream=True)
    assert streamed.edits == plain.edits
    assert plain.values
    for name, value in plain.values.items():
        torch.testing.assert_close(streamed.values[name], value, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("criterion", ["taylor", "gblm"])
def test_scores_are_made_where_gradients_are_measured(folder, monkeypatch, criterion):
    """What waits between blocks is states and scores: nothing of the shape of a weight."""
    kept: list[tuple[int, ...]] = []
    monkeypatch.setattr(Waiting, "keep", lambda self, tensor: kept.append(tuple(tensor.shape)) or tensor)
    ids = torch.randint(3, 53, (5, 12), generator=torch.Generator().manual_seed(0)).tolist()
    step = {"op": "remove", "select": {"kind": ["ffn"]}, "keep": {"fraction": 0.67}, "criterion": criterion}
    surgeon.plan(folder, {"surgeon": 1, "steps": [step]}, texts=[ids], stream=True)
    assert (41,) in kept  # scores of 40 channels, and their spread
    assert (1, 12, 48) in kept  # states
    assert not {(48, 40), (40, 48)} & set(kept)


def test_a_gram_matrix_does_not_wait_either(folder, monkeypatch):
    kept: list[tuple[int, ...]] = []
    monkeypatch.setattr(Waiting, "keep", lambda self, tensor: kept.append(tuple(tensor.shape)) or tensor)
    ids = torch.randint(3, 53, (5, 12), generator=torch.Generator().manual_seed(0)).tolist()
    repair = {"repair": "refit", "target": "layer"}
    step = {"op": "remove", "select": {"kind": "ffn"}, "keep": {"fraction": 0.67}, "criterion": "magnitude"}
    surgeon.plan(folder, {"surgeon": 1, "steps": [{**step, "repair": repair}]}, texts=[ids], stream=True)
    assert (48, 40) in kept  # the fitted projection
    assert (40, 40) not in kept
