"""A model to the files of a checkpoint, beside what the original carried along.

Tensors are stored under the names that the family has on disk and tied ones once, both by
transformers' own conversion maps. Not here: how the weights are written (`shards`), where the folder
appears, and when (`publish`).
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from surgeon.io.disk_layout import pieces_of
from surgeon.io.modeling_file import write_modeling_file
from surgeon.io.shards import Told, unheard, write_shards
from surgeon.io.side_files import parse_size, side_files
from surgeon.rebuild.quiet import quiet_transformers
from surgeon.rebuild.tensors import stored_tensors

__all__ = ["bytes_needed", "pages_of", "write_checkpoint"]

GENERATION = "generation_config.json"


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
    durable: bool = True,
) -> dict[str, str]:
    """Write a complete checkpoint into `folder`; the SHA-256 of its weights, file by file, if asked for.

    Args:
        folder: exists; whole shards of an earlier try in it are kept.
        module: the model to write; it is not changed.
        original: the folder whose tokenizer, generation config and other side files go along.
        tensors: named tensors in place of the module's own, which then needs no storage.
        texts: more files by name, such as ``surgeon.yaml``; they replace what is carried along.
        dtype: of the written weights; None leaves them as they are.
        shard_size: largest size of one file of weights.
        told: hears of the progress, in bytes.
        checksums: compute those of the weights on the way.
        durable: wait until the weights are on the disk.

    Raises:
        InputError: `shard_size` is no size.
        RebuildError: `tensors` do not fit `module`.
    """
    size = parse_size(shard_size)
    stream = stored_tensors(module).items() if tensors is None else tensors
    pieces = pieces_of(module, stream, dtype)
    sums = write_shards(folder, pieces, size, told, checksums=checksums, durable=durable)
    for file in () if original is None else side_files(original):
        shutil.copyfile(file, folder / file.name)
    for name, text in (pages_of(module, original, dtype) | dict(texts or {})).items():
        (folder / name).write_text(text, encoding="utf-8")
    return sums


def pages_of(
    module: PreTrainedModel, original: Path | None = None, dtype: torch.dtype | None = None
) -> dict[str, str]:
    """Text files of a model, by name: ``config.json``, and what else its loading needs.

    Args:
        module: with or without storage.
        original: a folder whose generation config goes along, if it has one.
        dtype: of the written weights; None is the module's.
    """
    config: Any = copy.deepcopy(module.config)
    config.dtype = str(dtype or module.dtype).removeprefix("torch.")
    config.architectures = [type(module).__name__]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with quiet_transformers():
            config.save_pretrained(folder)
        write_modeling_file(folder, config)
        if module.can_generate() and (original is None or not (original / GENERATION).exists()):
            module.generation_config.to_json_file(folder / GENERATION)
        return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


def bytes_needed(module: PreTrainedModel, original: Path | None, dtype: torch.dtype | None = None) -> int:
    """About how many bytes `write_checkpoint` will write."""
    width = None if dtype is None else dtype.itemsize
    weights = sum(p.numel() * (width or p.element_size()) for p in module.parameters())
    beside = 0 if original is None else sum(file.stat().st_size for file in side_files(original))
    return weights + beside
