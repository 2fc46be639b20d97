"""Everything that surgeon raises on purpose.

    SurgeonError
    ├── RecipeError          a recipe that cannot be read or does not validate (exit status 2)
    │   └── SelectorError    a selection that matches nothing, or another number than expected
    ├── InputError           a file, folder or text handed in that cannot be used (exit status 2)
    │   └── CheckpointError  a model folder that is broken, incomplete or inconsistent
    ├── TraceError           the model cannot be recorded
    │   └── UnsupportedOpError   an op without a rule, under ``--strict``
    ├── PlanError            a plan that cannot be carried out
    │   ├── ConflictError    two steps contradict each other
    │   └── InfeasibleError  a cut that would break the model, or that its config cannot express
    ├── RebuildError         the smaller model could not be built as planned
    ├── VerifyError          the result differs from the masked original
    └── PassError            a graph pass broke its contract

Each message says what failed, where, the numbers, and what to try. The command line prints the
message without a traceback and ends with `exit_status`.
"""

__all__ = [
    "CheckpointError",
    "ConflictError",
    "InfeasibleError",
    "InputError",
    "PassError",
    "PlanError",
    "RebuildError",
    "RecipeError",
    "SelectorError",
    "SurgeonError",
    "TraceError",
    "UnsupportedOpError",
    "VerifyError",
]


class SurgeonError(Exception):
    """Root of the tree; `hint` says what to try next."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  try: {self.hint}" if self.hint else self.message


class RecipeError(SurgeonError):
    """A recipe that cannot be read or does not validate."""

    exit_status = 2


class SelectorError(RecipeError):
    """A selection that matches nothing, or another number of Groups than expected.

    `key` is the part of the selection that is to blame, where it is one.
    """

    def __init__(self, message: str, *, hint: str | None = None, key: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.key = key


class InputError(SurgeonError):
    """A file, folder or text handed in that cannot be used."""

    exit_status = 2


class CheckpointError(InputError):
    """A model folder that is broken, incomplete or inconsistent."""


class TraceError(SurgeonError):
    """The model cannot be recorded."""


class UnsupportedOpError(TraceError):
    """An op without a propagation rule, met under ``strict``."""


class PlanError(SurgeonError):
    """A plan that cannot be carried out."""


class ConflictError(PlanError):
    """Two steps contradict each other."""


class InfeasibleError(PlanError):
    """A cut that would break the model, or that its config cannot express."""


class RebuildError(SurgeonError):
    """The smaller model could not be built as planned."""


class VerifyError(SurgeonError):
    """The result differs from the masked original."""


class PassError(SurgeonError):
    """A graph pass broke its contract."""
