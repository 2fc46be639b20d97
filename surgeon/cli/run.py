"""``surgeon run``: the main job, from a recipe and a checkpoint to a smaller checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgeon.cli.arguments import (
    Cache,
    Device,
    DeviceMap,
    Json,
    Memory,
    NoCache,
    Overrides,
    Plugins,
    Quick,
    RecipeFile,
    Stream,
)
from surgeon.cli.console import print_json, say
from surgeon.cli.gauge import gauge
from surgeon.cli.measurements import measurements, reports
from surgeon.cli.report import print_measured, print_steps

__all__ = ["command"]


def command(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write; must not exist.")],
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="M", help="Checkpoint folder or hub id; else the recipe's."),
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    plugin: Plugins = [],  # noqa: B006 - typer copies it
    device: Device = "cpu",
    device_map: DeviceMap = None,
    stream: Stream = False,
    cache: Cache = None,
    no_cache: NoCache = False,
    quick: Quick = False,
    memory: Memory = None,
    json: Json = False,
) -> None:
    """Plan, cut, prove, publish; then show what became of the model."""
    from surgeon.api.run import run

    with gauge(events=json) as told:
        report = run(
            recipe,
            model=model,
            out=out,
            overrides=overrides,
            device=device,
            device_map=device_map,
            stream=stream,
            cache=measurements(cache, no_cache),
            proof=not quick,
            memory=memory,
            progress=told,
        )
        told.rest()
        if not reports():
            return
        if json:
            print_json(report.to_dict())
            return
        print_steps(report)
        print_measured(report)
        say()
        say(f"written: {out}; report.html in it shows the stack before and after")
