"""What removing experts costs: perplexity after each criterion, on a trained mixture, no training.

    python benchmarks/quality_experts.py --model DIR --calibrate valid.txt --measure test.txt --page

Evaluated on the masked view, which computes what the exported model would. Windows and samples are as in
`quality.py`. Results are kept as JSON lines in `--results`, and what is there is not run again; `--page`
writes the table of all of them into docs/results-experts.md.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

from benchmarks.quality import ROOT, cell
from benchmarks.trained import Trained, command_line, note, rows
from surgeon.operations import operations
from surgeon.plan import Plan

PAGE = ROOT / "docs" / "results-experts.md"
REFIT = {"repair": "refit", "target": "stream", "ridge": 0.01}
MERGE = {"op": "merge_experts"}
METHODS: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "ean": {"criterion": "ean"},
    "reap": {"criterion": "reap"},
    "moe_pruner": {"criterion": "moe_pruner"},
    "gate_mass": {"criterion": "gate_mass"},
    "frequency": {"criterion": "frequency"},
    "reconstruction": {"criterion": {"criterion": "reconstruction", "tokens": 4096}},
    "reap_sum": {"criterion": "reap_sum"},
    "frequency, refit": {"criterion": "frequency", "repair": REFIT},
    "reconstruction, refit": {"criterion": {"criterion": "reconstruction", "tokens": 4096}, "repair": REFIT},
    "reap_sum, refit": {"criterion": "reap_sum", "repair": REFIT},
    "merge outputs": {**MERGE, "cluster": "outputs"},
    "merge router": {**MERGE, "cluster": "router"},
    "merge around_kept": {**MERGE, "cluster": "around_kept", "criterion": "reap_sum"},
    "merge outputs, refit": {**MERGE, "cluster": "outputs", "repair": REFIT},
    "merge router, refit": {**MERGE, "cluster": "router", "repair": REFIT},
    "merge around_kept, refit": {
        **MERGE,
        "cluster": "around_kept",
        "criterion": "reap_sum",
        "repair": REFIT,
    },
}

GOOD = {
    "random": "never: the floor",
    "ean": "evenly loaded mixtures; here the rarest experts have the largest outputs",
    "reap": "evenly loaded mixtures, rare experts that matter",
    "moe_pruner": "many experts go; channels inside of experts",
    "gate_mass": "near reap_sum where outputs are of one size",
    "frequency": "few experts go, one cheap pass",
    "reconstruction": "few experts, all sets can be tried",
    "reap_sum": "first choice without repair",
    "frequency, refit": "repair evens criteria out",
    "reconstruction, refit": "few experts, all sets can be tried",
    "reap_sum, refit": "first choice",
    "merge outputs": "experts that are alike, as in mixtures copied from a dense model",
    "merge router": "experts that are alike",
    "merge around_kept": "experts that are alike",
    "merge outputs, refit": "experts that are alike",
    "merge router, refit": "experts that are alike",
    "merge around_kept, refit": "experts that are alike",
}
"""Where each is good, in few words."""


def measure(arguments: argparse.Namespace) -> None:
    """Run what is not yet in the results."""
    trained = Trained.of(arguments)
    setting = trained.setting
    done = {tuple(row[k] for k in ("method", "count", "seed")) for row in rows(arguments.results, setting)}
    dense = trained.perplexity(Plan(trained.graph.model_type))
    for seed, state in trained.states(arguments.seeds):
        for count, method in product(arguments.keep, arguments.methods):
            if (method, count, seed) in done:
                continue
            options = dict(METHODS[method])
            if method == "random":
                options["criterion"] = {"criterion": "random", "seed": seed}
            given = {"op": "remove", "select": {"kind": "expert"}, "keep": {"count": count}, **options}
            step = operations.get(given["op"]).model_validate(given)
            after = trained.perplexity(step.run(state)[0].plan)
            row = {"method": method, "count": count, "seed": seed, "dense": dense, "after": after}
            note({**setting, **row}, arguments.results)


def page(found: list[dict[str, Any]]) -> str:
    """docs/results-experts.md."""
    lines = [
        "# Results: experts",
        "",
        "Made by `benchmarks/quality_experts.py`; no training. Rise of perplexity over the whole model's,",
        "mean and spread (standard deviation) over calibration seeds.",
        "",
    ]
    settings = sorted({tuple(r[k] for k in ("model", "samples", "seq_len", "windows")) for r in found})
    for name, samples, length, windows in settings:
        mine = [
            row
            for row in found
            if (row["model"], row["samples"], row["seq_len"], row["windows"])
            == (name, samples, length, windows)
        ]
        counts = sorted({row["count"] for row in mine}, reverse=True)
        lines += [
            f"## {name}",
            "",
            f"Dense {mine[0]['dense']:.2f}. Calibrated on {samples} samples of {length} tokens, measured on "
            f"{windows} windows of {length} tokens.",
            "",
            "| Method | " + " | ".join(f"keep {count}" for count in counts) + " | seeds | Good for |",
            "|---|" + "---|" * (len(counts) + 2),
        ]
        for method in METHODS:
            cells = [
                [r["after"] - r["dense"] for r in mine if r["method"] == method and r["count"] == count]
                for count in counts
            ]
            if any(cells):
                shown = " | ".join(cell(values) for values in cells)
                seeds = max(len(values) for values in cells)
                lines.append(f"| {method} | {shown} | {seeds} | {GOOD[method]} |")
        lines.append("")
    return "\n".join(lines)


def _keep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", nargs="+", type=int, default=[8, 4], help="experts that stay")


def main() -> None:
    """Read the command line."""
    arguments = command_line(__doc__, "quality_experts", METHODS, _keep)
    if arguments.model:
        measure(arguments)
    if arguments.page:
        PAGE.write_text(page(rows(arguments.results)), encoding="utf-8")


if __name__ == "__main__":
    main()
