"""Ids that the config names follow a cut of the vocabulary: in the config, in forward, in generation."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    FSMTConfig,
    FSMTForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from surgeon.api.known_ids import check_known_ids
from surgeon.api.replay import replay
from surgeon.errors import InfeasibleError
from surgeon.io import write_plan
from surgeon.plan import Keep, Plan
from surgeon.rebuild import apply_plan, compare, config_of, probe
from surgeon.rebuild.retraced import retraced_faults
from surgeon.rebuild.symmetry import randomised
from surgeon.trace import trace_module

VOCAB, IMAGE, END = 92, 80, 71
WIDTHS = {"hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def seeing():
    vision = CLIPVisionConfig(**WIDTHS, image_size=30, patch_size=10, projection_dim=48)
    text = LlamaConfig(**WIDTHS, vocab_size=VOCAB, bos_token_id=0, eos_token_id=END, pad_token_id=1)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, tie_word_embeddings=True
    )
    torch.manual_seed(0)
    model = randomised(LlavaForConditionalGeneration(config).eval()).to(torch.float32)
    model.tie_weights()
    model.generation_config.eos_token_id = [END, 90]
    model.generation_config.pad_token_id = 1
    return model


@pytest.fixture(scope="module")
def graph(seeing):
    return trace_module(seeing)


@pytest.fixture(scope="module")
def space(seeing, graph):
    return probe(config_of(seeing), graph)


def without(graph, *gone):
    """A Plan that removes these token ids, wherever a part of the vocabulary has them."""
    edits = []
    for group in graph.groups:
        ports = [port for port in group.ports if port.dim is None and port.direction == "input"]
        start = ports[0].layout.offset if ports else 0
        kept = tuple(i for i in range(group.size) if i + start not in gone)
        if ports and len(kept) < group.size:
            edits.append(Keep(group.name, kept, 0))
    return Plan(graph.model_type, tuple(edits))


def test_the_parts_on_both_sides_of_a_placeholder_can_be_cut_and_its_number_follows(seeing, graph, space):
    parts = {group.size for group in graph.groups if group.kind == "vocab" and group.locked is None}
    assert parts == {IMAGE, VOCAB - IMAGE - 1}
    plan = without(graph, *range(10, 40), 85)
    small, ledger = apply_plan(seeing, plan, graph, space)
    assert small.config.image_token_index == IMAGE - 30
    assert small.config.text_config.eos_token_id == END - 30
    assert small.config.text_config.vocab_size == VOCAB - 31
    assert {"image_token_index", "text_config.eos_token_id"} <= {row.field for row in ledger}
    assert small.generation_config.eos_token_id == [END - 30, 90 - 31]
    assert small.generation_config.pad_token_id == 1
    assert retraced_faults(plan, graph, trace_module(small)) == ()
    assert compare(seeing, small, plan, graph, torch.arange(VOCAB).reshape(4, 23)).ok


def test_an_image_is_put_where_its_placeholder_is_after_the_cut(seeing, graph, space):
    small, _ = apply_plan(seeing, without(graph, *range(10, 40)), graph, space)
    pixels = torch.randn(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[5, *[IMAGE] * 9, 60]])
    moved = torch.where(ids >= 40, ids - 30, ids)
    kept = [number for number in range(VOCAB) if not 10 <= number < 40]
    with torch.no_grad():
        want = seeing(input_ids=ids, pixel_values=pixels).logits[..., kept]
        got = small(input_ids=moved, pixel_values=pixels).logits
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_a_token_that_the_config_names_is_not_removed(seeing, graph, space):
    with pytest.raises(InfeasibleError, match=f"text_config.eos_token_id is {END}, an index of the vocab"):
        apply_plan(seeing, without(graph, END), graph, space)


def test_a_number_that_does_not_follow_the_config_is_seen_by_tracing_again(seeing, graph, space):
    plan = without(graph, *range(10, 40))
    small, _ = apply_plan(seeing, plan, graph, space)
    check_known_ids(plan, graph, small.config)
    small.config.image_token_index = IMAGE - 31
    with pytest.raises(InfeasibleError, match="does not follow the config: in the smaller model"):
        check_known_ids(plan, graph, small.config)


def test_two_vocabularies_that_are_not_cut_alike_are_refused():
    sizes = {"d_model": 48, "encoder_layers": 1, "decoder_layers": 1, "langs": ["en", "de"]}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    ffn = {"encoder_ffn_dim": 56, "decoder_ffn_dim": 56}
    config = FSMTConfig(**sizes, **heads, **ffn, src_vocab_size=70, tgt_vocab_size=90)
    model = FSMTForConditionalGeneration(config).eval()
    graph = trace_module(model)
    read = next(
        group for group in graph.groups if any(p.name == "input_ids" and p.dim is None for p in group.ports)
    )
    plan = Plan(graph.model_type, (Keep(read.name, tuple(range(read.size - 5)), 0),))
    with pytest.raises(InfeasibleError, match="input_ids and decoder_input_ids are not cut alike"):
        apply_plan(model, plan, graph)


def test_a_published_model_ends_its_sentences_with_the_same_token(seeing, graph, tmp_path):
    seeing.save_pretrained(tmp_path / "model")
    plan = without(graph, *range(10, 40))
    write_plan(plan, graph, tmp_path / "plan.json")
    replay(tmp_path / "plan.json", model=tmp_path / "model", out=tmp_path / "small")
    said = json.loads((tmp_path / "small" / "generation_config.json").read_text())
    assert said["eos_token_id"] == [END - 30, 90 - 30]
    assert json.loads((tmp_path / "small" / "config.json").read_text())["image_token_index"] == IMAGE - 30
