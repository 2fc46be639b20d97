"""Killed at a few moments and left to end, a verb publishes what it does undisturbed."""

from __future__ import annotations

import json
import random
from functools import partial

import pytest
import torch

from benchmarks.killed import STEP, VERBS, check_killed
from surgeon.api.plan import plan_report


@pytest.fixture
def prepared(small_llama, tmp_path):
    small_llama().bfloat16().save_pretrained(tmp_path / "model", max_shard_size="20KB")
    ids = torch.randint(3, 53, (5, 12), generator=torch.Generator().manual_seed(0)).tolist()
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"surgeon": 1, "calibration": {"texts": "ids.json"}, "steps": [STEP]}))
    return recipe, tmp_path / "model"


@pytest.mark.parametrize(("name", "seed"), [("plan", 1), ("run", 2)])
def test_kill_9_at_random_moments(prepared, tmp_path, name, seed):
    verb = partial(VERBS[name], *prepared)
    assert check_killed(verb, prepared[1], tmp_path / name, 2, random.Random(seed))


def test_kill_9_of_apply(prepared, tmp_path):
    plan_report(prepared[0], model=prepared[1], out=tmp_path / "plan.json")
    assert check_killed(
        partial(VERBS["apply"], *prepared), prepared[1], tmp_path / "apply", 2, random.Random(3)
    )


def test_other_bytes_are_found(prepared, tmp_path):
    """The check can fail."""

    def verb(place):
        (place / "out").write_text(str(place))

    with pytest.raises(SystemExit, match="other bytes in"):
        check_killed(verb, prepared[1], tmp_path / "work", 0, random.Random(0))
