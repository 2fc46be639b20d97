"""The picture in a real browser, at the widths of a phone, a tablet and a desk: nothing is cut or overlaps.

Chromium lays the page out in frames of these widths; a script beside the frames, not in the page, measures.
Skips where there is no Chromium; SURGEON_CHROMIUM names one that is not on the path.
"""

from __future__ import annotations

import html
import json
import os
import shutil
import subprocess

import pytest

from surgeon.plan import Assign, Choice, DropBlock, Keep, StepRecord
from tests.api.picture.reading import read_page
from tests.api.picture.test_picture import BLOCK, FFN, graph_of, page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = (360, 820, 1280)
HOST = """<!doctype html><meta charset="utf-8"><body>%s<script>
const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1;
const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
  && a.top < b.bottom - 3 && b.top < a.bottom - 3;
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    const panels = [...page.querySelectorAll("figure")].map(figure => {
      const box = figure.getBoundingClientRect();
      const texts = [...figure.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
      const overlaps = [];
      texts.forEach(([a, one], i) => texts.slice(i + 1).forEach(([b, two]) => {
        if (meet(one, two)) overlaps.push(a + " / " + b);
      }));
      return {outside: texts.filter(([, t]) => !inside(t, box)).map(([t]) => t), overlaps,
              width: box.width, texts: texts.length};
    });
    const sizes = [...page.querySelectorAll("text")].map(t => parseFloat(getComputedStyle(t).fontSize));
    return {page: root.scrollWidth, frame: frame.clientWidth, smallest: Math.min(...sizes), panels};
  });
  document.body.textContent = JSON.stringify(found);
};
</script>"""


@pytest.fixture(scope="module")
def chromium() -> str:
    named = os.environ.get("SURGEON_CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path, and SURGEON_CHROMIUM is not set")
    return found


def operated(layers: int) -> str:
    """The page of a surgery with everything in it: a drop, a merge, widths, a repair, scores."""
    graph = graph_of(layers)
    gone, weight = BLOCK.format(layers - 3), BLOCK.format(layers - 5) + ".mlp.up_proj.weight"
    pair = {"blocks": [BLOCK.format(layers - 5), BLOCK.format(layers - 4)]}
    left = [place for place in range(layers) if place not in (layers - 3, layers - 4)]
    keeps = [Keep(FFN.format(place), tuple(range(13 + place % 9)), 1) for place in left]
    keeps += [Keep(f"layers.{place}.attn.kv_group", (0, 2), 1) for place in left]
    edits = [
        DropBlock(gone, 0),
        Assign(weight, "merge.mean", pair, 0),
        DropBlock(pair["blocks"][1], 0),
        *keeps,
    ]
    edits.append(Assign(BLOCK.format(0) + ".mlp.down_proj.weight", "repair.refit", {}, 1))
    worth = tuple(
        Choice(axis=BLOCK.format(place), size=1, kept=1, score=1234.5 / (place + 1))
        for place in range(layers)
    )
    cut = tuple(
        Choice(axis=k.axis, size=40, kept=len(k.indices), requested=20, why="the rest") for k in keeps
    )
    steps = (
        StepRecord(step=0, op="drop_blocks", options={"keep": {"fraction": 0.75}}, choices=worth),
        StepRecord(step=1, op="remove", options={"select": {"kind": ["ffn", "kv_group"]}}, choices=cut),
    )
    return page(graph, edits, model="an-organisation-of-a-long-name/a-model-of-a-long-name", steps=steps)[0]


@pytest.mark.parametrize("layers", [12, 80])
def test_nothing_is_cut_or_overlaps(layers, chromium, tmp_path):
    frames = (
        f'<iframe srcdoc="{html.escape(operated(layers))}" style="width:{width}px;border:0"></iframe>'
        for width in WIDTHS
    )
    host = tmp_path / "host.html"
    host.write_text(HOST % "".join(frames), encoding="utf-8")
    command = [
        chromium,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [*command, "--virtual-time-budget=20000", "--dump-dom", host.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    for width, found in zip(WIDTHS, json.loads(read_page(done.stdout).of("body").text), strict=True):
        assert found["page"] <= width, "the page scrolls sideways"
        assert found["smallest"] >= 10
        assert len(found["panels"]) == 4
        for panel in found["panels"]:
            assert panel["texts"] >= layers
            assert panel["outside"] == []
            assert panel["overlaps"] == []
            assert panel["width"] >= 150
