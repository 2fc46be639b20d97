"""Kill `plan --stream`, `apply` and `run` at random moments, over and over, and compare what comes out.

``python -m benchmarks.killed --work DIR --rounds 20`` generates a small checkpoint. In each round every verb
is killed (SIGKILL) at moments drawn from the time that it takes undisturbed, then left to end: nothing may be
seen of it before, the source stays as it was, and what is published is that of an undisturbed run, byte for
byte. Files with measured times are left out. Processes are forked, so that moments fall into the work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from benchmarks.generated import generate
from surgeon.api.plan import plan_report
from surgeon.api.replay import replay
from surgeon.api.run import run

__all__ = ["VERBS", "check_killed", "published"]

TIMED = ("report.json", "report.html", "README.md", "SHA256SUMS")
"""Files that say how long something took, or the sums of such."""
STEP = {
    "op": "remove",
    "select": {"kind": ["ffn", "kv_group"]},
    "keep": {"fraction": 0.75},
    "criterion": {"criterion": "taylor", "order": "param_first"},
    "repair": "refit",
}
Verb = Callable[[Path, Path, Path], object]


def _plan(recipe: Path, model: Path, place: Path) -> None:
    plan_report(recipe, model=model, out=place / "plan.json", stream=True, cache=place / "cache")


def _run(recipe: Path, model: Path, place: Path) -> None:
    run(recipe, model=model, out=place / "out", stream=True, cache=place / "cache")


def _apply(recipe: Path, model: Path, place: Path) -> None:
    replay(recipe.with_name("plan.json"), model=model, out=place / "out", shard_size="100KB")


VERBS: Mapping[str, Verb] = {"plan": _plan, "apply": _apply, "run": _run}


def main() -> None:
    """Run the rounds and print one JSON object a verb and round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint and outputs")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=3, help="kills before a verb is left to end")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model, recipe = asked.work / "model", asked.work / "recipe.json"
    if not model.exists():
        generate("llama-tiny", model, shard_size=2_000_000)
    ids = torch.randint(3, 1000, (6, 32), generator=torch.Generator().manual_seed(0)).tolist()
    (asked.work / "ids.json").write_text(json.dumps(ids))
    recipe.write_text(json.dumps({"surgeon": 1, "calibration": {"texts": "ids.json"}, "steps": [STEP]}))
    plan_report(recipe, model=model, out=asked.work / "plan.json", stream=True)
    chance = random.Random(asked.seed)
    for number in range(asked.rounds):
        for name, verb in VERBS.items():
            moments = check_killed(
                partial(verb, recipe, model), model, asked.work / name, asked.kills, chance
            )
            print(json.dumps({"round": number, "verb": name, "killed_after": moments}), flush=True)


def check_killed(
    verb: Callable[[Path], object], model: Path, work: Path, kills: int, chance: random.Random
) -> list[float]:
    """Kill `verb` so often, let it end, and compare with an undisturbed run; the moments in seconds.

    Raises:
        SystemExit: something was seen of a killed run, the source changed, or other bytes came out.
    """
    shutil.rmtree(work, ignore_errors=True)
    alone, disturbed = work / "alone", work / "disturbed"
    for place in (alone, disturbed):
        place.mkdir(parents=True)
    source, begin = published(model), time.monotonic()
    _wait(verb, alone, None)
    taken = time.monotonic() - begin
    moments = [round(chance.uniform(0, taken), 3) for _ in range(kills)]
    for moment in moments:
        ended = _wait(verb, disturbed, moment)
        seen, want = published(disturbed), published(alone)
        whole = {name: found for name, found in seen.items() if want.get(name) == found}
        if seen != whole or (seen.keys() != want.keys() and any(name.startswith("out/") for name in seen)):
            raise SystemExit(f"killed after {moment} s, a half output can be seen: {sorted(seen)}")
        if ended or seen.keys() == want.keys():
            break  # it was through
    else:
        _wait(verb, disturbed, None)
    if published(model) != source:
        raise SystemExit("the source was changed")
    want, got = published(alone), published(disturbed)
    different = sorted(name for name in {*want, *got} if want.get(name) != got.get(name))
    if different:
        raise SystemExit(f"killed after {moments} s, other bytes in {different}")
    return moments


def published(folder: Path) -> dict[str, str]:
    """SHA-256 of all files in sight below `folder`, but for measurements and what says times."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in TIMED and not _hidden(file.relative_to(folder))
    }


def _hidden(file: Path) -> bool:
    """Whether it is no output: in a hidden folder, or among the measurements."""
    return any(part.startswith(".") or part == "cache" for part in file.parts)


def _wait(verb: Callable[[Path], object], place: Path, moment: float | None) -> bool:
    """Run `verb` in a process of its own, kill it after `moment` seconds; whether it came to its end."""
    process = multiprocessing.get_context("fork").Process(target=verb, args=(place,))
    process.start()
    process.join(moment)
    ended = process.exitcode is not None
    if not ended:
        process.kill()
        process.join()
    if ended and process.exitcode:
        raise SystemExit(f"the process ended with {process.exitcode}")
    return ended


if __name__ == "__main__":
    sys.exit(main())
