"""Which files of a folder are the weights, and what their headers say.

Only safetensors files count: a pickle can run code while it is read, so none is ever opened. Not here:
reading tensors (`checkpoint`), one file's header (`header`).
"""

from __future__ import annotations

import json
from pathlib import Path

from surgeon.errors import CheckpointError
from surgeon.io.header import TensorHeader, read_header

__all__ = ["INDEX", "SINGLE", "find_weights", "is_weight_file", "pickled_weights"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WEIGHTS = (".safetensors", ".h5", ".msgpack", ".gguf", ".onnx", ".ot", *PICKLES)


def is_weight_file(name: str) -> bool:
    """Whether a file of this name holds weights, in any format, or their index."""
    return name.endswith((*WEIGHTS, *(f"{suffix}.index.json" for suffix in WEIGHTS)))


def pickled_weights(folder: Path) -> tuple[str, ...]:
    """Names of files that hold pickled weights."""
    return tuple(sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES))


def find_weights(folder: Path) -> dict[str, TensorHeader]:
    """Every tensor of a checkpoint folder under its name on disk; empty where there are no weights.

    Raises:
        CheckpointError: a file is corrupt, shards are missing, or the index and the shards disagree.
    """
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if (folder / INDEX).is_file():
        return _sharded(folder)
    return {}


def _sharded(folder: Path) -> dict[str, TensorHeader]:
    owners = _weight_map(folder / INDEX)
    shards = sorted(set(owners.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of its {len(shards)} shards: {', '.join(missing)}",
            hint="download or copy the missing files",
        )
    found: dict[str, TensorHeader] = {}
    for shard in shards:
        found |= read_header(folder / shard)
    held = {name: tensor.file.name for name, tensor in found.items()}
    wrong = sorted(name for name, shard in owners.items() if held.get(name) != shard)
    if wrong:
        raise CheckpointError(
            f"{folder / INDEX} names {len(wrong)} tensors that their shards do not hold: "
            f"{', '.join(wrong[:5])}",
            hint="index and shards of the same download",
        )
    return {name: found[name] for name in owners}


def _weight_map(index: Path) -> dict[str, str]:
    try:
        owners = json.loads(index.read_bytes())["weight_map"]
        plain = all(isinstance(shard, str) and Path(shard).name == shard for shard in owners.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of shards: {type(error).__name__}: {error}") from error
    if not plain or not owners:
        raise CheckpointError(f"{index} is no index of shards: its weight_map names no files of this folder")
    return owners
