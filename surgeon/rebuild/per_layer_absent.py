"""Modules of a block that are taken out: what stands in the table in their place.

Not here: the module that takes their place (`per_layer_model`), and which ones go (`surgeon.plan.gone`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import nn
from transformers import PreTrainedModel

from surgeon.errors import InfeasibleError
from surgeon.rebuild.forward import call_with, encoder_states, feed, probe_tokens
from surgeon.rebuild.quiet import quiet_transformers
from surgeon.rebuild.skeleton import skeleton

__all__ = ["absent_rows", "runs"]


def absent_rows(module: PreTrainedModel, block: str, paths: Sequence[str]) -> dict[str, dict[str, object]]:
    """By path below `block`: how many things each module returns in a tuple, or None for a tensor.

    Args:
        module: the model before anything is taken out, with or without storage.
        block: module path of the block.
        paths: modules below it that go.

    Raises:
        InfeasibleError: one of them does not run, or returns nothing of which zero could be added.
    """
    if not paths:
        return {}
    found: dict[str, object] = {}

    def seen(path: str) -> Callable[..., None]:
        def after(part: nn.Module, args: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor):
                found[path] = len(output) if isinstance(output, tuple) else None

        return after

    trial = module if runs(module) is None else skeleton(module.config, device="cpu")
    own = trial.get_submodule(block)
    with ExitStack() as stack:
        for path in paths:
            stack.callback(own.get_submodule(path).register_forward_hook(seen(path)).remove)
        runs(trial)
    lacking = [path for path in paths if path not in found]
    if lacking:
        raise InfeasibleError(
            f"'{block}.{lacking[0]}' cannot be taken out: it is not seen to return a tensor",
            hint="export: {layout: padded}",
        )
    return {path: {"absent": outputs} for path, outputs in found.items()}


def runs(module: PreTrainedModel, *, attending: bool = False) -> str | None:
    """Why a forward pass fails, or None; `attending`: one that attends to the states of an encoder."""
    try:
        with torch.no_grad(), quiet_transformers():
            tokens = probe_tokens(module).to(next(module.parameters()).device)
            further = encoder_states(module, tokens) if attending else {}
            call_with(module, {}, **feed(module, tokens), **further)
    except Exception as error:  # model code raises whatever its parts raise
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return None
