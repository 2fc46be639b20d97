"""Reload: does stock transformers read back what was written, and compute the same with it?

Nothing of surgeon is involved in loading: the auto class of the model's task, its default attention, and
for the layout ``per_layer`` the modeling file in the folder. Not here: generating (`generation`), and the
comparison with the original (`surgeon.rebuild.compare`).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from surgeon.api.generation import GENERATED, check_generation, within
from surgeon.errors import VerifyError
from surgeon.io import Checkpoint, DiskSource, has_own_code
from surgeon.rebuild import load_into, probe_tokens
from surgeon.rebuild.execution import GROUPED_BYTES, loop_where_needed
from surgeon.rebuild.forward import (
    all_tensors,
    call_with,
    cast_inputs,
    feed,
    first_output,
    in_dtype_or_own,
)
from surgeon.rebuild.lazy import as_lazy
from surgeon.rebuild.per_layer_class import stock_auto_class
from surgeon.rebuild.quiet import quiet_transformers
from surgeon.rebuild.skeleton import stock_architecture
from surgeon.rebuild.tensors import stored_tensors
from surgeon.rebuild.unread import Unread, unread_module

__all__ = ["check_reload"]

GENERATED_UNREAD = 3
"""Tokens that are generated where each reads all weights from disk: one, and two that the cache serves."""

LOOPED = (
    f"its experts are no multiple of {GROUPED_BYTES} bytes wide, which grouped products refuse: load it with "
    "experts_implementation='eager', or keep: {multiple_of: 8}"
)


def check_reload(
    folder: Path,
    small: PreTrainedModel,
    tolerance: float,
    resident: bool = True,
    original: PreTrainedModel | None = None,
) -> tuple[str, ...]:
    """Load `folder` with stock transformers and compare with `small`, the module that was written.

    Args:
        folder: a checkpoint.
        small: what it must compute.
        tolerance: allowed difference of the logits in float64, relative to the largest.
        resident: load it whole; else the stock class is run with weights that are read at each use.
        original: the model before the cut; where its own generation with a cache goes wrong too, that is
            said, and is no fault of the result.

    Returns:
        What was checked, in words.

    Raises:
        VerifyError: it does not load whole, or computes something else.
        CheckpointError: it needs code that surgeon did not write.
    """
    config = Checkpoint.open(folder).config
    code = has_own_code(folder, config)
    loader = stock_auto_class(stock_architecture(config), config)
    fresh = _load(loader, folder, code) if resident else _stock_class(loader, folder, code, small)
    tokens = probe_tokens(fresh)
    looped = loop_where_needed(fresh)
    with torch.no_grad():
        logits = _reloaded_logits(fresh, small, tokens, tolerance)
        forward = _forward(fresh, tokens)
        said: list[str] = []
        if fresh.can_generate():
            wide = _in_float32(fresh) if fresh.dtype.itemsize < 4 else fresh
            count = GENERATED if resident else GENERATED_UNREAD
            said.append(check_generation(wide, tokens[:1], original, count))
    how = f"stock {loader.__name__} loads it" + (" with trust_remote_code" if code else "")
    if not resident:
        how = f"the class that {loader.__name__} chooses runs it, each weight read at its use"
    return (
        f"{how}; logits differ by {logits:.1e} of the largest",
        f"a forward pass in {forward} is finite",
        *said,
        *((LOOPED,) if looped else ()),
    )


def _stock_class(loader: Any, folder: Path, code: bool, small: PreTrainedModel) -> PreTrainedModel:
    """A model too large to be held: the stock class on its config, with weights read as they are used."""
    with quiet_transformers():
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=code)
        with torch.device("meta"):
            known = {"trust_remote_code": code} if code else {}
            found = (getattr(loader, "from_config", None) or loader._from_config)(config, **known)
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


def _load(loader: Any, folder: Path, code: bool) -> PreTrainedModel:
    try:
        with quiet_transformers():
            loaded, report = cast(
                "tuple[PreTrainedModel, dict[str, Collection[object]]]",
                loader.from_pretrained(
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
    """Relative difference of the first outputs, in float64 where the model's code runs in it."""
    device = next(small.parameters()).device

    def outputs(dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
        own = _widened if dtype is not None else all_tensors
        got = call_with(fresh, own(fresh), **cast_inputs(feed(fresh, tokens), dtype))
        want = call_with(small, own(small), **cast_inputs(feed(small, tokens.to(device)), dtype))
        return first_output(got).value, first_output(want).value

    got, want = in_dtype_or_own(outputs, torch.float64)
    what = "the reloaded model's logits differ from those of the one written"
    return within(got, want.to(got), tolerance, what)


def _widened(module: nn.Module) -> dict[str, Tensor]:
    """All tensors in float64, each cast when it is used; tied ones stay one."""
    wide: dict[int, Tensor] = {}
    named = all_tensors(module)
    for tensor in named.values():
        if id(tensor) not in wide:
            floats = tensor.is_floating_point()
            wide[id(tensor)] = Unread(as_lazy(tensor), tensor.device).double() if floats else tensor
    return {name: wide[id(tensor)] for name, tensor in named.items()}


def _forward(fresh: PreTrainedModel, tokens: Tensor) -> str:
    plain = {"use_cache": False} if fresh.can_generate() else {}  # generation asks for the cache
    if not bool(torch.isfinite(first_output(fresh(**feed(fresh, tokens), **plain)).value).all()):
        raise VerifyError(f"a forward pass of the reloaded model in {fresh.dtype} is not finite")
    return str(fresh.dtype).removeprefix("torch.")
