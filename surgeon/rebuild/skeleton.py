"""A module from a config, with or without storage, and weights put into it.

What: `skeleton` builds the class that the config names; `load_into` fills one from a stream of named
tensors. Why: tracing, config probing, rebuilding and checking all need a module whose weights come
later or never. Not here: reading a checkpoint (`surgeon.io`), solving a config (`config_solve`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import nullcontext
from typing import cast

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as hf_init

from surgeon.errors import RebuildError
from surgeon.rebuild.execution import loop_where_needed
from surgeon.rebuild.per_layer_class import TABLE, modeling_source, per_layer_class, stock_class
from surgeon.rebuild.quiet import quiet_transformers
from surgeon.rebuild.tensors import stored_tensors

__all__ = ["architecture", "load_into", "modeling_text", "skeleton", "stock_architecture"]


def architecture(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that ``config.architectures`` names, else the causal model of that config's type.

    A config of the layout ``per_layer`` gets that class narrowed as it says; no code beside it is run.

    Raises:
        RebuildError: transformers has no such class.
    """
    stock = stock_architecture(config)
    return per_layer_class(stock) if getattr(config, TABLE, None) else stock


def modeling_text(config: PreTrainedConfig) -> str | None:
    """Text of the modeling file that must lie beside weights of this config, or None where none must."""
    return modeling_source(stock_architecture(config), config) if getattr(config, TABLE, None) else None


def stock_architecture(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of transformers itself that `architecture` builds or narrows; a RebuildError where none."""
    for name in map(stock_class, config.architectures or ()):
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, PreTrainedModel):
            return found
    mapping = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) in mapping:
        return cast(type[PreTrainedModel], mapping[type(config)])
    raise RebuildError(
        f"transformers {transformers.__version__} has no model class for a config of type "
        f"'{config.model_type}' with architectures {config.architectures}",
        hint="a newer transformers, or a config whose 'architectures' names a class that it has",
    )


def skeleton(
    config: PreTrainedConfig,
    *,
    device: str | torch.device = "meta",
    dtype: torch.dtype | None = None,
    attention: str = "eager",
    experts: str | None = None,
) -> PreTrainedModel:
    """A module of the class that `config` names, its parameters uninitialised.

    On ``meta`` nothing has storage; on another device the parameters hold arbitrary values and the
    buffers that are computed from the config hold the right ones. `config` itself is not changed.

    Args:
        config: what to build.
        device: where the tensors live.
        dtype: of the parameters; None takes the config's, float32 where it has none.
        attention: attention implementation; ``eager`` computes with plain ops.
        experts: experts implementation; None leaves the family's own, where it takes their widths.

    Raises:
        RebuildError: the class does not exist, or refuses the config.
    """
    cls = architecture(config)
    own = copy.deepcopy(config)
    options: dict[str, str] = {"attn_implementation": attention}
    if experts is not None:
        options["experts_implementation"] = experts
    on_meta = torch.device(device).type == "meta"
    safe = hf_init.meta_device_safe_creation_ops() if on_meta else nullcontext()
    try:
        with torch.device(device), hf_init.no_init_weights(), safe, quiet_transformers():
            module = cls._from_config(own, dtype=dtype or _dtype_of(own), **options)
            module.tie_weights()
    except (ValueError, TypeError, AttributeError, RuntimeError, KeyError, ZeroDivisionError) as error:
        raise RebuildError(
            f"{cls.__name__} refuses the config: {type(error).__name__}: {error}",
            hint="compare the fields of config.json with each other",
        ) from error
    if experts is None:
        loop_where_needed(module)
    return module.eval()


def load_into(module: nn.Module, stream: Iterable[tuple[str, Tensor]]) -> nn.Module:
    """Put every tensor of `stream` in its place in `module`, which is returned.

    Tensors are taken as they are (dtype and device are the stream's); a name tied to others in the
    module fills them all. Buffers that are computed from the config are computed anew where they
    have no storage yet.

    Raises:
        RebuildError: names that the module lacks, shapes that differ, or tensors left unfilled; all
            of them listed.
    """
    places = stored_tensors(module)
    filled: set[int] = set()
    faults: list[str] = []
    for name, tensor in stream:
        old = places.get(name)
        if old is None:
            faults.append(f"{name}: the new module has no such tensor")
        elif tuple(old.shape) != tuple(tensor.shape):
            faults.append(f"{name}: {list(tensor.shape)} does not fit {list(old.shape)}")
            filled.add(id(old))
        elif id(old) not in filled:
            filled.add(id(old))
            aliases = [alias for alias, place in places.items() if place is old]
            _assign(module, aliases, old, tensor)
    faults += [f"{name}: not filled" for name, old in places.items() if id(old) not in filled]
    if faults:
        listing = "\n".join(f"  {fault}" for fault in sorted(faults))
        raise RebuildError(f"{len(faults)} tensors do not fit {type(module).__name__}:\n{listing}")
    _compute_buffers(module)
    return module


def _assign(module: nn.Module, names: list[str], old: Tensor, tensor: Tensor) -> None:
    new = tensor.detach()
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    new._is_hf_initialized = True  # type: ignore[attr-defined]  # keeps transformers from drawing it anew
    for name in names:
        path, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(path), leaf, new)


def _compute_buffers(module: nn.Module) -> None:
    """Give the buffers that are not stored their values, the way a loaded checkpoint gets them."""
    lacking = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    if not lacking:
        return
    devices = {p.device for p in module.parameters()}
    for name in lacking:
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        setattr(owner, leaf, torch.empty_like(owner.get_buffer(leaf), device=next(iter(devices))))
    for part in module.modules():
        part.__dict__.pop("_is_hf_initialized", None)
    if not isinstance(module, PreTrainedModel):
        raise RebuildError(
            f"{type(module).__name__} has buffers without storage and does not say how to compute them: "
            f"{', '.join(lacking)}",
            hint="build the module on a real device first",
        )
    module.initialize_weights()


def _dtype_of(config: PreTrainedConfig) -> torch.dtype:
    dtype = config.dtype
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    return dtype or torch.float32
