"""Repair ``bias``: what the removed inputs gave on average goes into the bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from surgeon.repair.cut import Cut
from surgeon.repair.repair import Evidence, Repair, Repaired, repairs

__all__ = ["Bias"]


@repairs.register("bias")
class Bias(Repair):
    """``b += W[:, removed] · mean[removed]``, from the old weights (An et al. 2023, FLAP, arXiv 2312.11983).

    Added to the bias that is there; the authors' code writes over it. The projection needs a bias.

    YAML::

        repair: bias
    """

    repair: Literal["bias"] = "bias"

    @property
    def wants_bias(self) -> bool:
        """Each cut projection needs one."""
        return True

    def refuse(self, cuts: Sequence[Cut]) -> str | None:
        """Projections without a bias."""
        lacking = [cut.param for cut in cuts if cut.bias is None]
        if not lacking:
            return None
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        return f"'{lacking[0]}'{more} of {len(cuts)} projections have no bias to put the lost mean into"

    def mend(self, cuts: Sequence[Cut], evidence: Evidence) -> Repaired:
        """New biases."""
        means = evidence.means(cuts)
        values: dict[str, Tensor] = {}
        for cut in cuts:
            if cut.bias is None or cut.param not in means:
                continue
            old = values.get(cut.bias, evidence.tensor(cut.bias))
            lost = _lost(evidence.tensor(cut.param), means[cut.param], cut)
            values[cut.bias] = (old.double() + lost.to(old.device)).to(old.dtype)
        return Repaired(values)


def _lost(w: Tensor, mean: Tensor, cut: Cut) -> Tensor:
    """Mean of what the removed inputs gave, [outputs] or [slices, outputs], float64."""
    removed = torch.from_numpy(cut.removed).to(w.device)
    columns = w.double().movedim(cut.dim, -1)[..., removed]
    return (columns * mean.to(w.device)[..., None, removed]).sum(-1)
