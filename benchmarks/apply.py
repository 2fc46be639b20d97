"""What `surgeon apply` costs, as a ratio to ``cp -r`` of the same checkpoint in the same run.

``python -m benchmarks.apply --work DIR`` generates the checkpoints, plans the jobs once, then takes turns:
``cp``, the plan carried out without and with proof, each a fresh process. Time is given by the clock and by
the processor (which a busy machine does not stretch as much), memory as the system saw it at its peak. Peers
are commands given by ``--peer NAME=COMMAND`` with ``{model}`` and ``{out}`` in them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.generated import SHAPES, generate
from surgeon.api.plan import plan_report

DROP = {"op": "drop_blocks", "keep": {"fraction": 0.75}, "criterion": "tail"}
JOBS = {
    "llama": {
        "a quarter of the layers": DROP,
        "a quarter of the ffn, given indices": {
            "op": "remove",
            "select": {"kind": "ffn"},
            "keep": {"fraction": 0.75},
            "criterion": "random",
        },
    },
    "qwen3": {
        "a quarter of the layers": DROP,
        "half of the experts": {
            "op": "remove",
            "select": {"kind": "expert"},
            "keep": {"fraction": 0.5},
            "criterion": "random",
        },
    },
}
MAGNITUDE = {
    "op": "remove",
    "select": {"kind": "ffn"},
    "keep": {"fraction": 0.75},
    "criterion": "magnitude",
}
SURGEON = (sys.executable, "-m", "surgeon.cli")


def main() -> None:
    """Run the benchmark and write its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and outputs")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["llama-1.1b", "qwen3-moe"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--proof", action="store_true", help="measure with proof too")
    parser.add_argument("--magnitude", action="store_true", help="measure `run` with magnitude scores")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for shape in options.shapes:
        model = options.work / shape
        if not (model / "config.json").exists():
            shutil.rmtree(model, ignore_errors=True)
            generate(shape, model)
        for name, commands in _commands(shape, model, options).items():
            rows.append(_measure(shape, name, model, commands, options.work / "out", options.repeats))
            print(json.dumps(rows[-1]), flush=True)
            options.results.write_text(json.dumps(rows, indent=1) + "\n")


def _commands(shape: str, model: Path, options: argparse.Namespace) -> dict[str, Sequence[str]]:
    """What is measured, by name; plans are made where they are not there."""
    found: dict[str, Sequence[str]] = {}
    for job, step in JOBS[shape.partition("-")[0]].items():
        plan = options.work / f"{shape}.{job.replace(' ', '_')}.json"
        if not plan.exists():
            plan_report({"surgeon": 1, "steps": [step]}, model=model, out=plan)
        common = ("apply", str(plan), "--model", str(model), "--out", "{out}", "--max-shard-size", "500MB")
        found[job] = (*SURGEON, *common, "--quick")
        if options.proof:
            found[f"{job}, with proof"] = (*SURGEON, *common)
    if options.magnitude and shape.startswith("llama"):
        recipe = options.work / "magnitude.json"
        export = {"shard_size": "500MB"}
        recipe.write_text(json.dumps({"surgeon": 1, "steps": [MAGNITUDE], "export": export}))
        common = ("run", str(recipe), "--model", str(model), "--out", "{out}", "--no-cache")
        found["a quarter of the ffn by magnitude"] = (*SURGEON, *common, "--quick")
        if options.proof:
            found["a quarter of the ffn by magnitude, with proof"] = (*SURGEON, *common)
    for peer in options.peer:
        name, _, command = peer.partition("=")
        found[name] = [part.replace("{model}", str(model)) for part in shlex.split(command)]
    return found


def _measure(
    shape: str, name: str, model: Path, command: Sequence[str], out: Path, repeats: int
) -> dict[str, object]:
    """Medians over turns of ``cp`` of the model, the command, and ``cp`` of what it wrote."""
    took: dict[str, list[tuple[float, float, int]]] = {"cp": [], "job": [], "cp_result": []}
    size = sum(file.stat().st_size for file in model.iterdir())
    written = 0
    for _ in range(repeats):
        copied = out.with_name("copied")
        took["cp"].append(_timed(("cp", "-r", str(model), str(copied))))
        shutil.rmtree(copied)
        took["job"].append(_timed([part.replace("{out}", str(out)) for part in command]))
        written = sum(file.stat().st_size for file in out.iterdir())
        took["cp_result"].append(_timed(("cp", "-r", str(out), str(copied))))
        shutil.rmtree(copied)
        shutil.rmtree(out)
    clock = {what: statistics.median(one[0] for one in turns) for what, turns in took.items()}
    cpu = {what: statistics.median(one[1] for one in turns) for what, turns in took.items()}
    peak = max(one[2] for one in took["job"])
    return {
        "shape": shape,
        "job": name,
        "bytes": size,
        "written": written,
        "seconds": round(clock["job"], 2),
        "cp_seconds": round(clock["cp"], 2),
        "ratio_to_cp": round(clock["job"] / clock["cp"], 2),
        "ratio_to_cp_of_result": round(clock["job"] / clock["cp_result"], 2),
        "cpu_ratio_to_cp": round(cpu["job"] / cpu["cp"], 2),
        "cpu_ratio_to_cp_of_result": round(cpu["job"] / cpu["cp_result"], 2),
        "peak_bytes": peak,
        "peak_of_checkpoint": round(peak / size, 3),
    }


def _timed(command: Sequence[str]) -> tuple[float, float, int]:
    """Seconds by the clock and of the processor, and peak memory in bytes, of a process."""
    began = time.monotonic()
    null = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, null, 1)]
    child = os.posix_spawnp(command[0], list(command), os.environ, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    os.close(null)
    if status:
        raise SystemExit(f"failed with {os.waitstatus_to_exitcode(status)}: {shlex.join(command)}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
