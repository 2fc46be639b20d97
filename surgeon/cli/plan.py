"""``surgeon plan``: what a recipe would do. No weight is read when no step needs one."""

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
    ModelOption,
    NoCache,
    Overrides,
    Plugins,
    RecipeFile,
    Stream,
)
from surgeon.cli.console import print_json, progress, say
from surgeon.cli.measurements import measurements, reports
from surgeon.cli.report import print_cost, print_steps

__all__ = ["command"]


def command(
    recipe: RecipeFile,
    model: ModelOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the plan, for surgeon apply.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Draw the stack before and after.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    plugin: Plugins = [],  # noqa: B006 - typer copies it
    device: Device = "cpu",
    device_map: DeviceMap = None,
    stream: Stream = False,
    memory: Memory = None,
    cache: Cache = None,
    no_cache: NoCache = False,
    json: Json = False,
) -> None:
    """Show the steps' choices, the config changes and the cost, without touching anything."""
    from surgeon.api.plan import plan_report

    with progress() as told:
        report = plan_report(
            recipe,
            model=model,
            out=out,
            html=html,
            overrides=overrides,
            device=device,
            device_map=device_map,
            stream=stream,
            memory=memory,
            cache=measurements(cache, no_cache),
            progress=told,
        )
    if not reports():
        return
    if json:
        print_json(report.to_dict())
        return
    print_steps(report)
    print_cost(report)
    for file in (out, html):
        if file is not None:
            say(f"written: {file}")
