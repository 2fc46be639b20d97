"""What came of the plans that a round trip tries: a smaller model, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import PreTrainedModel

from surgeon.plan import Edit

__all__ = ["Attempt", "Export"]


@dataclass
class Attempt:
    """What came of a plan: the smaller model, or why there is none."""

    words: dict[str, object]
    small: PreTrainedModel | None = None

    @property
    def ok(self) -> bool:
        """Whether there is one."""
        return self.small is not None


@dataclass
class Export:
    """What one layout says alone (`edits`), and the model of all of it."""

    edits: list[Edit] = field(default_factory=list)
    small: PreTrainedModel | None = None
