"""Rehome: the same weights in another stock class that computes the same.

Some families are another one with parts switched off. A class whose config can switch them on (biases)
can take the weights over. Found by probing: fields of one name carry over, flags are tried until every
tensor fits, and the logits of both models decide. Not here: biases that the model's own config can
switch on (`bias_slots`).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import cast

import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from surgeon.errors import InfeasibleError, RebuildError
from surgeon.rebuild.config_tree import Path, leaves, path_text, quiet, vary
from surgeon.rebuild.forward import PrecisionLoss, all_tensors, call_with, feed, first_output, probe_tokens
from surgeon.rebuild.signature import Signature, measure
from surgeon.rebuild.skeleton import load_into, skeleton
from surgeon.rebuild.tensors import ModuleSource, stored_tensors

__all__ = ["carried_over", "rehome", "rehomed_config"]

NOT_CARRIED = frozenset({"model_type", "architectures", "transformers_version", "auto_map"})
FLAGS = 3
"""How many flags of the new class may have to be set together."""


def rehomed_config(config: PreTrainedConfig, model_type: str) -> PreTrainedConfig:
    """The config of another family that builds every tensor of `config`'s model, of the same shape.

    It may build further biases; they are zero in `rehome`.

    Raises:
        InfeasibleError: there is no such family, or no config of it that fits.
    """
    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InfeasibleError(f"transformers has no language model of type '{model_type}' to move to")
    want = measure(config)
    closest: tuple[str, ...] = ()
    for candidate in carried_over(config, model_type):
        try:
            lacking = _lacking(want, measure(candidate))
        except RebuildError as error:
            lacking = (error.message,)
        if not lacking:
            return candidate
        closest = lacking if not closest or len(lacking) < len(closest) else closest
    more = f" and {len(closest) - 3} more" if len(closest) > 3 else ""
    raise InfeasibleError(
        f"no config of type '{model_type}' takes over a model of type '{config.model_type}': "
        f"{'; '.join(closest[:3])}{more}"
    )


def rehome(module: PreTrainedModel, model_type: str) -> PreTrainedModel:
    """`module`'s weights in the stock class of another family; `module` is left as it is.

    Raises:
        InfeasibleError: no config of that family fits, or its model computes something else.
    """
    config = rehomed_config(vary(module.config, {("architectures",): [type(module).__name__]}), model_type)
    blank = skeleton(config, dtype=module.dtype)
    source = ModuleSource(module)
    own = set(source.names())
    device = next(module.parameters()).device
    stream = [(name, source.get(name)) for name in source.names()]
    more = {
        name: torch.zeros(place.shape, dtype=module.dtype, device=device)
        for name, place in stored_tensors(blank).items()
        if name not in own
    }
    moved = cast(PreTrainedModel, load_into(blank, [*stream, *more.items()]))
    if moved.can_generate():
        moved.generation_config = copy.deepcopy(module.generation_config)
    _prove(module, moved)
    return moved.train(module.training)


def carried_over(config: PreTrainedConfig, model_type: str) -> Iterator[PreTrainedConfig]:
    """Fields of one name carried over, then with up to a few flags turned, the fewest first."""
    family = CONFIG_MAPPING[model_type]
    with quiet():
        known = family().to_dict().keys() - NOT_CARRIED
        carried = {key: value for key, value in config.to_dict().items() if key in known}
        base = family.from_dict(carried, attn_implementation=config._attn_implementation)
    flags = [key for key, value in base.to_dict().items() if isinstance(value, bool)]
    for count in range(FLAGS + 1):
        for turned in itertools.combinations(flags, count):
            changes: dict[Path, object] = {(key,): not base.to_dict()[key] for key in turned}
            try:
                yield vary(base, changes)
            except RebuildError:
                continue


def _lacking(want: Signature, built: Signature) -> tuple[str, ...]:
    """What of the original the new class does not build as it is, and what it builds that is no bias."""
    faults = [
        f"{name} {list(shape)} is built {list(built.shapes[name]) if name in built.shapes else 'not at all'}"
        for name, shape in want.shapes.items()
        if built.shapes.get(name) != shape
    ]
    added = built.shapes.keys() - want.shapes.keys()
    faults += [f"{name} is built" for name in sorted(added) if name.rpartition(".")[2] != "bias"]
    return tuple(faults)


def _prove(module: PreTrainedModel, moved: PreTrainedModel) -> None:
    """Both compute the same logits in float64, and nothing that the new config cannot say matters.

    A field such as a window does nothing on a short text; so each number that was left behind is set to
    one in the original, and the logits must not follow it.

    Raises:
        InfeasibleError: by how much they differ, or which field matters.
    """
    tokens = probe_tokens(module)
    where = f"a model of type '{moved.config.model_type}'"
    loss = PrecisionLoss()
    with loss:
        want, got = _logits(module, tokens), _logits(moved, tokens)
    apart = float((want - got).abs().max() / want.abs().max())
    if not apart <= loss.tolerance:
        raise InfeasibleError(
            f"the weights fit {where}, but it computes something else: logits differ by {apart:.2g} of the "
            "largest"
        )
    for path, value in leaves(module.config).items():
        if type(value) is int and value > 1 and path[0] not in moved.config.to_dict():
            other = _with_field(module, path)
            if other is None or not torch.equal(_logits(other, tokens), want):
                raise InfeasibleError(
                    f"the weights fit {where}, whose config cannot say {path_text(path)} = {value}, which "
                    "matters"
                )


def _with_field(module: PreTrainedModel, path: Path) -> PreTrainedModel | None:
    """The same weights under a config with one field set to one; None where they do not fit."""
    try:
        config = vary(module.config, {path: 1})
        stream = stored_tensors(module).items()
        return cast(PreTrainedModel, load_into(skeleton(config, dtype=module.dtype), stream))
    except RebuildError:
        return None


def _logits(module: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output = call_with(module, all_tensors(module, torch.float64), **feed(module, tokens))
    return first_output(output).value
