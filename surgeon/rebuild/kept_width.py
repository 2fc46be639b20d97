"""KeptWidth: averages over a partly removed Axis, taken over what is kept.

A norm divides by the width of what it normalises, so zeros in the place of removed channels are not
the same as a narrower model. Inside this context, means, variances, layer norms and RMS norms over
such a dimension see the kept positions only. It works above autograd, so gradients are right too.

Which dimensions those are: of the size the Axis has in one of its Sites, and zero at every removed
position, which the masked tensors of the model guarantee and another dimension that merely has the
same size does not offer. What is centred by hand (``x - mean``) stays recognised on its way to the
variance. Not here: which positions are kept (`surgeon.plan.cuts_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["KeptWidth", "Width"]

AVERAGES = frozenset({"mean", "nanmean", "var", "std", "var_mean", "std_mean"})
CENTRINGS = frozenset({"sub", "__sub__", "subtract"})
ELEMENTWISE = frozenset(
    {"pow", "__pow__", "square", "mul", "__mul__", "abs", "to", "float", "double", "type"}
)


class Width(NamedTuple):
    """A dimension of `size` positions of which `kept` stay and `removed` go."""

    size: int
    kept: Tensor
    removed: Tensor


class KeptWidth(TorchFunctionMode):
    """Inside this context, averages over a dimension described by `widths` are over what is kept."""

    def __init__(self, widths: Iterable[Width]) -> None:
        super().__init__()
        self._widths = sorted(widths, key=lambda width: -len(width.removed))
        self._centred = WeakIdKeyDictionary()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in AVERAGES and args and isinstance(args[0], Tensor):
            return func(self._narrow(args[0], _dims(args, kwargs)), *args[1:], **kwargs)
        if name in ("layer_norm", "rms_norm"):
            return self._norm(func, name, *args, **kwargs)
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and args and isinstance(args[0], Tensor):
            self._follow(name, args[0], args[1:], out)
        return out

    def _narrow(self, x: Tensor, dims: Sequence[int] | None) -> Tensor:
        for dim in range(x.ndim) if dims is None else dims:
            width = self._width(x, dim)
            if width is not None:
                x = x.index_select(dim, width.kept.to(x.device))
        return x

    def _width(self, x: Tensor, dim: int) -> Width | None:
        if x.ndim == 0:
            return None
        if dim in (-1, x.ndim - 1) and x in self._centred:
            return self._centred[x]
        for width in self._widths:
            if x.shape[dim] == width.size:
                gone = x.detach().index_select(dim, width.removed.to(x.device))
                if not gone.any():
                    return width
        return None

    def _follow(self, name: str, x: Tensor, rest: Sequence[object], out: Tensor) -> None:
        """Keep knowing a tensor whose removed positions are no longer zero because it was centred."""
        if x.ndim == 0 or out.shape != x.shape:
            return
        if name in ELEMENTWISE and x in self._centred:
            self._centred[out] = self._centred[x]
        elif name in CENTRINGS and rest and isinstance(rest[0], Tensor) and rest[0].shape[-1:] == (1,):
            width = self._width(x, -1)
            if width is not None:
                self._centred[out] = width

    def _norm(
        self,
        func: Callable[..., Tensor],
        name: str,
        x: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        *rest: object,
        **kwargs: object,
    ) -> Tensor:
        width = self._width(x, -1) if len(normalized_shape) == 1 else None
        if width is None:
            return func(x, normalized_shape, weight, *rest, **kwargs)
        kept = width.kept.to(x.device)
        options: dict[str, Any] = (
            dict(zip(("bias", "eps") if name == "layer_norm" else ("eps",), rest, strict=False)) | kwargs
        )
        bias = options.get("bias")
        if isinstance(bias, Tensor):
            options["bias"] = bias.index_select(0, kept)
        options.pop("cudnn_enable", None)
        narrow = F.layer_norm if name == "layer_norm" else F.rms_norm
        scale = None if weight is None else weight.index_select(0, kept)
        out = narrow(x.index_select(-1, kept), [len(kept)], scale, **options)
        return out.new_zeros(x.shape).index_copy(x.ndim - 1, kept, out)


def _dims(args: Sequence[object], kwargs: dict[str, object]) -> Sequence[int] | None:
    found = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    if found is None or isinstance(found, bool | torch.dtype):
        return None
    return (found,) if isinstance(found, int) else tuple(found)  # type: ignore[arg-type]
