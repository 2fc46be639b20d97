"""The JSON document of a Graph holds what the design promises: positions can be computed from it."""

from __future__ import annotations

import itertools
import json

from surgeon.graph import graph_document
from tests.conftest import llama_config
from tests.handmade import llama_graph


def positions(site: dict, index: int) -> list[int]:
    """The formula of the document, spelt out."""
    modes, axis = site["modes"], site["axis_mode"]
    others = [range(extent) for place, (extent, _) in enumerate(modes) if place != axis]
    strides = [stride for place, (_, stride) in enumerate(modes) if place != axis]
    return [
        site["offset"] + index * modes[axis][1] + sum(k * s for k, s in zip(ks, strides, strict=True))
        for ks in itertools.product(*others)
    ]


def test_positions_follow_from_the_document():
    graph = llama_graph(llama_config())
    document = json.loads(json.dumps(graph_document(graph)))
    assert document["surgeon_graph"] == 1
    assert document["model"] == {"type": "llama"}
    assert [entry["axis"] for entry in document["groups"]] == [group.name for group in graph.groups]
    for entry, group in zip(document["groups"], graph.groups, strict=True):
        for written, site in zip(entry["sites"], group.sites, strict=True):
            for index in range(entry["size"]):
                assert positions(written, index) == site.layout.positions([index])[0].tolist()


def test_locks_and_sublayers_are_written():
    graph = llama_graph(llama_config()).map_groups(lambda g: g.lock(["b", "a"]) if g.kind == "ffn" else g)
    document = graph_document(graph)
    assert {e["axis"]: e["locked"] for e in document["groups"]}["layers.1.mlp.ffn"] == "a; b"
    (stack,) = document["stacks"]
    assert stack["blocks"] == ["model.layers.0", "model.layers.1", "model.layers.2"]
    assert stack["sublayers"]["model.layers.1"] == ["model.layers.1.self_attn", "model.layers.1.mlp"]
    assert [e["axis"] for e in document["groups"] if e["normalised"]] == ["hidden"]
