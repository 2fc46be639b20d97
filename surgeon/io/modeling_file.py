"""The modeling file beside weights of the layout ``per_layer``: written by surgeon, and run only then.

Not here: its text (`surgeon.rebuild.per_layer_class`).
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedConfig

from surgeon.errors import CheckpointError
from surgeon.rebuild.per_layer_class import MODELING_FILE
from surgeon.rebuild.skeleton import modeling_text

__all__ = ["has_own_code", "write_modeling_file"]


def write_modeling_file(folder: Path, config: PreTrainedConfig) -> None:
    """Write what weights of this config need beside them; nothing for an ordinary config."""
    text = modeling_text(config)
    if text is not None:
        (folder / MODELING_FILE).write_text(text, encoding="utf-8")


def has_own_code(folder: Path, config: PreTrainedConfig) -> bool:
    """Whether the folder needs code to load, and has exactly what surgeon writes for its config.

    Raises:
        CheckpointError: it needs code, and has none or other code, which is not run.
    """
    text = modeling_text(config)
    if text is None:
        return False
    file = folder / MODELING_FILE
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        raise CheckpointError(
            f"{file} is not the file that surgeon writes for this config, and no other code is run",
            hint="surgeon.load reads such a folder without running code; surgeon run writes it anew",
        )
    return True
