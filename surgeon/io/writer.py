"""A model to the files of a checkpoint, beside what the original carried along.

Tensors are stored under the names that the family has on disk and tied ones once, both by
transformers' own conversion maps. Not here: how the weights are written (`shards`), where the folder
appears, and when (`publish`).
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from surgeon.errors import InputError
from surgeon.io.checksums import SUMS, write_checksums
from surgeon.io.disk_layout import pieces_of
from surgeon.io.modeling_file import write_modeling_file
from surgeon.io.shards import Told, unheard, write_shards
from surgeon.io.weights import is_weight_file
from surgeon.rebuild.per_layer_class import MODELING_FILE
from surgeon.rebuild.quiet import quiet_transformers
from surgeon.rebuild.tensors import stored_tensors

__all__ = ["GENERATION", "bytes_needed", "parse_size", "write_checkpoint"]

GENERATION = "generation_config.json"
OURS = frozenset(
    {
        "config.json",
        "README.md",
        "surgeon.yaml",
        "plan.json",
        "report.json",
        ".gitattributes",
        MODELING_FILE,
        SUMS,
    }
)
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B)\s*", re.IGNORECASE)
POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def write_checkpoint(
    folder: Path,
    module: PreTrainedModel,
    original: Path | None = None,
    *,
    tensors: Iterable[tuple[str, Tensor]] | None = None,
    texts: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
    shard_size: str = "5GB",
    told: Told = unheard,
    checksums: bool = False,
) -> None:
    """Write a complete checkpoint into `folder`.

    Args:
        folder: exists; whole shards of an earlier try in it are kept.
        module: the model to write; it is not changed.
        original: the folder whose tokenizer, generation config and other side files go along.
        tensors: named tensors in place of the module's own, which then needs no storage.
        texts: more files by name, such as ``surgeon.yaml``; they replace what is carried along.
        dtype: of the written weights; None leaves them as they are.
        shard_size: largest size of one file of weights.
        told: hears of the progress, in bytes.
        checksums: write ``SHA256SUMS`` of the weights.

    Raises:
        InputError: `shard_size` is no size.
        RebuildError: `tensors` do not fit `module`.
    """
    size = parse_size(shard_size)
    stream = stored_tensors(module).items() if tensors is None else tensors
    sums = write_shards(folder, pieces_of(module, stream, dtype), size, told, checksums=checksums)
    if sums:
        write_checksums(folder, sums)
    _write_config(folder, module, dtype)
    if original is not None:
        for file in _side_files(original):
            shutil.copyfile(file, folder / file.name)
    if module.can_generate() and not (folder / GENERATION).exists():
        module.generation_config.to_json_file(folder / GENERATION)
    for name, text in (texts or {}).items():
        (folder / name).write_text(text, encoding="utf-8")


def _write_config(folder: Path, module: PreTrainedModel, dtype: torch.dtype | None) -> None:
    """``config.json``, naming class and dtype, and the modeling file that a layout may need."""
    config: Any = copy.deepcopy(module.config)
    config.dtype = str(dtype or module.dtype).removeprefix("torch.")
    config.architectures = [type(module).__name__]
    with quiet_transformers():
        config.save_pretrained(folder)
    write_modeling_file(folder, config)


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
