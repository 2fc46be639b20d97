"""``surgeon apply``: replay a plan on a checkpoint, without the recipe and without calibration text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from surgeon.cli.arguments import Device, Json
from surgeon.cli.console import print_json, progress, say
from surgeon.cli.report import print_measured, print_steps

__all__ = ["command"]


def command(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="plan.json of surgeon plan or run.")],
    model: Annotated[str, typer.Option("--model", metavar="M", help="Checkpoint folder or hub id.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist.")],
    layout: Annotated[
        Literal["uniform", "padded", "per_layer"],
        typer.Option("--layout", help="How blocks of different widths are written; see docs/layouts.md."),
    ] = "uniform",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Cut as planned, prove, publish."""
    from surgeon.api.replay import replay

    with progress() as told:
        report = replay(plan, model=model, out=out, layout=layout, device=device, progress=told)
    if json:
        print_json(report.to_dict())
        return
    print_steps(report)
    print_measured(report)
    say(f"written: {out}")
