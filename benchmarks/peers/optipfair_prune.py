"""Drop a quarter of the layers, or of the ffn channels by the largest weights, with optipfair.

``PYTHON benchmarks/peers/optipfair_prune.py {layers|ffn} MODEL OUT``
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from optipfair import prune_model
from transformers import AutoModelForCausalLM


def main(what: str, model: str, out: str) -> None:
    """Load, prune, save."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    layers = loaded.config.num_hidden_layers
    options: dict[str, dict[str, Any]] = {
        "layers": {"pruning_type": "DEPTH", "num_layers_to_remove": layers - layers * 3 // 4},
        "ffn": {"pruning_type": "MLP_GLU", "neuron_selection_method": "MAW", "pruning_percentage": 25},
    }
    pruned = prune_model(loaded, show_progress=False, **options[what])
    pruned.save_pretrained(out, max_shard_size="500MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
