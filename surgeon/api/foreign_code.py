"""What a model's own code raises while a result is proven or measured, as one message that says where.

A forward pass runs the code of transformers, or of a checkpoint, which may raise anything. Not here: what
surgeon refuses itself, and what the system says of files and of an interrupt, which pass as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from torch import nn
from transformers import PreTrainedModel

from surgeon.errors import SurgeonError, VerifyError

__all__ = ["explained"]


@contextmanager
def explained(stage: str) -> Iterator[None]:
    """Say which `stage` it was, and which module of the model ran.

    Raises:
        VerifyError: the code inside raised something that is no error of surgeon, and none of a file.
    """
    try:
        yield
    except (SurgeonError, OSError):
        raise
    except Exception as error:
        words, where = " ".join(str(error).split()), _place(error.__traceback__)
        raise VerifyError(
            f"{stage}: the model's own code fails{where}: {type(error).__name__}: {words}",
            hint="--quick publishes without running the model, and surgeon verify runs it later",
        ) from error


def _place(traceback: TracebackType | None) -> str:
    """Path and class of the innermost module that was running, below the outermost model."""
    running: list[nn.Module] = []
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            running.append(owner)
        traceback = traceback.tb_next
    for outer in (module for module in running if isinstance(module, PreTrainedModel)):
        names = {id(module): name for name, module in outer.named_modules()}
        inside = [module for module in running if names.get(id(module))]
        if inside:
            return f" in '{names[id(inside[-1])]}' ({type(inside[-1]).__name__})"
    return ""
