"""``surgeon verify``: is this folder what its plan says, made of that model?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli.arguments import Device, Json, Memory
from surgeon.cli.console import print_json, progress, say

__all__ = ["command"]


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that surgeon wrote.")],
    model: Annotated[str, typer.Option("--model", metavar="M", help="The model that it was made from.")],
    memory: Memory = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Compare with the masked original in float64, and reload with stock transformers."""
    from surgeon.api.verify import verify_folder

    with progress() as told:
        comparison, checks = verify_folder(folder, model, memory=memory, device=device, progress=told)
    if json:
        print_json({**comparison.to_dict(), "checks": list(checks)})
        return
    for check in checks:
        say(f"checked: {check}")
