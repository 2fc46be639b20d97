"""Score Groups from what was measured, or in each Block as it is, where gradients would have to wait.

Not here: which Groups compete for places (`pooling`), what a score is (`surgeon.criteria`), and scores that
are made on the way back through a streamed model (`scoring_streamed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from surgeon.criteria import Criterion, Scores, trainable
from surgeon.errors import SurgeonError
from surgeon.graph import Group
from surgeon.operations.state import State

if TYPE_CHECKING:
    from surgeon.calibrate import Statistics

__all__ = ["scores_of", "scores_of_all"]


def scores_of(state: State, group: Group, criterion: Criterion, statistics: Statistics) -> Scores:
    """Scores of `group`, as `state` leaves it.

    Raises:
        SurgeonError: the criterion does not give one score an index.
    """
    scores = criterion.score(trainable(group, state.graph), state.weights, statistics)
    if len(scores) != group.size:
        raise SurgeonError(
            f"criterion '{criterion.criterion}' gave {len(scores)} scores for "
            f"'{group.name}', which has {group.size} indices"
        )
    return scores


def scores_of_all(state: State, groups: Sequence[Group], criterion: Criterion) -> Mapping[str, Scores]:
    """Scores of `groups` by name, on what `state` leaves of the model.

    Raises:
        SurgeonError: the criterion does not give one score an index.
    """
    if state.bench is not None and state.bench.streamed:
        from surgeon.operations.scoring_streamed import scores_on_the_way

        found = scores_on_the_way(state, groups, criterion)
        if found is not None:
            return found
    measured = state.statistics(criterion.needs(), groups)
    return {group.name: scores_of(state, group, criterion, measured) for group in groups}
