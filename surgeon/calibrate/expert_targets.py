"""What the experts of a cut model are called with, and what they should give: the original's stream.

On two walks side by side, like `expert_gap`, but token by token: for experts that are trained, not solved
for. One block at a time is held.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from surgeon.calibrate.passage import behind
from surgeon.calibrate.training import Lesson
from surgeon.calibrate.walk import Forward, Walk
from surgeon.errors import SurgeonError

__all__ = ["expert_targets"]


def expert_targets(
    outlet: str, original: tuple[Walk, Forward], cut: tuple[Walk, Forward]
) -> tuple[Lesson, ...]:
    """One for every batch; both walks stand before the Block of the experts.

    The target is what the module gives now, plus what the stream behind it lacks of the original's.

    Args:
        outlet: the stack of the experts' last matrices.
        original: the walk whose states are aimed at.
        cut: the walk whose states there are.

    Raises:
        SurgeonError: the module of the experts gives no tensor that joins a stream.
    """
    part = cut[0].module.get_submodule(outlet.rpartition(".")[0])
    calls: list[tuple[tuple, dict[str, Any]]] = []

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        calls.append((_detached(args), _detached(kwargs)))

    found = []
    for number in range(len(cut[0].batches)):
        aim, _ = behind(part, *original, number)
        calls.clear()
        handle = part.register_forward_pre_hook(before, with_kwargs=True)
        try:
            have, _ = behind(part, *cut, number)
        finally:
            handle.remove()
        if aim.state is None or have.state is None or have.own is None or len(calls) != 1:
            raise SurgeonError(
                f"{type(part).__name__}, which holds '{outlet}', does not run once with one output",
                hint="repair: refit, or leave these experts out",
            )
        lacking = ((aim.state - have.state) / have.scale).reshape(have.own.shape)
        found.append(Lesson(part, *calls[0], have.own + lacking))
    return tuple(found)


def _detached(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, tuple | list):
        return type(values)(_detached(value) for value in values)
    if isinstance(values, dict):
        return {key: _detached(value) for key, value in values.items()}
    return values
