"""Reload: does stock transformers read back what was written, and compute the same with it?

Nothing of surgeon is involved in loading: `AutoModelForCausalLM`, its default attention, and for the
layout ``per_layer`` the modeling file in the folder. Not here: the comparison with the original
(`surgeon.rebuild.compare`).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from surgeon.errors import VerifyError
from surgeon.io import Checkpoint, DiskSource, has_own_code
from surgeon.rebuild import load_into, probe_tokens
from surgeon.rebuild.forward import all_tensors, call_with
from surgeon.rebuild.lazy import as_lazy
from surgeon.rebuild.quiet import quiet_transformers
from surgeon.rebuild.tensors import stored_tensors
from surgeon.rebuild.unread import Unread, unread_module

__all__ = ["check_reload"]

GENERATED = 7
"""Tokens that are generated with the cache, to compare with a forward pass without one."""


def check_reload(
    folder: Path, small: PreTrainedModel, tolerance: float, resident: bool = True
) -> tuple[str, ...]:
    """Load `folder` with stock transformers and compare with `small`, the module that was written.

    Args:
        folder: a checkpoint.
        small: what it must compute.
        tolerance: allowed difference of the logits in float64, relative to the largest.
        resident: load it whole; else the stock class is run with weights that are read at each use.

    Returns:
        What was checked, in words.

    Raises:
        VerifyError: it does not load whole, or computes something else.
        CheckpointError: it needs code that surgeon did not write.
    """
    code = has_own_code(folder, Checkpoint.open(folder).config)
    fresh = _load(folder, code) if resident else _stock_class(folder, code, small)
    tokens = probe_tokens(fresh)
    with torch.no_grad():
        logits = _reloaded_logits(fresh, small, tokens, tolerance)
        forward = _forward(fresh, tokens)
        cached = _cached(_in_float32(fresh) if fresh.dtype.itemsize < 4 else fresh, tokens[:1])
    how = "stock AutoModelForCausalLM loads it" + (" with trust_remote_code" if code else "")
    if not resident:
        how = "the class that AutoModelForCausalLM chooses runs it, each weight read at its use"
    return (
        f"{how}; logits differ by {logits:.1e} of the largest",
        f"a forward pass in {forward} is finite",
        f"{GENERATED} tokens generated with the cache: logits differ by {cached:.1e} from one pass without",
    )


def _stock_class(folder: Path, code: bool, small: PreTrainedModel) -> PreTrainedModel:
    """A model too large to be held: the stock class on its config, with weights read as they are used."""
    with quiet_transformers():
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=code)
        with torch.device("meta"):
            found = AutoModelForCausalLM.from_config(config, trust_remote_code=code)
    if type(found).__name__ != type(small).__name__:
        raise VerifyError(
            f"stock transformers builds a {type(found).__name__} of the result, not a {type(small).__name__}"
        )
    checkpoint = Checkpoint.open(folder)
    return unread_module(found.eval(), DiskSource(folder, checkpoint.tensors, found))


def _in_float32(module: PreTrainedModel) -> PreTrainedModel:
    """The module in float32; where its weights are read at each use, they are widened then."""
    if not any(isinstance(tensor, Unread) for tensor in module.parameters()):
        return module.float()
    wide = {
        name: tensor.detach().to(dtype=torch.float32) if tensor.is_floating_point() else tensor
        for name, tensor in stored_tensors(module).items()
    }
    with torch.device("meta"):
        blank = type(module)(module.config).eval()
    return cast(PreTrainedModel, load_into(blank, wide.items()))


def _load(folder: Path, code: bool) -> PreTrainedModel:
    try:
        with quiet_transformers():
            loaded, report = cast(
                "tuple[PreTrainedModel, dict[str, Collection[object]]]",
                AutoModelForCausalLM.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=code, output_loading_info=True
                ),
            )
    except Exception as error:  # transformers raises whatever its parts raise
        raise VerifyError(
            f"stock transformers cannot load the result: {type(error).__name__}: {error}"
        ) from error
    faults = {key: sorted(map(str, names)) for key, names in report.items() if names}
    if faults:
        raise VerifyError(f"stock transformers loads the result with gaps: {faults}")
    return loaded.eval()


def _reloaded_logits(fresh: PreTrainedModel, small: nn.Module, tokens: Tensor, tolerance: float) -> float:
    """Relative difference in float64."""
    got = call_with(fresh, _widened(fresh), input_ids=tokens).logits  # type: ignore[attr-defined]
    device = next(small.parameters()).device
    want = call_with(small, _widened(small), input_ids=tokens.to(device)).logits.to(got.device)  # type: ignore[attr-defined]
    return _within(got, want, tolerance, "the reloaded model's logits differ from those of the one written")


def _widened(module: nn.Module) -> dict[str, Tensor]:
    """All tensors in float64, each cast when it is used."""
    return {
        name: Unread(as_lazy(tensor), tensor.device).double() if tensor.is_floating_point() else tensor
        for name, tensor in all_tensors(module).items()
    }


def _forward(fresh: PreTrainedModel, tokens: Tensor) -> str:
    if not bool(torch.isfinite(fresh(input_ids=tokens).logits).all()):
        raise VerifyError(f"a forward pass of the reloaded model in {fresh.dtype} is not finite")
    return str(fresh.dtype).removeprefix("torch.")


def _cached(fresh: PreTrainedModel, prompt: Tensor) -> float:
    """Relative difference of the logits, generated step by step and computed at once."""
    written = cast(Any, fresh).generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=GENERATED,
        min_new_tokens=GENERATED,
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    got = torch.stack(written.logits, 1)  # type: ignore[union-attr]
    want = fresh(input_ids=written.sequences, use_cache=False).logits[:, prompt.shape[1] - 1 : -1]  # type: ignore[union-attr]
    tolerance = 1000 * torch.finfo(fresh.dtype).eps
    return _within(
        got.to(want.dtype), want, tolerance, "cached generation differs from a pass without a cache"
    )


def _within(got: Tensor, want: Tensor, tolerance: float, what: str) -> float:
    largest = float(want.abs().max())
    apart = float((got - want).abs().max()) / (largest or 1.0)
    if not apart <= tolerance:
        raise VerifyError(f"{what} by {apart:.3g} of the largest; allowed is {tolerance:.1e}")
    return apart
