"""Report: what each step chose, why, and what it cost, before and after. ``report.json`` holds it.

Plain data that any part adds to; showing it as a table is the command line's matter.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue

from surgeon.graph.strict import Strict, read_document

__all__ = [
    "REPORT_VERSION",
    "Choice",
    "Cost",
    "LedgerRow",
    "Loader",
    "Loads",
    "Refused",
    "Report",
    "StepRecord",
]

REPORT_VERSION = 1


class Cost(Strict):
    """What a model takes; None where it cannot be told."""

    parameters: int
    bytes: int | None = None
    kv_cache_bytes_per_token: int | None = None


class Choice(Strict):
    """What a step decided for one Axis or Block, and why."""

    axis: str
    size: int
    """Indices before the step."""
    kept: int
    requested: int | None = None
    """What was asked for, where the config allowed only `kept`."""
    why: str = ""
    score: float | None = None
    """What it was worth to the step, where it is one number; of a merged Block, how like the other it was."""
    into: str | None = None
    """The Block that it was merged into."""


class Refused(Strict):
    """A match that a step left alone: no, because."""

    axis: str
    reason: str


class StepRecord(Strict):
    """One step of the recipe: its options, its decisions, what it left alone."""

    step: int
    op: str
    options: dict[str, JsonValue] = Field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    refused: tuple[Refused, ...] = ()
    notes: tuple[str, ...] = ()


class LedgerRow(Strict):
    """One changed field of the model's config."""

    field: str
    old: JsonValue
    new: JsonValue
    why: str


Loader = Literal["transformers", "vllm", "llama.cpp"]
"""What people load checkpoints with."""


class Loads(Strict):
    """Whether a loader takes the planned model, and why."""

    loader: Loader
    verdict: Literal["yes", "with remote code", "no", "unsure"]
    why: str


class Report(Strict):
    """The whole record of one run; `measured` holds results of checks and metrics by name."""

    surgeon_report: Literal[1] = REPORT_VERSION
    model: str
    before: Cost
    after: Cost
    steps: tuple[StepRecord, ...] = ()
    ledger: tuple[LedgerRow, ...] = ()
    loads: tuple[Loads, ...] = ()
    warnings: tuple[str, ...] = ()
    measured: dict[str, JsonValue] = Field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, document: object) -> Report:
        """The Report that `to_dict` made.

        Raises:
            InputError: an unknown key, a missing one, another version, or a wrong type.
        """
        return read_document(cls, document, "report")
