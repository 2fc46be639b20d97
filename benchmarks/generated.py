"""Generated checkpoints: the shapes of real models with random weights, written tensor by tensor."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from transformers import LlamaConfig, PreTrainedConfig, Qwen3MoeConfig

from surgeon.io.conversion import to_disk
from surgeon.io.disk_layout import NAMES
from surgeon.io.shards import Piece, write_shards
from surgeon.io.writer import pages_of
from surgeon.rebuild import skeleton
from surgeon.rebuild.lazy import Stored
from surgeon.rebuild.tensors import stored_tensors

__all__ = ["SHAPES", "generate"]

SHARD = 500_000_000
NOISE = 1 << 22


def _llama(layers: int, hidden: int, ffn: int, heads: int, kv: int, vocab: int) -> PreTrainedConfig:
    return LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        vocab_size=vocab,
        tie_word_embeddings=False,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )


SHAPES = {
    "llama-1.1b": lambda: _llama(22, 2048, 5632, 32, 4, 32000),
    "llama-8b": lambda: _llama(32, 4096, 14336, 32, 8, 128256),
    "llama-8b-short": lambda: _llama(2, 4096, 14336, 32, 8, 128256),
    "llama-tiny": lambda: _llama(6, 256, 512, 8, 4, 2000),
    "qwen3-moe": lambda: Qwen3MoeConfig(
        num_hidden_layers=14,
        hidden_size=1024,
        intermediate_size=2048,
        moe_intermediate_size=512,
        num_experts=32,
        num_experts_per_tok=4,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=64,
        vocab_size=32000,
        dtype="bfloat16",
        architectures=["Qwen3MoeForCausalLM"],
    ),
}


def generate(shape: str, folder: Path, shard_size: int = SHARD) -> int:
    """Write the checkpoint called `shape` in SHAPES; its size in bytes."""
    folder.mkdir(parents=True)
    model = skeleton(SHAPES[shape]())
    bits = np.random.default_rng(0).integers(0, 1 << 16, NOISE, dtype=np.uint16)
    noise = (bits & 0x80FF) | 0x3C00  # bfloat16 of either sign, between 0.008 and 0.03
    ones = np.full(NOISE, 0x3F80, dtype=np.uint16)

    def filled(name: str, count: int) -> memoryview:
        start = zlib.crc32(name.encode()) % NOISE
        values = np.resize(ones if "norm" in name else noise, start + count)[start:]
        return memoryview(values).cast("B")

    described = {
        name: Stored(name, tensor.shape, tensor.dtype, lambda dims: None)  # type: ignore[arg-type,return-value]
        for name, tensor in stored_tensors(model).items()
    }
    pieces = [
        Piece(name, NAMES[one.dtype], tuple(one.shape), lambda name=name, one=one: filled(name, one.numel()))
        for name, one in to_disk(model, described).items()
    ]
    write_shards(folder, pieces, shard_size)
    for name, text in pages_of(model).items():
        (folder / name).write_text(text, encoding="utf-8")
    return sum(piece.nbytes for piece in pieces)
