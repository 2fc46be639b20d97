"""Checkpoint: a model folder, opened without reading a tensor.

Opening checks config and headers; weights are read by `load_module`, through transformers, or one at a time
as they are used, by what `unread_module` gives. Not here: writing (`writer`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from surgeon.errors import CheckpointError, RebuildError
from surgeon.io.disk_source import DiskSource
from surgeon.io.fingerprint import fingerprint_of
from surgeon.io.header import TensorHeader
from surgeon.io.hub import SIDE_FILES, WEIGHT_FILES, fetch, local_folder
from surgeon.io.loading import check_finite, check_report, check_resident, laid_over
from surgeon.io.weights import find_weights, pickled_weights
from surgeon.rebuild.execution import loop_where_needed
from surgeon.rebuild.quiet import quiet_transformers
from surgeon.rebuild.skeleton import architecture, skeleton
from surgeon.rebuild.unread import unread_module

__all__ = ["Checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A model folder: its config, and the headers of its weights where they are on this machine.

    `tensors` holds every tensor under its name on disk; it is empty where there is only a config.
    """

    folder: Path
    config: PreTrainedConfig = field(compare=False)
    tensors: Mapping[str, TensorHeader] = field(compare=False, repr=False)
    hub_id: str | None = None

    @classmethod
    def open(cls, model: str | Path) -> Checkpoint:
        """Open a local folder or a hub id; of a hub id only the small files are fetched.

        Raises:
            CheckpointError: no such model, no or a wrong config, or files that are corrupt or missing.
        """
        folder = local_folder(model)
        if folder is not None:
            return cls(folder, _read_config(folder), find_weights(folder))
        side = fetch(str(model), SIDE_FILES)
        return cls(side, _read_config(side), {}, str(model))

    @property
    def has_weights(self) -> bool:
        """Whether weights are on this machine."""
        return bool(self.tensors)

    @property
    def parameters(self) -> int:
        """Number of stored elements; tied weights are stored once."""
        return sum(tensor.numel for tensor in self.tensors.values())

    @property
    def stored_bytes(self) -> int:
        """Size of all stored tensors."""
        return sum(tensor.end - tensor.start for tensor in self.tensors.values())

    def fingerprint(self) -> str | None:
        """What identifies config and weights together; None where there are no weights.

        A SHA-256 over the config, over every tensor's name, dtype and shape, and over samples of its
        bytes: cheap at any size, and told apart by any change that is not confined to a few values.
        """
        return fingerprint_of(self.folder / "config.json", self.tensors) if self.tensors else None

    def weight_files(self) -> tuple[tuple[str, int, int], ...]:
        """Name, size and time of last change, in nanoseconds, of every file that holds weights."""
        files = sorted({tensor.file for tensor in self.tensors.values()})
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)

    def with_weights(self) -> Checkpoint:
        """The same checkpoint with its weights on this machine, fetched where need be.

        Raises:
            CheckpointError: there are none, only pickled ones, or quantised ones.
        """
        quantised = getattr(self.config, "quantization_config", None)
        if quantised is not None:
            raise CheckpointError(
                f"{self.folder} holds quantised weights, which cannot be cut",
                hint="the model that it was quantised from",
            )
        if self.tensors:
            return self
        found = self
        if self.hub_id is not None:
            folder = fetch(self.hub_id, (*SIDE_FILES, *WEIGHT_FILES))
            found = replace(self, folder=folder, tensors=find_weights(folder))
        if not found.tensors:
            raise _no_weights(found.folder)
        return found

    def load_module(
        self,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        device_map: str | Mapping[str, str | int] | None = None,
    ) -> PreTrainedModel:
        """The module with its weights, in eval mode with eager attention.

        Args:
            dtype: to load in; None takes the one that is stored.
            device: where to put it.
            device_map: in place of `device`, over which devices to lay it, as accelerate takes it.

        Raises:
            CheckpointError: no weights, weights that do not fit the config, or values that are not finite.
        """
        checkpoint = self.with_weights()
        try:
            with quiet_transformers():
                loaded: Any = architecture(checkpoint.config).from_pretrained(
                    checkpoint.folder,
                    dtype="auto" if dtype is None else dtype,
                    **laid_over(device_map),
                    attn_implementation="eager",
                    local_files_only=True,
                    use_safetensors=True,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        except RebuildError as error:
            raise CheckpointError(f"{checkpoint.folder}: {error.message}", hint=error.hint) from error
        except Exception as error:  # transformers raises whatever its parts raise
            raise CheckpointError(
                f"{checkpoint.folder} cannot be loaded: {type(error).__name__}: {_first_line(error)}"
            ) from error
        module, report = loaded
        check_report(checkpoint.folder, report)
        check_resident(checkpoint.folder, module)
        check_finite(checkpoint.folder, module)
        loop_where_needed(module)
        return (module if device_map is not None else module.to(device)).eval()

    def unread_module(self, device: str | torch.device = "cpu") -> PreTrainedModel:
        """The module, whose weights are read from disk at each use: it runs in the memory of the largest.

        In eval mode with eager attention, every tensor in the dtype that it is stored in.

        Raises:
            CheckpointError: no weights, or weights that do not fit the config.
        """
        checkpoint = self.with_weights()
        try:
            blank = skeleton(checkpoint.config)
            source = DiskSource(checkpoint.folder, checkpoint.tensors, blank)
            return unread_module(blank, source, device)
        except RebuildError as error:
            raise CheckpointError(f"{checkpoint.folder}: {error.message}", hint=error.hint) from error

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that lies in the folder.

        Raises:
            CheckpointError: there is none that can be read.
        """
        try:
            with quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except Exception as error:  # transformers raises whatever its parts raise
            raise CheckpointError(
                f"{self.folder} has no tokenizer that can be read ({type(error).__name__}: "
                f"{_first_line(error)}), and there is text to be read",
                hint="put tokenizer.json beside the weights, or give token ids instead of text",
            ) from error
        return tokenizer


def _read_config(folder: Path) -> PreTrainedConfig:
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{folder} is not a model folder: it has no config.json",
            hint="the folder that holds config.json and model.safetensors",
        )
    try:
        fields: Any = json.loads(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("model_type"), str):
        raise CheckpointError(f"{file} is no model's config: it names no model_type")
    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # config classes raise whatever their validators raise
        raise CheckpointError(
            f"{file} of type '{fields['model_type']}' is refused: {type(error).__name__}: "
            f"{_first_line(error)}",
            hint="code that comes with a model is not run; a newer transformers may know the type",
        ) from error


def _no_weights(folder: Path) -> CheckpointError:
    pickled = pickled_weights(folder)
    if pickled:
        return CheckpointError(
            f"{folder} has only pickled weights ({', '.join(pickled[:3])}), which are never loaded: "
            "a pickle can run code",
            hint="convert them to safetensors where you trust them, with model.save_pretrained(folder)",
        )
    return CheckpointError(
        f"{folder} has a config but no weights, and weights are needed",
        hint="put model.safetensors, or its shards and index, beside config.json",
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
