from __future__ import annotations

import numpy as np
import pytest
import torch

from surgeon.calibrate import gather, rows
from surgeon.calibrate.block_similarity import BlockSimilarity
from surgeon.errors import SurgeonError
from tests.handmade import llama_graph

BLOCKS = tuple(f"model.layers.{i}" for i in range(3))


@pytest.mark.parametrize("tokens", ["all", "last"])
@pytest.mark.parametrize("span", [1, 2])
def test_equals_the_formula_on_hidden_states(small_llama, tokens, span):
    model = small_llama().double()
    ids = torch.randint(3, 53, (3, 7), generator=torch.Generator().manual_seed(0))
    states = []
    for row in ids:
        outputs = [model.model.embed_tokens(row[None])[0]]
        hooks = [
            layer.register_forward_hook(
                lambda m, x, y, outputs=outputs: outputs.append((y[0] if isinstance(y, tuple) else y)[0])
            )
            for layer in model.model.layers
        ]
        model(input_ids=row[None])
        for hook in hooks:
            hook.remove()
        states.append([o.detach().numpy() for o in outputs])
    for measure in ("cosine", "angular", "manhattan", "euclidean"):
        key = BlockSimilarity(measure, tokens, span, BLOCKS)
        got = gather(model, rows(ids.tolist()), [key], batch_size=2).get(key)
        assert len(got) == 4 - span
        for start, name in enumerate(BLOCKS[: 4 - span]):
            found = []
            for sample in states:
                x, y = sample[start], sample[start + span]
                if tokens == "last":
                    x, y = x[-1:], y[-1:]
                cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
                between = {
                    "cosine": cosine,
                    "angular": np.arccos(cosine) / np.pi,
                    "manhattan": np.abs(y - x).sum(1),
                    "euclidean": np.sqrt(np.square(y - x).sum(1)),
                }
                found.append(between[measure])
            assert float(got[name]) == pytest.approx(np.concatenate(found).mean(), rel=1e-9)


def test_blocks_come_from_the_graph(small_llama):
    model = small_llama()
    assert BlockSimilarity().on(llama_graph(model.config), ()).blocks == BLOCKS
    with pytest.raises(SurgeonError, match="no blocks to compare"):
        gather(model, rows([[3, 4, 5]]), [BlockSimilarity()])
