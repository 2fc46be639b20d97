"""Subject: the model that a verb works on, read only as far as it is needed.

A module in memory, a config, or a checkpoint by folder or hub id. Its config is there at once; its
structure needs no weights; its weights are loaded when first asked for.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from surgeon.calibrate import digest
from surgeon.errors import InputError
from surgeon.io import Checkpoint
from surgeon.plan.report import LedgerRow
from surgeon.rebuild import ModuleSource, config_of, skeleton
from surgeon.rebuild.bias_slots import BiasSlots, bias_slots, with_bias_slots
from surgeon.rebuild.rehome import rehome, rehomed_config
from surgeon.rebuild.unread import unread_module
from surgeon.rebuild.widened import Widened

__all__ = ["DeviceMap", "ModelLike", "Subject", "in_dtype", "widened"]

DeviceMap = str | Mapping[str, str | int]
"""Which module goes on which device, as transformers takes it: ``auto``, or devices by module path."""

ModelLike = nn.Module | PreTrainedConfig | str | Path

HALVES = (torch.float16, torch.bfloat16)


class Subject:
    """One model in whatever form it was handed in; checkpoints are loaded onto `device`.

    With a `device_map`, they are laid over several devices instead, as accelerate does it. With `stream`,
    they are not loaded to be measured: each weight is read where it is used.
    """

    def __init__(
        self,
        model: ModelLike,
        device: str = "cpu",
        device_map: DeviceMap | None = None,
        stream: bool = False,
    ) -> None:
        self.device = device
        self.stream = stream
        self.device_map = device_map
        self.checkpoint: Checkpoint | None = None
        self._module: nn.Module | None = None
        self._config: PreTrainedConfig | None = None
        self._slots: BiasSlots | None = None
        self._home: PreTrainedConfig | None = None
        if isinstance(model, nn.Module):
            self._module, self.name = model, type(model).__name__
        elif isinstance(model, PreTrainedConfig):
            self._config, self.name = model, str(model.model_type)
        else:
            self.checkpoint, self.name = Checkpoint.open(model), str(model)
            self._config = self.checkpoint.config

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The config, naming the class to build.

        Raises:
            RebuildError: a module that is not of transformers has none.
        """
        if self._slots is not None:
            return self._slots.config
        return self._own_config if self._home is None else self._home

    @property
    def _own_config(self) -> PreTrainedConfig:
        return self._config if self._config is not None else config_of(self._transformers_module())

    def rehome(self, model_type: str) -> None:
        """From now on the same weights in the stock class of another family; before anything is traced.

        Raises:
            InfeasibleError: no config of that family takes the weights over.
        """
        if model_type == self._own_config.model_type:
            return
        self._home = rehomed_config(self._own_config, model_type)
        for known in ("config", "structure", "module", "unread", "wide", "_wide_unread"):
            self.__dict__.pop(known, None)

    def add_biases(self, names: Collection[str]) -> bool:
        """From now on the model with these biases too, zero where they are new; whether that changed it.

        Raises:
            InfeasibleError: the family's config cannot switch them on.
        """
        earlier = () if self._slots is None else self._slots.added
        self.__dict__.pop("config", None)
        self._slots = None
        slots = bias_slots(self.config, {*earlier, *names})
        if slots.added:
            self._slots = slots
        for known in ("config", "structure", "module", "unread", "wide", "_wide_unread"):
            self.__dict__.pop(known, None)
        return slots.added != earlier

    @property
    def in_memory(self) -> bool:
        """Whether a module was handed in, whose code may be anyone's."""
        return self._module is not None

    @property
    def changed(self) -> bool:
        """Whether it is no longer what was handed in: of another family, or with more biases."""
        return self._home is not None or self._slots is not None

    @property
    def ledger(self) -> tuple[LedgerRow, ...]:
        """What was changed of the config before anything was cut: its family, and room for biases."""
        fields = () if self._slots is None else self._slots.fields
        slots = (LedgerRow(field=field, old=False, new=True, why="biases for the repair") for field in fields)
        if self._home is None:
            return tuple(slots)
        old, new = self._own_config.model_type, self._home.model_type
        return (LedgerRow(field="model_type", old=old, new=new, why="rehome: identical logits"), *slots)

    @cached_property
    def structure(self) -> nn.Module:
        """The module as it is, or one without storage: enough to trace."""
        if self._slots is None and self._home is None and self._module is not None:
            return self._module
        return skeleton(self.config)

    @cached_property
    def module(self) -> PreTrainedModel:
        """The module with its weights, loaded in the dtype that they have.

        Raises:
            InputError: there is only a config.
            CheckpointError: the weights are absent, broken, or do not fit the config.
        """
        if self.device_map is not None and (self._home is not None or self._slots is not None):
            raise InputError(
                "a model that lies on several devices cannot be rehomed or given biases",
                hint="--device in place of --device-map, or neither rehome nor a repair that needs biases",
            )
        return self._housed(self.original)

    @cached_property
    def unread(self) -> PreTrainedModel:
        """Like `module`; of a checkpoint, each weight is read at each use, so it needs memory for one.

        Raises:
            InputError: there is only a config.
            CheckpointError: the weights are absent, broken, or do not fit the config.
        """
        if self.checkpoint is None or "original" in self.__dict__:
            return self.module
        self.checkpoint = self.checkpoint.with_weights()
        return self._housed(self.checkpoint.unread_module(self.device))

    def _housed(self, module: PreTrainedModel) -> PreTrainedModel:
        """In the class that it was moved to, with the biases that were added."""
        housed = module if self._home is None else rehome(module, self._home.model_type)
        return housed if self._slots is None else with_bias_slots(housed, self._slots)

    @cached_property
    def original(self) -> PreTrainedModel:
        """The module as it was handed in, or lies in the checkpoint, without added biases."""
        if self._module is not None:
            return self._transformers_module()
        if self.checkpoint is None:
            raise InputError(
                f"the weights of {self.name} are needed, and only its config was given",
                hint="give a module with weights, or the folder of a checkpoint",
            )
        self.checkpoint = self.checkpoint.with_weights()
        return self.checkpoint.load_module(device=self.device, device_map=self.device_map)

    @cached_property
    def wide(self) -> PreTrainedModel:
        """The module in float32 where its weights are in half precision: to measure on."""
        if self.device_map is None or self.checkpoint is None:
            return widened(self.module)
        if self.dtype not in HALVES:
            return self.module
        return self.checkpoint.load_module(torch.float32, device_map=self.device_map)

    @property
    def weights_on(self) -> str:
        """The device of the weights that scores and repairs look at."""
        return self.device if self._module is None else str(next(self._module.parameters()).device)

    @property
    def streams(self) -> bool:
        """Whether weights are read where they are used, because the model was asked not to be loaded."""
        return self.stream and self.checkpoint is not None

    @property
    def measured(self) -> PreTrainedModel:
        """What is measured on: `wide`, or the same with each weight read at its use."""
        return self._wide_unread if self.streams else self.wide

    @cached_property
    def _wide_unread(self) -> PreTrainedModel:
        if self.dtype not in HALVES:
            return self.unread
        widened_source = Widened(ModuleSource(self.unread), torch.float32)
        return unread_module(skeleton(self.config), widened_source, self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights, as far as it is known without them."""
        if self._module is not None:
            return next(self._module.parameters()).dtype
        return next(self.structure.parameters()).dtype

    def identity(self) -> str:
        """All that makes the model what it is, in words: for what is kept of it between runs.

        Of a checkpoint beside its fingerprint the size and time of every file of weights; a module in memory
        is hashed whole.
        """
        fields = {"home": self.config.model_type, "dtype": str(self.dtype), "map": repr(self.device_map)}
        fields["biases"] = repr(None if self._slots is None else self._slots.added)
        if self.checkpoint is not None:
            self.checkpoint = self.checkpoint.with_weights()
            fields["fingerprint"] = str(self.fingerprint())
            fields["files"] = repr(self.checkpoint.weight_files())
        else:
            own = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
            fields["tensors"], fields["config"] = digest(own), self.config.to_json_string(use_diff=False)
        return json.dumps(fields, sort_keys=True)

    def fingerprint(self) -> str | None:
        """What identifies a checkpoint on this machine; None for a module or a config."""
        return None if self.checkpoint is None else self.checkpoint.fingerprint()

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer beside the weights.

        Raises:
            InputError: the model was not given as a checkpoint.
        """
        if self.checkpoint is None:
            raise InputError(
                "there is text to be read, and a model in memory has no tokenizer",
                hint="give token ids instead of text, or the folder of a checkpoint",
            )
        return self.checkpoint.load_tokenizer()

    def _transformers_module(self) -> PreTrainedModel:
        config_of(self._module)  # type: ignore[arg-type]  # refuses what is not of transformers
        return self._module  # type: ignore[return-value]


def widened(module: PreTrainedModel) -> PreTrainedModel:
    """`module`, or a copy in float32 where its weights are in half precision."""
    return in_dtype(module, torch.float32) if module.dtype in HALVES else module


def in_dtype(module: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """`module`, or a copy whose weights are in `dtype`."""
    if module.dtype == dtype:
        return module
    return cast(PreTrainedModel, nn.Module.to(copy.deepcopy(module), dtype))
