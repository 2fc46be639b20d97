"""Drop a quarter of the layers with mergekit's ``passthrough``.

``PYTHON benchmarks/peers/mergekit_passthrough.py MODEL OUT``, where ``mergekit-yaml`` lies beside ``PYTHON``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path


def main(model: str, out: str) -> None:
    """Become ``mergekit-yaml`` with a recipe that keeps the first three quarters of the layers."""
    layers = json.loads(Path(model, "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    source = {"model": model, "layer_range": [0, layers * 3 // 4]}
    recipe = {"merge_method": "passthrough", "slices": [{"sources": [source]}], "dtype": "bfloat16"}
    file = Path(tempfile.gettempdir(), "passthrough.yaml")
    file.write_text(json.dumps(recipe), encoding="utf-8")
    tool = str(Path(sys.executable).with_name("mergekit-yaml"))
    os.execv(tool, (tool, str(file), out, "--out-shard-size", "500M", "--no-copy-tokenizer"))


if __name__ == "__main__":
    main(*sys.argv[1:])
