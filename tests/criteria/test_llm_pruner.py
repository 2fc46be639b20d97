"""Parity with LLM-Pruner: its own dumps, and its formulas evaluated apart from ours."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from surgeon.calibrate import Samples, Statistics, gather, rows
from surgeon.calibrate.gradient import Gradient
from surgeon.calibrate.squared_gradient import SquaredGradient
from surgeon.criteria import channels, trainable
from surgeon.criteria.magnitude import Magnitude
from surgeon.criteria.taylor import Taylor
from surgeon.rebuild import ModuleSource
from tests.criteria import original
from tests.handmade import llama_graph

BOTH = (Gradient(), SquaredGradient())


@pytest.fixture(scope="module")
def reference(shared_data):
    """The dumps' model in float32, its Graph, and the statistics of the dumps' tokens."""
    folder = shared_data / "reference"
    model = AutoModelForCausalLM.from_pretrained(folder / "tiny-llama", dtype=torch.float32)
    ids = load_file(folder / "ids-llm_pruner.safetensors")["input_ids"]
    measured = gather(model, rows(ids.tolist()), BOTH, batch_size=10)
    return folder, ModuleSource(model), llama_graph(model.config), measured


def score(criterion, group, graph, weights, statistics):
    return criterion.score(trainable(group, graph), weights, statistics.only(criterion.needs())).values


def dump(folder, name):
    record = json.loads((folder / f"{name}.json").read_text())
    return record, load_file(folder / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("name", "criterion"),
    [
        ("llmpruner_tiny_l2_r0.25", Magnitude()),
        ("llmpruner_tiny_l2_global_r0.25", Magnitude()),
        ("llmpruner_tiny_taylor_param_first_r0.25", Taylor()),
    ],
)
def test_scores_and_pruned_sets_equal_the_dumps(reference, name, criterion):
    folder, weights, graph, statistics = reference
    record, tensors = dump(folder, name)
    if record["loss"] is not None:
        assert statistics.loss == pytest.approx(record["loss"], abs=1e-5)
    ours, theirs = {}, record["pruned_channels"]
    for layer in range(1, 7):
        for axis, root, d in (("attn.kv_group", "self_attn.q_proj", 16), ("mlp.ffn", "mlp.gate_proj", 1)):
            root = f"model.layers.{layer}.{root}"
            expected = tensors[f"importance.{root}"].numpy().reshape(-1, d).sum(1)
            got = score(criterion, graph.group(f"layers.{layer}.{axis}"), graph, weights, statistics)
            np.testing.assert_allclose(got, expected, rtol=1e-4)
            ours[root] = (got, d)
    if record["global_pruning"]:
        pruned = original.global_pruned({root: got for root, (got, _) in ours.items()}, record["ratio"])
    else:
        n = {d: int(len(got) * record["ratio"]) for got, d in ours.values()}
        pruned = {root: np.sort(np.argsort(got)[: n[d]]) for root, (got, d) in ours.items()}
    for root, (_, d) in ours.items():
        spread = [h * d + c for h in pruned[root] for c in range(d)]
        assert spread == theirs.get(root, [])


KINDS = ["l1", "l2", "vectorize", "param_first", "param_second", "param_mix"]


def ours_for(kind, reduce):
    return Magnitude(norm=kind, reduce=reduce) if kind in ("l1", "l2") else Taylor(order=kind, reduce=reduce)


@pytest.fixture(scope="module")
def small():
    """A grouped-query Llama with statistics, as (weights, graph, statistics, numpy tensors)."""
    from transformers import LlamaForCausalLM

    from tests.conftest import llama_config

    torch.manual_seed(3)
    config = llama_config()
    model = LlamaForCausalLM(config).double()
    ids = torch.randint(3, 53, (4, 12), generator=torch.Generator().manual_seed(4))
    statistics = gather(model, rows(ids.tolist()), BOTH)
    source = ModuleSource(model)
    tensors = {
        name: tuple(t.numpy() for t in (source.get(name), *(statistics.get(key)[name] for key in BOTH)))
        for name, _ in model.named_parameters()
    }
    return source, llama_graph(config), statistics, tensors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "prod", "first"])
def test_every_kind_and_reduction_equals_the_formulas(small, kind, reduce):
    source, graph, statistics, tensors = small
    for layer in range(3):
        ffn = original.group_score(kind, reduce, original.ffn_members(layer), tensors)
        got = score(ours_for(kind, reduce), graph.group(f"layers.{layer}.mlp.ffn"), graph, source, statistics)
        np.testing.assert_allclose(got, ffn, rtol=1e-10)
        heads = original.group_score(kind, reduce, original.head_members(layer, 3, 2, 8), tensors)
        group = graph.group(f"layers.{layer}.attn.kv_group")
        assert channels(group) == 8
        got = score(ours_for(kind, reduce), group, graph, source, statistics)
        np.testing.assert_allclose(got, heads.reshape(-1, 8).sum(1), rtol=1e-10)


def test_query_heads_are_credited_to_the_group_that_uses_them(small_llama):
    """Silence query heads 2 and 3: key/value head 1 uses them, and head 1 alone must score less."""
    model = small_llama()
    graph, weights = llama_graph(model.config), ModuleSource(model)
    group = graph.group("layers.1.attn.kv_group")
    nothing = Statistics()
    before = score(Magnitude(reduce="sum"), group, graph, weights, nothing)
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[2 * 8 : 4 * 8] = 0
        model.model.layers[1].self_attn.o_proj.weight[:, 2 * 8 : 4 * 8] = 0
    after = score(Magnitude(reduce="sum"), group, graph, weights, nothing)
    assert after[1] < before[1]
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])


def test_fused_and_split_projections_score_alike(small_llama):
    """GPT-NeoX fuses q, k, v head by head; scores must not depend on how tensors are laid out."""
    from surgeon.graph import Axis, Group, Layout, Mode, Site

    w = torch.randn(3 * 8 * 4, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    class One:
        def __init__(self, tensors):
            self.tensors = tensors

        def names(self):
            return tuple(self.tensors)

        def shape(self, name):
            return tuple(self.tensors[name].shape)

        def get(self, name):
            return self.tensors[name]

    interleaved = tuple(
        Site("qkv", 0, Layout(8 * part, (Mode(4, 24), Mode(8, 1)), 0), "producer") for part in range(3)
    )
    split = tuple(
        Site("qkv"[part], 0, Layout(0, (Mode(4, 8), Mode(8, 1)), 0), "producer") for part in range(3)
    )
    transposed = tuple(Site(site.param, 1, site.layout, "producer") for site in interleaved)
    parts = {"qkv"[part]: w.view(4, 3, 8, 20)[:, part].reshape(32, 20) for part in range(3)}
    for reduce in ("sum", "max", "prod"):
        found = [
            Magnitude(reduce=reduce)
            .score(Group(Axis("a", "kv_group", 4), sites), One(source), Statistics())
            .values
            for sites, source in (
                (interleaved, {"qkv": w}),
                (split, parts),
                (transposed, {"qkv": w.T.contiguous()}),
            )
        ]
        np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
        np.testing.assert_allclose(found[0], found[2], rtol=1e-12)


def test_tied_tensors_count_once(small_llama):
    tied = small_llama(tie_word_embeddings=True)
    graph, weights = llama_graph(tied.config), ModuleSource(tied)
    group = trainable(graph.group("vocab"), graph)
    assert [site.param for site in group.sites] == ["model.embed_tokens.weight"]
    got = Magnitude(norm="l1", reduce="sum").score(group, weights, Statistics()).values
    np.testing.assert_allclose(got, tied.lm_head.weight.detach().double().abs().sum(1).numpy(), rtol=1e-6)


def test_low_precision_weights_are_scored_in_float32():
    """256 squares of 1/16: bfloat16 sums would stall far below."""
    from surgeon.criteria import sum_to_dim, widened

    w = torch.full((3, 4096), 1 / 16, dtype=torch.bfloat16)
    assert sum_to_dim(widened(w).square(), 0).tolist() == [16.0] * 3


def test_samples_of_the_dump_are_taken_as_they_are(shared_data):
    ids = load_file(shared_data / "reference" / "ids-llm_pruner.safetensors")["input_ids"]
    got: Samples = rows(ids.tolist(), samples=10, seq_len=64)
    assert torch.equal(got.ids, ids)
    assert got.mask.all()
