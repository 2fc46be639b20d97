"""Repair ``refit``: the inputs that a projection keeps take over those that it lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from surgeon.repair.cut import Cut
from surgeon.repair.least_squares import anchored, ridge_step
from surgeon.repair.repair import Evidence, Gap, Repair, Repaired, repairs

__all__ = ["Refit"]


@repairs.register("refit")
class Refit(Repair):
    """Ridge least squares in float64, anchored at the weights that there are.

    ``target: layer`` fits each projection to what it gave before the cut, from one Gram matrix: LIAR and
    the closed-form family. ``target: stream`` goes front to back and fits it to the original's residual
    stream on the states of the cut and repaired model so far, so that it makes up for earlier damage as
    well: ours. Behind a projection that a norm reads first there is no closed form: it is fitted to what it
    gave in the original. Kept experts are fitted together. With `constant`, a projection that
    has a bias gets a new one too, which contains FLAP's. In the depth, ``reach: rest`` does best.

    YAML::

        repair: {repair: refit, target: stream, ridge: 0.01}
    """

    repair: Literal["refit"] = "refit"
    target: Literal["layer", "stream"] = "stream"
    """What the projections are fitted to."""
    ridge: Annotated[float, Field(ge=0)] = 0.01
    """Pull toward the present weights, relative to the mean square of the inputs."""
    constant: bool = False
    """Fit the bias too, where there is one."""
    reach: Literal["gap", "layer", "rest"] = "gap"
    """Behind dropped blocks or sublayers, what is fitted: the last projection before the gap; both of its
    layer, where that ends nearer to the original; or these and those of all later layers as well."""

    def mend(self, cuts: Sequence[Cut], evidence: Evidence) -> Repaired:
        """New weights, and biases where `constant`."""
        streamed = [cut for cut in cuts if self.target == "stream" and cut.slices is None and cut.block]
        alone = [cut for cut in cuts if cut not in streamed]
        values = evidence.by_gram(alone, self.constant, lambda cut, gram: self._to_layer(cut, gram, evidence))

        def mend(cut: Cut, gap: Gap) -> Mapping[str, Tensor]:
            step = ridge_step(gap.gram, gap.cross, self.ridge, self._constant(cut))
            del gap  # its matrices are as large as all that comes now
            kept = self._with_bias(torch.from_numpy(cut.kept).to(step.device), cut)
            step += self._matrix(cut, evidence)[0].to(step.device)[kept]
            return self._values(cut, step[None], evidence)

        along = evidence.along_stream(streamed, self.constant, mend)
        notes = (
            *_note(alone if self.target == "stream" else (), "in no block: fitted to what they gave before"),
            *_note(along.apart, "read by a norm before the stream: fitted to what they gave in the original"),
        )
        return Repaired({**values, **along.values}, notes)

    def _to_layer(self, cut: Cut, gram: Tensor, evidence: Evidence) -> Mapping[str, Tensor]:
        """Fit one projection to what it gave with all its inputs."""
        solved = []
        for g, w in zip(gram if cut.slices else gram[None], self._matrix(cut, evidence), strict=True):
            full = w.to(g)
            if self.constant and not self._constant(cut):
                g = g[:-1, :-1]
            kept = self._with_bias(torch.from_numpy(cut.kept).to(g.device), cut)
            solved.append(
                anchored(g[kept][:, kept], g[kept] @ full, full[kept], self.ridge, self._constant(cut))
            )
        return self._values(cut, torch.stack(solved), evidence)

    def _constant(self, cut: Cut) -> bool:
        return self.constant and cut.bias is not None

    def _with_bias(self, kept: Tensor, cut: Cut) -> Tensor:
        """`kept`, and the place of the bias row behind the features."""
        return torch.cat([kept, kept.new_tensor([-1])]) if self._constant(cut) else kept

    def _matrix(self, cut: Cut, evidence: Evidence) -> Tensor:
        """Old weights [slices, features, outputs], the bias as last feature where it is fitted."""
        w = evidence.tensor(cut.param)
        stacked = w.movedim(cut.dim, -2) if cut.slices else w.movedim(cut.dim, 0).flatten(1)[None]
        if not self._constant(cut) or cut.bias is None:
            return stacked
        bias = evidence.tensor(cut.bias)
        return torch.cat([stacked, bias.reshape(len(stacked), 1, -1)], 1)

    def _values(self, cut: Cut, solved: Tensor, evidence: Evidence) -> Mapping[str, Tensor]:
        """Tensors in the parameters' shapes from `solved` [slices, kept features, outputs]."""
        w = evidence.tensor(cut.param)
        new = w.movedim(cut.dim, -2 if cut.slices else 0).clone()
        kept = torch.from_numpy(cut.kept).to(w.device)
        rows = solved[:, : len(kept)].to(w)
        if cut.slices:
            new[:, kept] = rows
        else:
            new[kept] = rows[0].reshape(len(kept), *new.shape[1:])
        values = {cut.param: new.movedim(-2 if cut.slices else 0, cut.dim).contiguous()}
        if self._constant(cut) and cut.bias is not None:
            bias = evidence.tensor(cut.bias)
            values[cut.bias] = solved[:, -1].reshape(bias.shape).to(bias)
        return values


def _note(projections: Sequence[object], what: str) -> tuple[str, ...]:
    """How many projections were not fitted to the stream, and why."""
    return (f"{len(projections)} projections are {what}",) if projections else ()
