"""Sets of experts against Expert_Sparsity's own code, and one by one against trying them."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from surgeon.calibrate import gather, rows
from surgeon.calibrate.reconstruction import Reconstruction
from surgeon.criteria.reconstruction import ExpertReconstruction
from surgeon.errors import SurgeonError
from surgeon.plan import Keep, Plan
from surgeon.rebuild import ModuleSource, masked
from surgeon.rebuild.forward import call_with
from surgeon.trace import trace_module
from tests.rebuild.routed import routed

SAMPLES = rows(torch.randint(3, 61, (4, 13), generator=torch.Generator().manual_seed(0)).tolist())


def scored(model, graph, samples, criterion, kind="expert", batch_size=2, view=None):
    groups = [g for g in graph.of_kind(kind) if g.block]
    (key,) = criterion.needs()
    narrow = key.on(graph, groups)
    found = gather(model, samples, [narrow], batch_size=batch_size, view=view).renamed({key: narrow})
    return {g.name: criterion.score(g, ModuleSource(model), found) for g in groups}, found.get(key)


def test_equal_to_the_released_code(shared_data):
    folder = shared_data / "reference"
    config = AutoConfig.from_pretrained(folder / "tiny-mixtral")
    # The dump was made with the default of the code of its time; the config beside the weights says 1e4.
    config.rope_parameters["rope_theta"] = 1e6
    model = AutoModelForCausalLM.from_pretrained(folder / "tiny-mixtral", config=config, dtype=torch.float32)
    samples = rows(load_file(folder / "ids-expert_sparsity.safetensors")["input_ids"].tolist())
    dump = json.loads((folder / "expertsparsity_mixtral_E6_r4.json").read_text())
    scores, found = scored(
        model, trace_module(model), samples, ExpertReconstruction(), batch_size=dump["batch"]
    )
    for layer, (name, table) in enumerate(found.items()):
        got = {tuple(np.flatnonzero(row[:-1] == 0)): float(row[-1]) for row in table.numpy()}
        for gone, loss in dump["loss"][str(layer)].items():
            assert got[tuple(map(int, gone.split(",")))] == pytest.approx(loss, rel=1e-4)
        assert list(scores[name].best[4]) == dump["kept"][str(layer)]
        assert scores[name].search == "all 56 sets compared"


def losses(model, graph, axis, gone):
    """What the sublayer's output loses, batch by batch, by the masked view of the whole model."""
    kept = tuple(sorted(set(range(graph.group(axis).size)) - set(gone)))
    plan = Plan(graph.model_type).add([Keep(axis, kept, 0)])
    part, found = model.get_submodule(graph.group(axis).sublayer), []
    handle = part.register_forward_hook(lambda *a: found.append(a[2]))
    with torch.no_grad():
        for ids in SAMPLES.ids.split(2):
            call_with(model, {}, input_ids=ids)
            masked(model, plan, graph)(input_ids=ids)
    handle.remove()
    return sum(float((a - b).norm()) for a, b in zip(found[::2], found[1::2], strict=True))


@pytest.mark.parametrize("name", ["softmax, renormalised", "sigmoid, groups by their two best"])
def test_one_by_one_takes_the_least_each_time(name):
    model, graph = routed(name)
    model = model.float()
    model.set_experts_implementation("eager")
    scores, _ = scored(model, graph, SAMPLES, ExpertReconstruction(sets=0))
    axis, found = next(iter(scores.items()))
    size, gone = graph.group(axis).size, ()
    while len(gone) < size - graph.group(axis).picked:
        options = {(*gone, i): losses(model, graph, axis, (*gone, i)) for i in range(size) if i not in gone}
        gone = min(options, key=options.__getitem__)
        assert set(found.best[size - len(gone)]) == set(range(size)) - set(gone)
    assert found.search.startswith("one by one, ")
    assert (
        int(found.values.argmin())
        == min(combinations(range(size), 1), key=lambda i: losses(model, graph, axis, i))[0]
    )


def test_no_more_tokens_than_asked_for():
    model, graph = routed("softmax, renormalised")
    model = model.float()
    model.set_experts_implementation("eager")
    _, few = scored(model, graph, SAMPLES, ExpertReconstruction(tokens=26))
    _, half = scored(model, graph, rows(SAMPLES.ids[:2].tolist()), ExpertReconstruction())
    for name, table in few.items():
        torch.testing.assert_close(table, half[name])


def test_experts_that_are_gone_already_are_refused():
    model, graph = routed("softmax, renormalised")
    model = model.float()
    axis = graph.of_kind("expert")[0].name
    view = masked(model, Plan(graph.model_type).add([Keep(axis, (0, 1, 2, 3), 0)]), graph)
    with pytest.raises(SurgeonError, match=f"'{axis}' has lost experts already"):
        scored(model, graph, SAMPLES, ExpertReconstruction(), view=view)


def test_other_axes_are_refused():
    model, graph = routed("softmax, renormalised")
    model = model.float()
    model.set_experts_implementation("eager")
    with pytest.raises(SurgeonError, match="counts no routed experts"):
        scored(model, graph, SAMPLES, ExpertReconstruction(), kind="ffn")


def test_a_router_outside_of_the_sublayer_is_refused():
    _, graph = routed("softmax, renormalised")
    group = graph.of_kind("expert")[0]
    key = Reconstruction(routers=((group, ("elsewhere.weight",)),))
    with pytest.raises(SurgeonError, match=r"the router of '.*' lies in elsewhere\.weight, outside of"):
        key.collector(None)
