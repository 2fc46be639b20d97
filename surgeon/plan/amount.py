"""Amount: how much to keep, as a fraction, a count, or a target for the whole model.

The key says what a number means, never its type. Not here: which indices are kept (criteria and
allocation), nor which counts the model's config can express (`surgeon.plan.limits`).
"""

from __future__ import annotations

from math import ceil
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from surgeon.errors import InfeasibleError, PlanError
from surgeon.graph.strict import Strict

__all__ = ["Amount"]

_SLACK = 1e-9
"""Keeps a product that is whole in decimal notation, as 100 · 0.29, from being cut to one less."""


class Amount(Strict):
    """Exactly one of `fraction`, `count` and `params`, rounded down to a multiple of `multiple_of`.

    YAML::

        keep: {fraction: 0.75, multiple_of: 8}
    """

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": [key]} for key in ("fraction", "count", "params")]}
    )

    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the indices of every Axis that stays."""
    count: Annotated[int, Field(ge=1)] | None = None
    """Number of indices of every Axis that stays."""
    params: Annotated[float, Field(gt=0)] | None = None
    """Parameters that the whole model keeps: up to 1 a share of the original, above 1 a number."""
    multiple_of: Annotated[int, Field(ge=1)] = 1
    """Every kept count is a multiple of this."""

    @model_validator(mode="after")
    def _one_meaning(self) -> Amount:
        given = {name: getattr(self, name) for name in ("fraction", "count", "params")}
        said = [name for name, value in given.items() if value is not None]
        if len(said) != 1:
            raise ValueError(
                f"give exactly one of fraction, count, params; got {' and '.join(said) or 'none'}"
            )
        if self.count is not None and self.count % self.multiple_of:
            raise ValueError(f"count {self.count} is not a multiple of multiple_of {self.multiple_of}")
        if self.params is not None and self.params > 1 and self.params != int(self.params):
            raise ValueError(f"params {self.params} is neither a share (up to 1) nor a whole number")
        return self

    def kept(self, size: int, channels: int = 1) -> int:
        """How many of `size` indices stay.

        A fraction keeps ``int(size * fraction)``, the count of LLM-Pruner (Ma, Fang, Wang 2023, arXiv
        2305.11627), rounded down to a multiple of `multiple_of`, yet at least one multiple. Where an
        index owns several channels, as a head does, these are counted, and an index goes only when its
        whole number of channels does, as there.

        Args:
            size: indices of the Axis.
            channels: channels of each index.

        Raises:
            InfeasibleError: nothing would be left, or `size` is too small for the count.
            PlanError: the Amount is a target for the whole model.
        """
        if self.count is not None:
            if self.count > size:
                raise InfeasibleError(f"count {self.count} is more than there is: {size}")
            return self.count
        if self.fraction is None:
            raise PlanError(
                f"params {self.params} is a target for the whole model, not for one axis",
                hint="give fraction or count, or an operation that takes a model-wide target",
            )
        if size < self.multiple_of:
            raise InfeasibleError(
                f"no multiple of {self.multiple_of} fits in an axis of size {size}",
                hint="a smaller multiple_of",
            )
        kept = ceil(int(size * channels * self.fraction + _SLACK) / channels)
        if kept == 0:
            raise InfeasibleError(
                f"fraction {self.fraction} of an axis of size {size} keeps nothing",
                hint=f"a fraction of at least {1 / size:.4g}",
            )
        return max(kept // self.multiple_of, 1) * self.multiple_of

    def parameters(self, total: int) -> int:
        """How many of the `total` parameters the model keeps at most.

        Raises:
            InfeasibleError: the target is more than `total`.
            PlanError: the Amount is not a target for the whole model.
        """
        if self.params is None:
            raise PlanError("only a params amount is a target for the whole model")
        target = int(total * self.params + _SLACK) if self.params <= 1 else int(self.params)
        if target > total:
            raise InfeasibleError(
                f"params {target} is more than the model has: {total}",
                hint=f"a share up to 1, or a number below {total}",
            )
        return target
