"""A model name to a folder on this machine: a local folder as it is, a hub id through the hub's cache."""

from __future__ import annotations

import re
from pathlib import Path

from surgeon.errors import CheckpointError

__all__ = ["SIDE_FILES", "WEIGHT_FILES", "fetch", "local_folder"]

SIDE_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
WEIGHT_FILES = ("*.safetensors",)
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def local_folder(name: str | Path) -> Path | None:
    """The folder that `name` means, or None where it can only be a hub id.

    Raises:
        CheckpointError: `name` is a file, or a path that does not exist.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file, not a model folder", hint=f"--model {path.parent}")
    if isinstance(name, Path) or not HUB_ID.fullmatch(name) or name.startswith("."):
        raise CheckpointError(
            f"there is no model folder {path}",
            hint="the path of a folder with a config.json, or a hub id such as owner/name",
        )
    return None


def fetch(hub_id: str, patterns: tuple[str, ...]) -> Path:
    """The folder in the hub's cache that holds the files of `hub_id` that match `patterns`.

    Raises:
        CheckpointError: there is no such model, or it is not in the cache and the hub is out of reach.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client raises from half a dozen libraries
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"there is no model folder '{hub_id}', and the model hub does not give it: "
            f"{type(error).__name__}: {first}",
            hint="a local folder, or a hub id that this machine has in its cache or can download",
        ) from error
