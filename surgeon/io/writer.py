"""A module in memory to the files of a checkpoint, beside what the original carried along.

Tensors are stored under the names that the family has on disk and tied ones once, both by
transformers' own conversion maps. Not here: where the folder appears, and when (`publish`).
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from surgeon.errors import InputError
from surgeon.io.modeling_file import write_modeling_file
from surgeon.io.weights import is_weight_file
from surgeon.rebuild.per_layer_class import MODELING_FILE
from surgeon.rebuild.quiet import quiet_transformers

__all__ = ["GENERATION", "bytes_needed", "parse_size", "write_checkpoint", "write_weights"]

GENERATION = "generation_config.json"
OURS = frozenset(
    {"config.json", "README.md", "surgeon.yaml", "plan.json", "report.json", ".gitattributes", MODELING_FILE}
)
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B)\s*", re.IGNORECASE)
POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def write_checkpoint(
    folder: Path,
    module: PreTrainedModel,
    original: Path | None = None,
    *,
    texts: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
    shard_size: str = "5GB",
) -> None:
    """Write a complete checkpoint into `folder`.

    Args:
        folder: exists and is empty.
        module: the model to write; it is not changed.
        original: the folder whose tokenizer, generation config and other side files go along.
        texts: more files by name, such as ``surgeon.yaml``; they replace what is carried along.
        dtype: of the written weights; None leaves them as they are.
        shard_size: largest size of one file of weights.

    Raises:
        InputError: `shard_size` is no size.
    """
    write_weights(folder, module, dtype=dtype, shard_size=shard_size)
    if original is not None:
        for file in _side_files(original):
            shutil.copyfile(file, folder / file.name)
    if module.can_generate() and not (folder / GENERATION).exists():
        module.generation_config.to_json_file(folder / GENERATION)
    for name, text in (texts or {}).items():
        (folder / name).write_text(text, encoding="utf-8")


def write_weights(
    folder: Path, module: PreTrainedModel, *, dtype: torch.dtype | None = None, shard_size: str = "5GB"
) -> None:
    """Write config and safetensors shards, with an index where there are several.

    A model of the layout ``per_layer`` gets the modeling file that loads it beside them.

    Raises:
        InputError: `shard_size` is no size.
    """
    # A shallow copy: saving notes the dtype in the config and checks the generation config, and the
    # caller's module, generation config included, is to stay as it is.
    own: Any = copy.copy(module)
    if dtype not in (None, module.dtype):
        own = copy.deepcopy(own)
        own.to(dtype)
    own.config = copy.deepcopy(module.config)
    if own.can_generate():
        own.generation_config = GenerationConfig()
    with quiet_transformers():
        own.save_pretrained(folder, max_shard_size=parse_size(shard_size))
    write_modeling_file(folder, own.config)
    (folder / GENERATION).unlink(missing_ok=True)


def bytes_needed(module: PreTrainedModel, original: Path | None, dtype: torch.dtype | None = None) -> int:
    """About how many bytes `write_checkpoint` will write."""
    width = None if dtype is None else dtype.itemsize
    weights = sum(p.numel() * (width or p.element_size()) for p in module.parameters())
    beside = 0 if original is None else sum(file.stat().st_size for file in _side_files(original))
    return weights + beside


def parse_size(text: str) -> int:
    """Bytes of a size in words: ``5GB`` and ``500MB`` are decimal, ``5GiB`` is binary.

    Raises:
        InputError: it is none.
    """
    match = SIZE.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise InputError(f"'{text}' is no size of a file", hint="a number and a unit, such as 5GB or 500MB")
    unit = match[2].upper().removesuffix("B")
    base = 1024 if unit.endswith("I") else 1000
    return int(float(match[1]) * base ** POWERS[unit.removesuffix("I")])


def _side_files(original: Path) -> list[Path]:
    """What goes along: plain visible files that are neither weights nor written anew."""
    return sorted(
        file
        for file in original.iterdir()
        if file.is_file()
        and not file.name.startswith(".")
        and file.name not in OURS
        and not is_weight_file(file.name)
    )
