"""Drop a quarter of the layers with transformers alone: load, cut the list, save.

``PYTHON benchmarks/peers/plain.py MODEL OUT``
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM


def main(model: str, out: str) -> None:
    """Keep the first three quarters of the layers."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    kept = loaded.config.num_hidden_layers * 3 // 4
    loaded.model.layers = loaded.model.layers[:kept]
    loaded.config.num_hidden_layers = kept
    loaded.save_pretrained(out, max_shard_size="500MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
