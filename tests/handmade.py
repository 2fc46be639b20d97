"""A Graph of a Llama-shaped model written by hand: what the tracer must find, and a stand-in for it."""

from __future__ import annotations

from surgeon.graph import Axis, Block, Graph, Group, Layout, Mode, Parameter, Port, Site, Stack, Sublayer


def llama_graph(config) -> Graph:
    """Groups, Stack and parameters of `LlamaForCausalLM(config)`."""
    h, f, v = config.hidden_size, config.intermediate_size, config.vocab_size
    kv, heads, d = config.num_key_value_heads, config.num_attention_heads, config.head_dim
    rep, n = heads // kv, config.num_hidden_layers
    head_modes = (Mode(kv, rep * d), Mode(rep, d), Mode(d, 1))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (v, h)}
    groups: list[Group] = []
    hidden = [Site("model.embed_tokens.weight", 1, Layout.plain(h), "producer")]
    blocks = []
    for i in range(n):
        at, mlp, block = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp", f"model.layers.{i}"
        shapes |= {
            f"{at}.q_proj.weight": (heads * d, h),
            f"{at}.k_proj.weight": (kv * d, h),
            f"{at}.v_proj.weight": (kv * d, h),
            f"{at}.o_proj.weight": (h, heads * d),
            f"{mlp}.gate_proj.weight": (f, h),
            f"{mlp}.up_proj.weight": (f, h),
            f"{mlp}.down_proj.weight": (h, f),
            f"{block}.input_layernorm.weight": (h,),
            f"{block}.post_attention_layernorm.weight": (h,),
        }
        one = (Mode(kv, d), Mode(d, 1))

        def q_sites(mode: int, at: str = at) -> tuple[Site, ...]:
            return (
                Site(f"{at}.q_proj.weight", 0, Layout(0, head_modes, mode), "producer"),
                Site(f"{at}.o_proj.weight", 1, Layout(0, head_modes, mode), "consumer"),
            )

        kv_sites = (
            Site(f"{at}.k_proj.weight", 0, Layout(0, one, 0), "producer"),
            Site(f"{at}.v_proj.weight", 0, Layout(0, one, 0), "producer"),
        )
        q, o = q_sites(0)
        groups.append(Group(Axis(f"layers.{i}.attn.kv_group", "kv_group", kv), (q, *kv_sites, o), block, at))
        if rep > 1:
            groups.append(Group(Axis(f"layers.{i}.attn.q_per_kv", "q_per_kv", rep), q_sites(1), block, at))
        v_site = Site(f"{at}.v_proj.weight", 0, Layout(0, one, 1), "producer")
        groups.append(
            Group(Axis(f"layers.{i}.attn.head_dim", "head_dim", d), (v_site, q_sites(2)[1]), block, at)
        )
        groups.append(
            Group(
                Axis(f"layers.{i}.mlp.ffn", "ffn", f),
                (
                    Site(f"{mlp}.gate_proj.weight", 0, Layout.plain(f), "producer"),
                    Site(f"{mlp}.up_proj.weight", 0, Layout.plain(f), "producer"),
                    Site(f"{mlp}.down_proj.weight", 1, Layout.plain(f), "consumer"),
                ),
                block,
                mlp,
            )
        )
        hidden += [
            Site(f"{block}.input_layernorm.weight", 0, Layout.plain(h), "pointwise"),
            *(Site(f"{at}.{x}_proj.weight", 1, Layout.plain(h), "consumer") for x in "qkv"),
            Site(f"{at}.o_proj.weight", 0, Layout.plain(h), "producer"),
            Site(f"{block}.post_attention_layernorm.weight", 0, Layout.plain(h), "pointwise"),
            Site(f"{mlp}.gate_proj.weight", 1, Layout.plain(h), "consumer"),
            Site(f"{mlp}.up_proj.weight", 1, Layout.plain(h), "consumer"),
            Site(f"{mlp}.down_proj.weight", 0, Layout.plain(h), "producer"),
        ]
        blocks.append(
            Block(
                block,
                i,
                (
                    Sublayer(at, "attn", (f"{block}.input_layernorm", at), block),
                    Sublayer(mlp, "mlp", (f"{block}.post_attention_layernorm", mlp), block),
                ),
            )
        )
    shapes |= {"model.norm.weight": (h,), "lm_head.weight": (v, h)}
    hidden.append(Site("model.norm.weight", 0, Layout.plain(h), "pointwise"))
    hidden.append(Site("lm_head.weight", 1, Layout.plain(h), "consumer"))
    groups.append(Group(Axis("hidden", "hidden", h), tuple(hidden), normalised=True))
    tied = config.tie_word_embeddings
    embed = Site("model.embed_tokens.weight", 0, Layout.plain(v), "index")
    head = Site("lm_head.weight", 0, Layout.plain(v), "producer")
    ids = Port("input_ids", "input", None, Layout.plain(v))
    logits = Port("logits", "output", 2, Layout.plain(v))
    if tied:
        groups.append(Group(Axis("vocab", "vocab", v), (embed, head), ports=(ids, logits)))
    else:
        groups.append(Group(Axis("vocab", "vocab", v), (embed,), ports=(ids,)))
        groups.append(Group(Axis("vocab.out", "vocab", v), (head,), ports=(logits,)))
    parameters = {
        name: Parameter(
            name, shape, tied_to="model.embed_tokens.weight" if tied and name == "lm_head.weight" else None
        )
        for name, shape in shapes.items()
    }
    return Graph("llama", tuple(groups), (Stack("model.layers", tuple(blocks), "hidden"),), parameters)
