"""Costs counted from the Graph equal those of models that transformers builds."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from surgeon.graph import Graph
from surgeon.plan import (
    DropBlock,
    Keep,
    Plan,
    kv_cache_elements,
    parameters_after,
    shapes_after,
    sizes,
    unit_cost,
)
from tests.conftest import llama_config
from tests.handmade import llama_graph

LAYERS = 3


def built(**changes: object) -> LlamaForCausalLM:
    with torch.device("meta"):
        return LlamaForCausalLM(llama_config(**changes))


def count(**changes: object) -> int:
    return sum(parameter.numel() for parameter in built(**changes).parameters())


def graph_of(**changes: object) -> Graph:
    return llama_graph(llama_config(**changes))


def keep(name: str, indices: range) -> Keep:
    return Keep(name, tuple(indices), 0)


@pytest.mark.parametrize("tied", [True, False])
def test_unit_cost_is_the_difference_between_two_models(tied):
    graph = graph_of(tie_word_embeddings=tied)
    whole = count(tie_word_embeddings=tied)
    assert graph.parameter_count == whole
    fewer = {
        "layers.0.mlp.ffn": {"intermediate_size": 39},
        "layers.0.attn.kv_group": {"num_key_value_heads": 2, "num_attention_heads": 4},
        "layers.0.attn.q_per_kv": {"num_attention_heads": 3},
    }
    for name, change in fewer.items():
        expected = (whole - count(tie_word_embeddings=tied, **change)) / LAYERS
        assert unit_cost(graph.group(name), graph) == expected
    six = whole - count(tie_word_embeddings=tied, hidden_size=42)  # the config wants a multiple of 6
    assert unit_cost(graph.group("hidden"), graph) == six / 6
    vocab = sum(unit_cost(group, graph) for group in graph.of_kind("vocab"))
    assert vocab == whole - count(tie_word_embeddings=tied, vocab_size=52)


def test_a_square_matrix_on_one_axis_loses_row_and_column_with_their_crossing_once():
    from surgeon.graph import Axis, Group, Layout, Parameter, Site

    sites = tuple(Site("w", dim, Layout.plain(5), role) for dim, role in ((0, "producer"), (1, "consumer")))
    group = Group(Axis("a", "channel", 5), sites)
    graph = Graph("none", (group,), (), {"w": Parameter("w", (5, 5))})
    assert unit_cost(group, graph) == 25 - 16


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_after_are_those_of_the_smaller_model(tied):
    graph = graph_of(tie_word_embeddings=tied)
    plan = Plan("llama").add(
        [
            keep("hidden", range(3, 41)),
            *(keep(f"layers.{i}.mlp.ffn", range(i, i + 24)) for i in range(LAYERS)),
            *(keep(f"layers.{i}.attn.kv_group", range(1, 3)) for i in range(LAYERS)),
            *(keep(f"layers.{i}.attn.q_per_kv", range(1)) for i in range(LAYERS)),
        ]
    )
    small = {
        "tie_word_embeddings": tied,
        "hidden_size": 38,
        "intermediate_size": 24,
        "num_key_value_heads": 2,
        "num_attention_heads": 2,
    }
    assert parameters_after(plan, graph) == count(**small)
    shapes = {name: tuple(tensor.shape) for name, tensor in built(**small).state_dict().items()}
    assert shapes_after(plan, graph) == shapes
    assert sizes(plan, graph)["layers.1.mlp.ffn"] == 24
    assert sizes(plan, graph)["layers.1.attn.head_dim"] == 8


def test_dropped_blocks_cost_nothing():
    plan = Plan("llama").add([DropBlock("model.layers.1", 0)])
    assert parameters_after(plan, graph_of()) == count(num_hidden_layers=LAYERS - 1)
    assert kv_cache_elements(plan, graph_of()) == (LAYERS - 1) * 2 * 3 * 8


def cached(**changes: object) -> float:
    torch.manual_seed(0)
    ids = torch.arange(5)[None]
    cache = LlamaForCausalLM(llama_config(**changes)).eval()(ids, use_cache=True).past_key_values
    return sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers) / ids.shape[1]


@pytest.mark.parametrize("kv", [1, 2, 3, 6])
def test_kv_cache_elements_are_those_that_a_model_caches(kv):
    graph = graph_of(num_key_value_heads=kv)
    assert kv_cache_elements(Plan("llama"), graph) == cached(num_key_value_heads=kv)


def test_kv_cache_shrinks_with_groups_and_not_with_their_queries():
    plan = Plan("llama").add(keep(f"layers.{i}.attn.kv_group", range(2)) for i in range(LAYERS))
    assert kv_cache_elements(plan, graph_of()) == cached(num_key_value_heads=2, num_attention_heads=4)
    plan = Plan("llama").add(keep(f"layers.{i}.attn.q_per_kv", range(1)) for i in range(LAYERS))
    assert kv_cache_elements(plan, graph_of()) == cached()


def test_kv_cache_is_unknown_where_the_graph_does_not_tell():
    graph = graph_of()
    lone = Graph("llama", graph.of_kind("ffn"), (), graph.parameters)
    assert kv_cache_elements(Plan("llama"), lone) is None
