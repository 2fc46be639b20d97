"""Every family that transformers can build, put through the whole surgery, unattended.

    python benchmarks/coverage.py --page                all families; docs/coverage.md is written
    python benchmarks/coverage.py --shard 3/8           an eighth of them; run again to go on
    python benchmarks/coverage.py --family causal/gpt2 --only trace --fresh
    python benchmarks/coverage.py --sizes 2 --results other.jsonl     sizes that collide; 3: usual ones

Results lie in a file of JSON lines, one family a line; families that are in it are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import transformers  # noqa: E402

from benchmarks.coverage_table import page  # noqa: E402
from benchmarks.examine import STAGES, examine  # noqa: E402
from benchmarks.forked import forked  # noqa: E402
from benchmarks.zoo import TASKS, Family, families  # noqa: E402
from benchmarks.zoo.sizes import PROFILES, SIZES, Sizes  # noqa: E402

PAGE = ROOT / "docs" / "coverage.md"
RESULTS = ROOT / "benchmarks" / "results" / "coverage.jsonl"


def main() -> None:
    """Run what the arguments ask for."""
    asked = _arguments()
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    done = set() if asked.fresh else {row["family"] for row in read_results([asked.results])}
    chosen = [family for family in _chosen(asked) if family.key not in done]
    for place, family in enumerate(chosen, 1):
        row = examined(family, _stages(asked.only, asked.skip), asked.limit, PROFILES[asked.sizes])
        with asked.results.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        sys.stderr.write(f"{place}/{len(chosen)} {family.key}: {_verdict(row)} ({row['s']} s)\n")
    if asked.page:
        write_page(read_results([asked.results, *asked.merge]))


def write_page(rows: list[dict]) -> None:
    """Write the page, the families in the order of the mappings."""
    order = {family.key: place for place, family in enumerate(families())}
    known = sorted((row for row in rows if row["family"] in order), key=lambda row: order[row["family"]])
    PAGE.write_text(page(known, transformers.__version__), encoding="utf-8")


def examined(family: Family, stages: tuple[str, ...], limit: float, sizes: Sizes = SIZES) -> dict:
    """The row of one family: what each stage said, and where it stopped."""
    start = time.monotonic()
    said, ended = forked(lambda report: examine(family, stages, report, sizes), limit)
    row: dict = {"family": family.key, "class": family.class_name}
    row["stages"] = {words.pop("stage"): words for words in said if "stage" in words}
    crash = next((words["crash"] for words in said if "crash" in words), None)
    if crash or ended:
        row["ended"] = crash or ended
    row["s"] = round(time.monotonic() - start, 1)
    return row


def read_results(files: Iterable[Path]) -> list[dict]:
    """The last row of every family in `files`."""
    rows: dict[str, dict] = {}
    for file in files:
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                rows[row["family"]] = row
    return list(rows.values())


def _verdict(row: dict) -> str:
    if "ended" in row:
        return row["ended"].strip().splitlines()[-1]
    stopped = [f"{name}: {words.get('why')}" for name, words in row["stages"].items() if not words["ok"]]
    return "; ".join(stopped) or "ok"


def _chosen(asked: argparse.Namespace) -> list[Family]:
    found = families(asked.task or TASKS)
    if asked.family:
        known = {family.key: family for family in found}
        unknown = [key for key in asked.family if key not in known]
        if unknown:
            raise SystemExit(f"no such family: {', '.join(unknown)} (they are named task/type)")
        found = tuple(known[key] for key in asked.family)
    part, parts = asked.shard
    return [family for place, family in enumerate(found) if place % parts == part - 1]


def _stages(last: str | None, skipped: Collection[str] = ()) -> tuple[str, ...]:
    wanted = STAGES[: STAGES.index(last) + 1] if last else STAGES
    return tuple(stage for stage in wanted if stage != "build" and stage not in skipped)


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"'{text}' is not like 3/8")
    return int(part), int(parts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shard", type=_shard, default=(1, 1), help="part of the families, as 3/8")
    parser.add_argument("--task", action="append", choices=TASKS, help="only this task (may be repeated)")
    parser.add_argument("--family", action="append", help="only this one, as causal/gpt2 (may be repeated)")
    parser.add_argument("--only", choices=STAGES, help="stop after this stage")
    parser.add_argument(
        "--skip", action="append", default=[], choices=("prove", "depth"), help="leave a stage out"
    )
    parser.add_argument("--limit", type=float, default=120, help="seconds a family may take")
    parser.add_argument(
        "--sizes", choices=tuple(PROFILES), default="1", help="2: sizes that collide; 3: usual"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON-lines file")
    parser.add_argument("--fresh", action="store_true", help="run families that have a result, too")
    parser.add_argument("--merge", type=Path, nargs="*", default=[], help="results of other shards")
    parser.add_argument("--page", action="store_true", help="write docs/coverage.md from all results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
