"""``surgeon plan --html`` and the page beside a result: written whole, refused before any work."""

from __future__ import annotations

import pytest

from tests.api.picture.reading import read_page
from tests.cli.test_commands import RECIPE, call


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return str(file)


def test_plan_and_run_draw_the_same_stack(recipe, saved_llama, tmp_path):
    model, file, out = saved_llama(), tmp_path / "plan.html", tmp_path / "small"
    assert str(file) in call("plan", recipe, "--model", model, "--html", file).stdout
    assert "report.html" in call("run", recipe, "--model", model, "--out", out).stdout
    planned, done = (read_page(f.read_text(encoding="utf-8")) for f in (file, out / "report.html"))
    kept = [[row.text for row in page.all("figure")[1].all("g", "row")] for page in (planned, done)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3
    assert "Planned surgery" in planned.of("header").text
    assert "equal to the masked original" in done.of("ul", "checks").text
    assert "checks" not in {tag.attrs.get("class") for tag in planned.all("ul")}


def test_a_replayed_plan_is_drawn_from_its_edits(recipe, saved_llama, tmp_path):
    model, out = saved_llama(), tmp_path / "plan.json"
    call("plan", recipe, "--model", model, "--out", out)
    call("apply", out, "--model", model, "--out", tmp_path / "small")
    page = read_page((tmp_path / "small" / "report.html").read_text(encoding="utf-8"))
    assert "ffn" in page.all("figure")[1].of("figcaption").text


@pytest.mark.parametrize("option", ["--html", "--out"])
def test_a_file_that_cannot_be_written_is_refused_first(option, recipe, saved_llama, tmp_path):
    refused = call("plan", recipe, "--model", saved_llama(), option, tmp_path / "gone" / "x.html", status=2)
    assert "there is no folder" in refused.stderr
    assert "trace" not in refused.stderr
    folder = call("plan", recipe, "--model", saved_llama("other"), option, tmp_path, status=2)
    assert "is a folder" in folder.stderr
