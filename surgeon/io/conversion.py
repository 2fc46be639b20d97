"""Names and layouts on disk to those of the module and back, by transformers' own conversion maps.

Its converters are handed `Lazy` tensors, so nothing is read here: fused experts that lie one by one on
disk are described as a join, and a join that is split again is what was joined. Not here: the tensors
(`disk_source`).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)
from transformers.modeling_utils import remove_tied_weights_from_state_dict

from surgeon.rebuild.lazy import Lazy

__all__ = ["to_disk", "to_module"]

OLD_BUFFERS = {r"rotary_emb\.inv_freq": "rotary_emb.inv_freq", r"(^|\.)position_ids$": "position_ids"}
"""Buffers that older checkpoints store, where the module computes one of that name."""


def to_module(model: PreTrainedModel, stored: Mapping[str, Lazy]) -> tuple[dict[str, Lazy], tuple[str, ...]]:
    """Tensors under the names that they have in `model`, and names on disk that it has no place for.

    Args:
        model: built without storage from the config beside the tensors.
        stored: tensors by their names on disk.
    """
    state = model.state_dict()
    mapping = get_model_conversion_mapping(model)
    renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
    converters = [one for one in mapping if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    collected: dict[str, Any] = {}
    unexpected: list[str] = []
    for name in sorted(stored, key=dot_natural_key):
        prefix = model.base_model_prefix
        target, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if target not in state and name in state:
            target, pattern = rename_source_key(name, [], [], prefix, state)
        if target not in state:
            unexpected.append(name)
            continue
        new = WeightRenaming(name, target) if pattern is None else copy.deepcopy(by_pattern[pattern])
        collected.setdefault(target, new).add_tensor(target, name, pattern or name, stored[name])
    found: dict[str, Lazy] = {}
    for target, transform in collected.items():
        for name, tensor in transform.convert(target, model=model, config=model.config).items():
            found[name] = tensor[0] if isinstance(tensor, list) else tensor
    return found, tuple(_not_ignored(model, unexpected))


def to_disk(model: PreTrainedModel, tensors: Mapping[str, Lazy]) -> dict[str, Lazy]:
    """Tensors under the names that ``save_pretrained`` would store them by, tied ones once.

    Args:
        model: built without storage from the config that goes beside them.
        tensors: tensors by their names in `model`.
    """
    state = model.state_dict()
    kept = remove_tied_weights_from_state_dict(dict(state), model)
    left_out = set(model._keys_to_ignore_on_save or ())
    return revert_weight_conversion(model, {n: tensors[n] for n in kept if n not in left_out})  # type: ignore[arg-type]


def _not_ignored(model: PreTrainedModel, names: Iterable[str]) -> list[str]:
    """Without what the model's class, or transformers for every class, loads nothing into on purpose."""
    buffers = [name for name, _ in model.named_buffers()]
    ignored = set(model._keys_to_ignore_on_load_unexpected or ())
    ignored |= {rule for rule, end in OLD_BUFFERS.items() if any(name.endswith(end) for name in buffers)}
    return [name for name in names if not any(re.search(rule, name) for rule in ignored)]
