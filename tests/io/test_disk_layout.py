"""What is streamed from disk to disk is, tensor for tensor, what ``save_pretrained`` writes of the cut."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    MixtralConfig,
    PhimoeConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from surgeon.errors import CheckpointError, RebuildError
from surgeon.io import Checkpoint, write_checkpoint
from surgeon.io.disk_layout import pieces_of
from surgeon.io.slices import Selection
from surgeon.plan import DropBlock, Keep, Plan
from surgeon.rebuild import ModuleSource, apply_plan, arrange, compare, probe, probe_tokens, skeleton
from surgeon.trace import trace_module

COMMON = {
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attn_implementation": "eager",
}
ROUTED = {"moe_intermediate_size": 12, "num_experts": 6, "num_experts_per_tok": 2}
CONFIGS = {
    "dense": lambda: LlamaConfig(**COMMON),
    "tied": lambda: LlamaConfig(**COMMON, tie_word_embeddings=True),
    "experts": lambda: Qwen3MoeConfig(**COMMON, **ROUTED, head_dim=4),
    "shared_expert": lambda: Qwen2MoeConfig(**COMMON, **ROUTED, shared_expert_intermediate_size=20),
    "renamed": lambda: MixtralConfig(**COMMON, num_local_experts=6, num_experts_per_tok=2),
    "norms_with_bias": lambda: PhimoeConfig(**COMMON, num_local_experts=6, num_experts_per_tok=2),
}


def saved(name, folder):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]()).to(torch.bfloat16).eval()
    model.save_pretrained(folder, max_shard_size="6KB")
    return Checkpoint.open(folder)


def half_of_everything(graph):
    keeps = [
        Keep(group.name, tuple(range(0, group.size, 2)), 1)
        for group in graph.groups
        if group.kind in ("ffn", "expert", "kv_group") and not group.locked
    ]
    return Plan(graph.model_type, (DropBlock(graph.blocks[1].name, 0), *keeps))


def tensors(folder):
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_as_save_pretrained_writes_it(name, tmp_path):
    checkpoint = saved(name, tmp_path / "model")
    graph = trace_module(skeleton(checkpoint.config))
    plan, space = half_of_everything(graph), probe(checkpoint.config, graph)
    original = checkpoint.unread_module()
    arranged = arrange(space, graph, plan)
    blank = skeleton(arranged.config, dtype=original.dtype)

    def stream():
        return arranged.stream(ModuleSource(original), graph)

    (tmp_path / "streamed").mkdir()
    write_checkpoint(tmp_path / "streamed", blank, checkpoint.folder, tensors=stream(), shard_size="7KB")
    small, _ = apply_plan(checkpoint.load_module(), plan, graph, space)
    small.save_pretrained(tmp_path / "stock")
    want, got = tensors(tmp_path / "stock"), tensors(tmp_path / "streamed")
    assert {n: (t.dtype, t.shape) for n, t in got.items()} == {n: (t.dtype, t.shape) for n, t in want.items()}
    assert all(torch.equal(got[n], want[n]) for n in want)
    configs = [AutoConfig.from_pretrained(tmp_path / which) for which in ("streamed", "stock")]
    fields = [{**config.to_dict(), "_name_or_path": None} for config in configs]
    assert fields[0] == fields[1]
    assert all(isinstance(piece.content, Selection) for piece in pieces_of(blank, stream()))
    written = Checkpoint.open(tmp_path / "streamed").unread_module()
    compare(original, written, plan, graph, probe_tokens(original)).require()


def test_another_dtype(small_llama, tmp_path):
    module = small_llama()
    pieces = pieces_of(module, module.state_dict().items(), torch.float16)
    assert {piece.dtype for piece in pieces} == {"F16"}


def test_faults_are_listed_together(small_llama):
    module = small_llama()
    state = dict(module.state_dict())
    state["model.norm.weight"] = torch.ones(3)
    state["odd"] = state.pop("lm_head.weight")
    with pytest.raises(RebuildError, match="3 tensors do not fit LlamaForCausalLM") as caught:
        pieces_of(module, state.items())
    assert "lm_head.weight: not filled" in caught.value.message
    assert "odd: the new module has no such tensor" in caught.value.message


def test_weights_that_do_not_fit_the_config(small_llama, tmp_path):
    small_llama().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["more"] = torch.ones(2)
    del state["model.norm.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="do not fit its config") as caught:
        Checkpoint.open(tmp_path).unread_module()
    assert "model.norm.weight: not on disk" in caught.value.message
    assert "more: on disk, but not in the model" in caught.value.message


def test_names_without_the_prefix_of_the_base_model(small_llama, tmp_path):
    module = small_llama(tie_word_embeddings=True)
    module.model.save_pretrained(tmp_path)
    module.config.architectures = ["LlamaForCausalLM"]
    module.config.save_pretrained(tmp_path)
    twin = Checkpoint.open(tmp_path).unread_module()
    tokens = probe_tokens(module)
    assert torch.allclose(twin(input_ids=tokens).logits, module(input_ids=tokens).logits, atol=1e-5)
