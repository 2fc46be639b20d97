"""Score Groups of a streamed model in each Block, on the way back through it, as gradients cannot wait."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from surgeon.calibrate import Statistics
from surgeon.calibrate.condensed import Condensed
from surgeon.calibrate.store import code_of
from surgeon.criteria import Criterion, Scores, trainable
from surgeon.errors import SurgeonError
from surgeon.graph import Group
from surgeon.operations.scoring import scores_of
from surgeon.operations.state import State

__all__ = ["scores_on_the_way"]


def scores_on_the_way(
    state: State, groups: Sequence[Group], criterion: Criterion
) -> Mapping[str, Scores] | None:
    """Scores of `groups` by name, on what `state` leaves of the model; None where nothing has to wait.

    Raises:
        SurgeonError: the criterion does not give one score an index.
    """
    said = _said(state, groups, criterion)
    if said is None:
        return None
    backward = frozenset(key for key in criterion.needs() if key.gradients)
    forward = state.statistics(criterion.needs() - backward, groups)
    narrow = {key: key.on(state.graph, groups) for key in backward}

    def make(found: Statistics) -> Mapping[str, Tensor]:
        own = found.renamed(narrow)
        both = Statistics({**forward.results, **own.results}, own.samples, own.tokens)
        names = {name for results in own.results.values() for name in results}
        here = [group for group in groups if set(trainable(group, state.graph).params) <= names]
        return {group.name: _packed(scores_of(state, group, criterion, both)) for group in here}

    key = Condensed(tuple(sorted(narrow.values(), key=repr)), said, make)
    found = state.statistics({key}).get(key)
    return {group.name: _unpacked(group, found[group.name]) for group in groups}


def _said(state: State, groups: Sequence[Group], criterion: Criterion) -> str | None:
    """What scores made where their gradients are measured depend on; None where they are made afterwards."""
    code = code_of(type(criterion))
    if code is None or not any(key.gradients for key in criterion.needs()):
        return None
    whole = all(
        param.startswith(f"{group.block}.")
        for group in groups
        for param in trainable(group, state.graph).params
    )
    said = {"scores": criterion.model_dump(mode="json"), "code": code, "of": [g.name for g in groups]}
    return json.dumps(said, sort_keys=True) if whole else None


def _packed(scores: Scores) -> Tensor:
    """Values, and behind them the spread, NaN where there is none."""
    if scores.best:
        raise SurgeonError(
            f"the scores of '{scores.axis}' come with sets that were searched, which a way back through a "
            "streamed model does not keep",
            hint="do not stream",
        )
    spread = float("nan") if scores.spread is None else scores.spread
    return torch.tensor([*scores.values.tolist(), spread], dtype=torch.float64)


def _unpacked(group: Group, packed: Tensor) -> Scores:
    spread = float(packed[-1])
    return Scores(group.name, packed[:-1].cpu().numpy(), spread if spread == spread else None)
