"""Checkpoints that surgeon writes load in stock transformers, and carry along what belongs."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from surgeon.errors import InputError
from surgeon.io import Checkpoint, bytes_needed, write_checkpoint
from surgeon.io.side_files import parse_size

IDS = torch.arange(2, 13)[None]


def stock(folder):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


@pytest.mark.parametrize("tied", [False, True])
def test_stock_transformers_loads_it(small_llama, tmp_path, tied):
    module = small_llama(tie_word_embeddings=tied)
    write_checkpoint(tmp_path, module)
    assert torch.equal(stock(tmp_path)(input_ids=IDS).logits, module(input_ids=IDS).logits)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) is not tied


def test_shards_and_index(small_llama, tmp_path):
    module = small_llama()
    write_checkpoint(tmp_path, module, shard_size="40kB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert max(shard.stat().st_size for shard in shards) < 44_000
    assert Checkpoint.open(tmp_path).parameters == sum(p.numel() for p in module.parameters())
    assert torch.equal(stock(tmp_path)(input_ids=IDS).logits, module(input_ids=IDS).logits)


def test_dtype_as_asked(small_llama, tmp_path):
    module = small_llama(tie_word_embeddings=True)
    before = module.config.to_dict()
    write_checkpoint(tmp_path, module, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in Checkpoint.open(tmp_path).tensors.values()} == {"BF16"}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert module.dtype == torch.float32
    assert module.config.to_dict() == before


def test_experts_lie_on_disk_as_the_family_has_them(shared_data, tmp_path):
    original = Checkpoint.open(shared_data / "models" / "moe-5m")
    write_checkpoint(tmp_path, original.load_module())
    assert Checkpoint.open(tmp_path).tensors.keys() == original.tensors.keys()
    assert Checkpoint.open(tmp_path).fingerprint() is not None


def test_carries_along_what_is_not_weights(tiny_model, tmp_path):
    original = tmp_path / "original"
    original.mkdir()
    for file in tiny_model.iterdir():
        (original / file.name).write_bytes(file.read_bytes())
    for name in ("pytorch_model.bin", "model.gguf", ".hidden", "README.md", "plan.json", "extra.txt"):
        (original / name).write_text("old")
    (original / "sub").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    module = Checkpoint.open(original).load_module()
    write_checkpoint(out, module, original, texts={"README.md": "new", "surgeon.yaml": "surgeon: 1\n"})
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "config.json",
        "extra.txt",
        "generation_config.json",
        "model.safetensors",
        "surgeon.yaml",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (out / "README.md").read_text() == "new"
    for name in ("tokenizer.json", "generation_config.json"):
        assert (out / name).read_bytes() == (original / name).read_bytes()
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (out, original)]
    assert tokenizers[0].encode("hello") == tokenizers[1].encode("hello")
    needed = bytes_needed(module, original)
    assert needed == pytest.approx(sum(path.stat().st_size for path in out.iterdir()), rel=0.02)
    assert bytes_needed(module, None, torch.float32) == 4 * sum(p.numel() for p in module.parameters())


def test_generation_config_is_kept_even_where_transformers_finds_fault(small_llama, tmp_path):
    module = small_llama()
    module.generation_config.temperature = 0.3
    module.generation_config.do_sample = False
    write_checkpoint(tmp_path, module)
    assert json.loads((tmp_path / "generation_config.json").read_text())["temperature"] == 0.3
    assert module.generation_config.temperature == 0.3


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("1.5KB", 1500), ("2GiB", 2 * 2**30), ("7B", 7)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "GB", "-5GB", "0GB", "5XB", "five GB"])
def test_no_sizes(text):
    with pytest.raises(InputError, match="is no size of a file"):
        parse_size(text)
