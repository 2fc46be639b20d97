"""The export doctor: what will load the planned model, and why, told before a weight is touched.

It looks at what the layout made of the config, not at names of families. The verdict on transformers is
measured (every tensor's shape was built on meta); those on other loaders follow from what such a loader
reads: one number a field from ``config.json``, and its own code. Not here: the proof, which is the reload
of what was written.
"""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.plan.report import LedgerRow, Loads
from surgeon.rebuild.layout import Arrangement, is_ordinary

__all__ = ["diagnose"]

OTHERS = ("vllm", "llama.cpp")


def diagnose(arranged: Arrangement, ledger: Sequence[LedgerRow]) -> tuple[Loads, ...]:
    """A verdict for each loader.

    Args:
        arranged: the planned model's config.
        ledger: every field that differs from the original's.
    """
    if not is_ordinary(arranged.config):
        code = "blocks differ in width, which the modeling file beside the weights knows"
        one = "it reads one width for all blocks from config.json, and the blocks differ"
        return (
            Loads(loader="transformers", verdict="with remote code", why=code),
            *(Loads(loader=loader, verdict="no", why=one) for loader in OTHERS),
        )
    built = Loads(loader="transformers", verdict="yes", why="the config builds every planned shape")
    news = [row.field for row in ledger if row.old in (None, False) and row.new not in (None, False)]
    if not news:
        why = "an ordinary checkpoint of the same class: where the original loads, this does"
        return (built, *(Loads(loader=loader, verdict="yes", why=why) for loader in OTHERS))
    why = f"as the original, if it reads {', '.join(news)}, which the original's config did not set"
    return (built, *(Loads(loader=loader, verdict="unsure", why=why) for loader in OTHERS))
