"""What dropping layers costs: perplexity after each method, on trained models, a quarter of the layers gone.

    python benchmarks/quality_depth.py --model DIR --calibrate valid.txt --measure test.txt --page

Evaluated on the masked view, which computes what the exported model would. Windows and samples are as in
`quality.py`. Results are kept as JSON lines in `--results`, and what is there is not run again; `--page`
writes the table of all of them into docs/results-depth.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from benchmarks.quality import ROOT, cell
from benchmarks.trained import Trained, command_line, note, rows
from surgeon.operations import Operation, State, operations
from surgeon.operations.choosing import BlockChoice
from surgeon.plan import DropBlock, Plan, parameters_after

PAGE = ROOT / "docs" / "results-depth.md"
GAP = {"repair": "refit", "target": "stream", "ridge": 0.1}
REST = {**GAP, "reach": "rest"}
BASELINE = "block influence (ShortGPT)"
GREEDY = {"criterion": "perplexity", "shots": "each"}
TRAINING = {"epochs": 8, "rate": 0.001, "batch": 8}
METHODS: dict[str, dict[str, Any]] = {
    "tail but the last": {"criterion": {"criterion": "tail", "keep_last": 1}},
    BASELINE: {"criterion": "block_influence"},
    "angular, one run": {"criterion": "angular", "contiguous": True},
    "greedy perplexity (SLEB)": GREEDY,
    "block influence, refit": {"criterion": "block_influence", "repair": GAP},
    "block influence, refit of the rest": {"criterion": "block_influence", "repair": REST},
    "greedy perplexity, refit": {**GREEDY, "repair": GAP},
    "greedy perplexity, refit of the layer": {**GREEDY, "repair": {**GAP, "reach": "layer"}},
    "greedy perplexity, refit of the rest": {**GREEDY, "repair": REST},
    "attention and MLP apart, refit of the rest": {**GREEDY, "apart": True, "repair": REST},
    "replace: one run (LLM-Streamline)": {
        "op": "replace",
        "criterion": "angular",
        "contiguous": True,
        "training": TRAINING,
    },
    "replace: by greedy perplexity": {"op": "replace", **GREEDY, "training": TRAINING},
    "replace: by greedy perplexity, refit of the rest": {
        "op": "replace",
        **GREEDY,
        "training": TRAINING,
        "repair": REST,
    },
}
CHOICE = ("criterion", "shots", "contiguous")
PARTS = ("attention", "mlp")


class Chosen:
    """What each way to choose takes away, asked once: repair and training do not change it."""

    def __init__(self, state: State, count: int) -> None:
        self.state = state
        self.count = count
        self._known: dict[str, tuple[int, ...]] = {}

    def steps(self, method: str) -> list[Operation]:
        """What a method does, so that `count` Blocks stay, or as many sublayers of each sort."""
        options = dict(METHODS[method])
        selects = [{"sublayer": part} for part in PARTS] if options.pop("apart", False) else [{}]
        how = {name: options.pop(name) for name in CHOICE if name in options}
        op = options.pop("op", "drop_blocks")
        made = []
        for number, select in enumerate(selects):
            repair = {} if number + 1 < len(selects) else options
            places = self._places(op, how, select)
            made.append({"op": op, "drop": list(places), "select": select, **repair})
        return [operations.get(op).model_validate(step) for step in made]

    def remember(self, row: dict[str, Any]) -> None:
        """What a method took away in an earlier run with the same text."""
        options = METHODS[row["method"]]
        if not options.get("apart"):
            how = {name: options[name] for name in CHOICE if name in options}
            choose = self._choose(options.get("op", "drop_blocks"), how, {})
            self._known[json.dumps(choose, sort_keys=True)] = self._numbers(set(row["dropped"]))

    def _choose(self, op: str, how: dict[str, Any], select: dict[str, str]) -> dict[str, Any]:
        # Greedy perplexity spares the first Block, so that both operations choose alike.
        own = op if "contiguous" in how else "drop_blocks"
        return {"op": own, "keep": {"count": self.count}, "select": select, **how}

    def _places(self, op: str, how: dict[str, Any], select: dict[str, str]) -> tuple[int, ...]:
        choose = self._choose(op, how, select)
        key = json.dumps(choose, sort_keys=True)
        if key not in self._known:
            step = operations.get(choose["op"]).model_validate(choose)
            assert isinstance(step, BlockChoice)
            edits = step.cut(self.state).edits
            self._known[key] = self._numbers({edit.block for edit in edits if isinstance(edit, DropBlock)})
        return self._known[key]

    def _numbers(self, dropped: set[str]) -> tuple[int, ...]:
        """Places of the Blocks of which something is dropped."""
        return tuple(
            place
            for place, block in enumerate(self.state.graph.blocks)
            if dropped & {block.name, *(part.name for part in block.sublayers)}
        )


def measure(arguments: argparse.Namespace) -> None:
    """Run what is not yet in the results."""
    trained = Trained.of(arguments)
    blocks = len(trained.graph.blocks)
    count = round(blocks * arguments.keep)
    setting = {**trained.setting, "kept": count, "of": blocks}
    known = rows(arguments.results, setting)
    done = {(row["method"], row["seed"]) for row in known}
    dense = trained.perplexity(Plan(trained.graph.model_type))
    for seed, state in trained.states(arguments.seeds):
        chosen = Chosen(state, count)
        for row in known:
            if row["seed"] == seed:
                chosen.remember(row)
        for method in arguments.methods:
            if (method, seed) in done:
                continue
            start, after = time.perf_counter(), state
            for step in chosen.steps(method):
                after, _ = step.run(after)
            row = {
                **setting,
                "method": method,
                "seed": seed,
                "dense": dense,
                "after": trained.perplexity(after.plan),
                "dropped": list(after.plan.dropped),
                "parameters": parameters_after(after.plan, trained.graph),
                "seconds": round(time.perf_counter() - start, 1),
            }
            note(row, arguments.results)


def page(found: list[dict[str, Any]]) -> str:
    """docs/results-depth.md."""
    lines = [
        "# Results: depth",
        "",
        "Made by `benchmarks/quality_depth.py`. Rise of perplexity over the whole model's, mean and spread",
        "(standard deviation) over calibration seeds, and the mean of its ratio to the rise of block",
        f"influence with the same text. No training, save where it says `replace` ({_training()}).",
        "",
    ]
    names = ("model", "kept", "of", "samples", "seq_len", "windows")
    for setting in sorted({tuple(row[name] for name in names) for row in found}):
        mine = [row for row in found if tuple(row[name] for name in names) == setting]
        name, kept, of, samples, length, windows = setting
        lines += [
            f"## {name}: {kept} of {of} layers stay",
            "",
            f"Dense {mine[0]['dense']:.2f}. Calibrated on {samples} samples of {length} tokens, measured on "
            f"{windows} windows of {length} tokens.",
            "",
            "| Method | rise | share of block influence's | seeds |",
            "|---|---|---|---|",
        ]
        base = {row["seed"]: row["after"] - row["dense"] for row in mine if row["method"] == BASELINE}
        for method in METHODS:
            rises = {row["seed"]: row["after"] - row["dense"] for row in mine if row["method"] == method}
            if rises:
                shares = [rise / base[seed] for seed, rise in rises.items() if seed in base]
                share = f"{statistics.mean(shares):.2f}" if shares else ""
                lines.append(f"| {method} | {cell(list(rises.values()))} | {share} | {len(rises)} |")
        lines.append("")
    return "\n".join(lines)


def _training() -> str:
    return ", ".join(f"{key} {value:g}" for key, value in TRAINING.items())


def _keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", type=float, default=0.75, help="share of the layers that stays")


def main() -> None:
    """Read the command line."""
    arguments = command_line(__doc__, "quality_depth", METHODS, _keep)
    if arguments.model:
        measure(arguments)
    if arguments.page:
        PAGE.write_text(page(rows(arguments.results)), encoding="utf-8")


if __name__ == "__main__":
    main()
