# SPDX-License-Identifier: Apache-2.0
"""The tiny models that make_model_goldens.py makes: at least one per architecture, one per variant of its definition."""
import dataclasses
import typing

import torch
import transformers as t

import own_forwards as own


@dataclasses.dataclass
class Golden:
    name: str
    model_class: type
    config: t.PretrainedConfig
    embedding: float = 0                     # standard deviation; 0: 1, or 2 / sqrt(width) where the head shares it
    tokens: int = 70   # more than two pages of the KV cache and than the biggest chunk the tests cut a prompt into
    attention: str = "eager"
    f32: bool = False                        # matrices of the folder in f32
    gguf: bool = True                        # False: no GGUF files of this kind exist
    transposed_experts: bool = False         # of (experts, k, n)
    norm_plus_one: bool = False              # norms multiply by 1 + weight
    gguf_keys: dict = dataclasses.field(default_factory=dict)   # GGUFWriter.add_...: what the converter leaves out
    gguf_without: tuple = ()                 # keys that the converter writes and older ones did not
    gguf_names: dict = dataclasses.field(default_factory=dict)  # of a layer's tensors that pass as they are
    gguf_arch: str = ""
    gguf_tensors: typing.Callable | None = None       # tensors of the folder -> GGUF's, where there is no converter
    gguf_config: dict = dataclasses.field(default_factory=dict)   # of config.json, for the converter alone
    rename: typing.Callable | None = None             # tensors of transformers -> of the model's own code
    edit_config: typing.Callable | None = None        # config.json that is saved
    prompt: typing.Callable | None = None             # makes random tokens a prompt
    before_forward: typing.Callable | None = None
    forward_arguments: typing.Callable | None = None


PLAIN = dict(rope_type="default", rope_theta=10000.0)
TOKENS = dict(bos_token_id=1, eos_token_id=2, pad_token_id=None)


def sizes(s, **changes):
    """The usual names."""
    return dict(vocab_size=48, hidden_size=32 * s, intermediate_size=20 * s, num_hidden_layers=2, num_attention_heads=4 * s,
                num_key_value_heads=2 * s, max_position_embeddings=128, rope_parameters=dict(PLAIN),
                tie_word_embeddings=False, **TOKENS) | changes


def gpt(s, **changes):
    """The names of GPT-2's time."""
    return dict(vocab_size=48, n_embd=24 * s, n_layer=2, n_head=3 * s, n_positions=128, **TOKENS) | changes


def without(items, *keys):
    return {key: value for key, value in items.items() if key not in keys}


def renamed(state, names, prefix, layer):
    for i in range(2):
        names |= {f"{prefix}.{i}.{theirs}": f"blk.{i}.{ours}" for theirs, ours in layer.items()}
    split = (name.rsplit(".", 1) for name in state)
    return {f"{names[path]}.{kind}": state[f"{path}.{kind}"] for path, kind in split if path in names}


def gptj_tensors(state):
    names = {"transformer.wte": "token_embd", "transformer.ln_f": "output_norm", "lm_head": "output"}
    layer = {"ln_1": "attn_norm", "attn.q_proj": "attn_q", "attn.k_proj": "attn_k", "attn.v_proj": "attn_v",
             "attn.out_proj": "attn_output", "mlp.fc_in": "ffn_up", "mlp.fc_out": "ffn_down"}
    return renamed(state, names, "transformer.h", layer)


def opt_tensors(state):
    """llama.cpp knows no OPT; these are the names that its other models have."""
    names = {"embed_tokens": "token_embd", "embed_positions": "position_embd", "final_layer_norm": "output_norm",
             "project_in": "token_embd_proj", "project_out": "output_proj"}
    names = {f"model.decoder.{theirs}": ours for theirs, ours in names.items()}
    layer = {"self_attn_layer_norm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_output", "final_layer_norm": "ffn_norm",
             "fc1": "ffn_up", "fc2": "ffn_down"}
    return renamed(state, names, "model.decoder.layers", layer)


def llamas(s):
    llama3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=32)
    linear = dict(rope_type="linear", rope_theta=10000.0, factor=4.0)
    yarn = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)
    llama, c = t.LlamaForCausalLM, t.LlamaConfig
    yield Golden("llama-3", llama, c(**sizes(s, head_dim=16, rope_parameters=llama3)))
    yield Golden("llama-tied", llama, c(**sizes(s, rope_parameters=PLAIN | {"rope_theta": 50000.0}, tie_word_embeddings=True)))
    yield Golden("llama-linear", llama, c(**sizes(s, rope_parameters=linear, attention_bias=True, mlp_bias=True)))
    yield Golden("llama-yarn", llama, c(**sizes(s, rope_parameters=yarn)))
    yield Golden("mistral", t.MistralForCausalLM, t.MistralConfig(**sizes(s, sliding_window=9)),
                 gguf_keys=dict(sliding_window=9))
    four = sizes(s, num_hidden_layers=4, intermediate_size=12 * s)
    yield Golden("smollm3", t.SmolLM3ForCausalLM, t.SmolLM3Config(**four))
    yield Golden("smollm3-layers", t.SmolLM3ForCausalLM, t.SmolLM3Config(**four, no_rope_layers=[0, 1, 1, 0]), gguf=False)
    yield Golden("granite", t.GraniteForCausalLM, t.GraniteConfig(**sizes(s, embedding_multiplier=3.0, attention_multiplier=0.2,
                 residual_multiplier=0.4, logits_scaling=2.5)), embedding=0.3)


def qwens(s):
    yield Golden("qwen2", t.Qwen2ForCausalLM, t.Qwen2Config(**sizes(s)))
    yield Golden("qwen2-window", t.Qwen2ForCausalLM, t.Qwen2Config(**sizes(s, num_hidden_layers=3, use_sliding_window=True,
                 sliding_window=9, max_window_layers=1)), gguf=False)
    yield Golden("qwen3", t.Qwen3ForCausalLM, t.Qwen3Config(**sizes(s, head_dim=16)))


def gpts(s):
    inner = dict(n_inner=44 * s, rotary_dim=8, n_head=2 * s, n_embd=32 * s)
    yield Golden("gptj", t.GPTJForCausalLM, t.GPTJConfig(**gpt(s, **inner), tie_word_embeddings=False), gguf_arch="gptj",
                 gguf_tensors=gptj_tensors,
                 gguf_keys=dict(block_count=2, embedding_length=32 * s, head_count=2 * s, rope_dimension_count=8,
                                feed_forward_length=44 * s, context_length=128, layer_norm_eps=1e-5))
    yield Golden("gpt2", t.GPT2LMHeadModel, t.GPT2Config(**gpt(s), n_ctx=128))
    code = t.GPTBigCodeForCausalLM
    yield Golden("starcoder", code, t.GPTBigCodeConfig(**gpt(s), multi_query=True))
    yield Golden("starcoder-heads", code, t.GPTBigCodeConfig(**gpt(s), multi_query=False), gguf=False)
    yield Golden("starcoder2", t.Starcoder2ForCausalLM, t.Starcoder2Config(**sizes(s, sliding_window=9,
                 tie_word_embeddings=True)), gguf_keys=dict(sliding_window=9))
    for name, parallel in (("gptneox", True), ("gptneox-sequential", False)):
        yield Golden(name, t.GPTNeoXForCausalLM, t.GPTNeoXConfig(**without(sizes(s, rope_parameters=PLAIN | dict(
                     partial_rotary_factor=0.5)), "num_key_value_heads"), use_parallel_residual=parallel),
                     gguf_config=dict(rotary_pct=0.5))
    mpt = dict(d_model=24 * s, n_heads=3 * s, n_layers=2, max_seq_len=128, vocab_size=48, **TOKENS)
    attention = dict(attn_type="multihead_attention", alibi=True, alibi_bias_max=8)
    yield Golden("mpt", t.MptForCausalLM, t.MptConfig(**mpt, attn_config=attention),
                 gguf_config=dict(architectures=["MPTForCausalLM"]))
    yield Golden("mpt-clip", t.MptForCausalLM, t.MptConfig(**mpt, attn_config=attention | dict(clip_qkv=0.7)), gguf_config=dict(architectures=["MPTForCausalLM"]))
    yield Golden("bloom", t.BloomForCausalLM, t.BloomConfig(vocab_size=48, hidden_size=24 * s, n_layer=2, n_head=3 * s,
                 seq_length=128, **TOKENS))
    for name, more in (("opt", {}), ("opt-post-norm", dict(do_layer_norm_before=False, word_embed_proj_dim=16 * s))):
        yield Golden(name, t.OPTForCausalLM, t.OPTConfig(**without(sizes(s, tie_word_embeddings=True), "num_key_value_heads",
                     "intermediate_size", "rope_parameters"), ffn_dim=40 * s, **more), gguf_arch="opt", gguf_tensors=opt_tensors,
                     gguf_keys=dict(block_count=2, embedding_length=32 * s, head_count=4 * s, feed_forward_length=40 * s,
                                    context_length=128, layer_norm_eps=1e-5, do_layer_norm_before=not more))


def falcons(s):
    falcon = t.FalconForCausalLM
    common = dict(vocab_size=48, hidden_size=24 * s, num_hidden_layers=2, num_attention_heads=3 * s, rope_parameters=PLAIN,
                  max_position_embeddings=128, **TOKENS)
    new = dict(new_decoder_architecture=True) | common | dict(num_attention_heads=4 * s, num_kv_heads=2 * s, hidden_size=32 * s,
                                                              ffn_hidden_size=48 * s)
    yield Golden("falcon-7b", falcon, t.FalconConfig(**common, multi_query=True),
                 gguf_config=dict(num_kv_heads=1))
    yield Golden("falcon-40b", falcon, t.FalconConfig(**new, num_ln_in_parallel_attn=2),
                 gguf_keys=dict(feed_forward_length=48 * s))
    yield Golden("falcon-11b", falcon, t.FalconConfig(**new, num_ln_in_parallel_attn=1),
                 gguf_keys=dict(feed_forward_length=48 * s))
    yield Golden("falcon-rw", falcon, t.FalconConfig(**common, multi_query=False, parallel_attn=False, alibi=True, bias=True),
                 gguf=False, attention="sdpa")  # the eager one adds ALiBi twice


def phis(s):
    half = PLAIN | dict(partial_rotary_factor=0.5)
    yield Golden("phi", t.PhiForCausalLM, t.PhiConfig(**sizes(s, num_key_value_heads=4 * s, intermediate_size=64 * s,
                 rope_parameters=half)), gguf_keys=dict(feed_forward_length=64 * s))
    longrope = PLAIN | dict(rope_type="longrope", original_max_position_embeddings=32, short_factor=[1.0, 1.1, 1.2, 1.3],
                            long_factor=[1.2, 2.0, 3.0, 4.0])
    yield Golden("phi3", t.Phi3ForCausalLM, t.Phi3Config(**sizes(s, sliding_window=9)))
    yield Golden("phi3-long", t.Phi3ForCausalLM, t.Phi3Config(**sizes(s, rope_parameters=longrope),
                 original_max_position_embeddings=32))
    yield Golden("phi3-short", t.Phi3ForCausalLM, t.Phi3Config(**sizes(s, rope_parameters=longrope),
                 original_max_position_embeddings=32), tokens=32)


def gemmas(s):
    common = dict(norm_plus_one=True, embedding=0.3)
    small = sizes(s, tie_word_embeddings=True, head_dim=16)
    yield Golden("gemma", t.GemmaForCausalLM, t.GemmaConfig(**small), **common)
    two = small | dict(sliding_window=9, attn_logit_softcapping=2.0,
                       final_logit_softcapping=3.0)
    yield Golden("gemma2", t.Gemma2ForCausalLM, t.Gemma2Config(**two, query_pre_attn_scalar=16), **common)
    yield Golden("gemma2-scalar", t.Gemma2ForCausalLM, t.Gemma2Config(**two, query_pre_attn_scalar=24),
                 gguf_keys=dict(attention_scale=24 ** -0.5), **common)
    ropes = dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                 sliding_attention=dict(rope_type="default", rope_theta=1e4))
    three = small | dict(sliding_window=9, head_dim=8, num_key_value_heads=s, rope_parameters=ropes, query_pre_attn_scalar=8)
    yield Golden("gemma3", t.Gemma3ForCausalLM, t.Gemma3TextConfig(**three | dict(num_hidden_layers=6, intermediate_size=16 * s)),
                 **common)
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    yield Golden("gemma3-kinds", t.Gemma3ForCausalLM, t.Gemma3TextConfig(**three | dict(num_hidden_layers=3, layer_types=kinds)),
                 gguf_keys=dict(sliding_window_pattern=[k == "sliding_attention" for k in kinds]), **common)


def norms(s):
    quarter = sizes(s, rope_parameters=PLAIN | dict(partial_rotary_factor=0.5))
    stable, c = t.StableLmForCausalLM, t.StableLmConfig
    yield Golden("stablelm", stable, c(**quarter))
    yield Golden("stablelm-bias", stable, c(**quarter, use_qkv_bias=True))
    yield Golden("stablelm-12b", stable, c(**quarter, use_parallel_residual=True, qk_layernorm=True))
    yield Golden("olmo2", t.Olmo2ForCausalLM, t.Olmo2Config(**sizes(s)))
    cohere = sizes(s, tie_word_embeddings=True, logit_scale=0.25)
    yield Golden("cohere", t.CohereForCausalLM, t.CohereConfig(**cohere))
    yield Golden("cohere-qk-norm", t.CohereForCausalLM, t.CohereConfig(**cohere, use_qk_norm=True))
    yield Golden("cohere2", t.Cohere2ForCausalLM, t.Cohere2Config(**cohere | dict(num_hidden_layers=4, intermediate_size=12 * s),
                 sliding_window=9), gguf_config=dict(rotary_pct=1.0))
    glm = sizes(s, rope_parameters=PLAIN | dict(partial_rotary_factor=0.5), head_dim=8)
    glm_eps = t.GlmConfig().rms_norm_eps
    yield Golden("glm", t.GlmForCausalLM, t.GlmConfig(**glm, attention_bias=True), gguf_config=dict(
                 seq_length=128, layernorm_epsilon=glm_eps))
    yield Golden("glm4", t.Glm4ForCausalLM, t.Glm4Config(**glm, attention_bias=True))


# Models whose code is not in transformers: the class there that computes the same, under the names of the model's own code.
def fuse_groups(state, prefix, groups):
    """q, k, v -> groups of [q heads of the group, k, v]."""
    q, k, v = (state.pop(f"{prefix}.{x}_proj.weight") for x in "qkv")
    split = [x.reshape(groups, -1, x.shape[1]) for x in (q, k, v)]
    return torch.cat(split, 1).reshape(-1, q.shape[1])


def fuse(state, prefix, kind="weight"):
    return torch.cat([state.pop(f"{prefix}.{x}_proj.{kind}") for x in "qkv"])


def rename_all(state, names):
    for theirs, own in names.items():
        state = {name.replace(theirs, own): tensor for name, tensor in state.items()}
    return state


def internlm2_names(groups):
    def rename(state):
        for i in range(2):
            state[f"model.layers.{i}.attention.wqkv.weight"] = fuse_groups(state, f"model.layers.{i}.self_attn", groups)
        return rename_all(state, {"embed_tokens": "tok_embeddings", "input_layernorm": "attention_norm", "lm_head": "output",
                                  "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attention.wo",
                                  "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3",
                                  "mlp.down_proj": "feed_forward.w2"})
    return rename


def baichuan_names(state):
    for i in range(2):
        state[f"model.layers.{i}.self_attn.W_pack.weight"] = fuse(state, f"model.layers.{i}.self_attn")
    return state


def qwen_names(state):
    for i in range(2):
        for kind in ("weight", "bias"):
            state[f"transformer.h.{i}.attn.c_attn.{kind}"] = fuse(state, f"model.layers.{i}.self_attn", kind)
    return rename_all(state, {"model.layers": "transformer.h", "model.embed_tokens": "transformer.wte", "input_layernorm": "ln_1",
                              "post_attention_layernorm": "ln_2", "self_attn.o_proj": "attn.c_proj", "mlp.gate_proj": "mlp.w2",
                              "mlp.up_proj": "mlp.w1", "mlp.down_proj": "mlp.c_proj", "model.norm": "transformer.ln_f"})


def chatglm_names(state):
    for i in range(2):
        for kind in ("weight", "bias"):
            state[f"model.layers.{i}.self_attention.query_key_value.{kind}"] = fuse(state, f"model.layers.{i}.self_attn", kind)
    return rename_all(state, {"model.layers": "transformer.encoder.layers", "self_attn.o_proj": "self_attention.dense",
                              "model.embed_tokens": "transformer.embedding.word_embeddings", "lm_head": "transformer.output_layer",
                              "mlp.gate_up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h",
                              "model.norm": "transformer.encoder.final_layernorm"})


def alibi(heads):
    """Rope of position 0 turns nothing; ALiBi comes with the mask (heads: a power of two)."""
    def arguments(tokens):
        slopes = torch.tensor([2.0 ** (-8 * (h + 1) / heads) for h in range(heads)])
        position = torch.arange(tokens)
        bias = slopes[:, None, None] * (position[None, :] - position[:, None])
        mask = bias.masked_fill(position[None, :] > position[:, None], torch.finfo(torch.float32).min)
        return dict(position_ids=torch.zeros(1, tokens, dtype=torch.long), attention_mask=mask[None])
    return arguments


def unit_head(model):
    weight = model.lm_head.weight
    weight.data = weight.data / weight.data.norm(dim=1, keepdim=True)


def own_code(s):
    llama = t.LlamaForCausalLM
    plain = dict(rope_theta=10000.0)

    def config(architecture, kind, drop=(), **more):
        return lambda c: without(c, "rope_parameters", "head_dim", *drop) | plain | more | {
            "architectures": [architecture], "model_type": kind}

    yield Golden("internlm2", llama, t.LlamaConfig(**sizes(s)), rename=internlm2_names(2 * s),
                 edit_config=config("InternLM2ForCausalLM", "internlm2"))
    heads = sizes(s, num_key_value_heads=4 * s)
    drop = ("num_key_value_heads",)
    yield Golden("baichuan", llama, t.LlamaConfig(**heads), rename=baichuan_names,
                 edit_config=config("BaiChuanForCausalLM", "baichuan", drop))
    yield Golden("baichuan2", llama, t.LlamaConfig(**heads), rename=baichuan_names, gguf=False, before_forward=unit_head, f32=True,
                 edit_config=config("BaichuanForCausalLM", "baichuan", drop, z_loss_weight=0))
    yield Golden("baichuan-13b", llama, t.LlamaConfig(**heads), rename=baichuan_names, forward_arguments=alibi(4 * s),
                 gguf_keys=dict(max_alibi_bias=8.0),
                 edit_config=config("BaichuanForCausalLM", "baichuan", drop + ("max_position_embeddings",), model_max_length=128))
    yield Golden("qwen", t.Qwen2ForCausalLM, t.Qwen2Config(**heads), rename=qwen_names, edit_config=config(
        "QWenLMHeadModel", "qwen", drop + ("rms_norm_eps", "layer_types"), intermediate_size=40 * s, layer_norm_epsilon=1e-6,
        seq_length=128, kv_channels=8))
    glm = t.GlmConfig(**sizes(s, rope_parameters=dict(rope_type="default", rope_theta=20000.0, partial_rotary_factor=0.5),
                              head_dim=8, rms_norm_eps=1e-5), attention_bias=True)
    yield Golden("chatglm", t.GlmForCausalLM, glm, rename=chatglm_names, edit_config=lambda c: dict(
        architectures=["ChatGLMModel"], model_type="chatglm", hidden_size=32 * s, ffn_hidden_size=20 * s, num_layers=2,
        num_attention_heads=4 * s, kv_channels=8, multi_query_attention=True, multi_query_group_num=2 * s, rope_ratio=2,
        padded_vocab_size=48, seq_length=128, layernorm_epsilon=1e-5, add_qkv_bias=True))


def mixtures(s):
    small = sizes(s, intermediate_size=12 * s)
    yield Golden("mixtral", t.MixtralForCausalLM, t.MixtralConfig(**small, num_local_experts=5, num_experts_per_tok=2))
    many = small | dict(moe_intermediate_size=8 * s)
    yield Golden("qwen2moe", t.Qwen2MoeForCausalLM, t.Qwen2MoeConfig(**many, num_experts=7, num_experts_per_tok=3,
                 shared_expert_intermediate_size=20 * s))
    yield Golden("qwen2moe-mixed", t.Qwen2MoeForCausalLM, t.Qwen2MoeConfig(**many, num_experts=7, num_experts_per_tok=3,
                 shared_expert_intermediate_size=20 * s, norm_topk_prob=True, mlp_only_layers=[0]), gguf=False)
    yield Golden("qwen3moe", t.Qwen3MoeForCausalLM, t.Qwen3MoeConfig(**many, head_dim=16, num_experts=9, num_experts_per_tok=4,
                 norm_topk_prob=True))
    yield Golden("granitemoe", t.GraniteMoeForCausalLM, t.GraniteMoeConfig(**small, num_local_experts=6, num_experts_per_tok=3,
                 embedding_multiplier=3.0, attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=2.5), embedding=0.3)
    yield Golden("olmoe", t.OlmoeForCausalLM, t.OlmoeConfig(**small, num_experts=6, num_experts_per_tok=3))
    yarn = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32, beta_fast=32.0,
                beta_slow=1.0, truncate=False)
    yield Golden("gptoss", t.GptOssForCausalLM, t.GptOssConfig(**small | dict(rope_parameters=yarn), head_dim=16, sliding_window=9,
                 num_local_experts=6, num_experts_per_tok=3), transposed_experts=True)


def deepseeks(s):
    yarn = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32, beta_fast=32.0,
                beta_slow=1.0, mscale=0.707, mscale_all_dim=0.707)
    latent = dict(num_key_value_heads=4 * s, kv_lora_rank=20 * s, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=16,
                  rms_norm_eps=1e-6, first_k_dense_replace=1, moe_intermediate_size=8 * s, num_experts_per_tok=3)
    two, three, c = t.DeepseekV2ForCausalLM, t.DeepseekV3ForCausalLM, t.DeepseekV2Config
    groups = dict(n_routed_experts=12, n_shared_experts=1, n_group=4, topk_group=2, routed_scaling_factor=2.5)
    small = sizes(s, **latent)
    lite = dict(q_lora_rank=None, n_routed_experts=6, n_shared_experts=2, n_group=1, topk_group=1, topk_method="greedy")
    yield Golden("deepseek2-lite", two, c(**small, **lite))
    yield Golden("deepseek2-joined", two, c(**small, **lite), gguf_names={"self_attn.kv_b_proj": "attn_kv_b"},
                 gguf_keys=dict(key_length=20, value_length=16), gguf_without=("key_length_mla", "value_length_mla"))
    limited = groups | dict(topk_method="group_limited_greedy", q_lora_rank=24 * s)
    yield Golden("deepseek2", two, c(**small | dict(rope_parameters=yarn), **limited))
    yield Golden("deepseek2-mscale", two, c(**small | dict(rope_parameters=yarn | dict(mscale=1.2)), **limited), gguf=False)
    three_yarn = small | dict(rope_parameters=yarn | dict(mscale=1.0, mscale_all_dim=1.0))
    yield Golden("deepseek3", three, t.DeepseekV3Config(**three_yarn, **groups, q_lora_rank=24 * s), gguf_config=dict(
                 scoring_func="sigmoid", norm_topk_prob=True))
    yield Golden("deepseek3-halves", three, t.DeepseekV3Config(**small, **groups, q_lora_rank=None, rope_interleave=False,
                 norm_topk_prob=False), gguf=False)


def grok_names(state):
    """Of the other conversion to PyTorch."""
    return rename_all(state, {
        "transformer.in_out_embed": "model.embed_tokens", "transformer.rms_norm.weight": "model.norm.scale",
        "transformer.decoder_layer": "model.layers", "rms_norm.weight": "pre_attn_norm.scale",
        "rms_norm_1.weight": "post_attn_norm.scale", "rms_norm_2.weight": "pre_moe_norm.scale",
        "rms_norm_3.weight": "post_moe_norm.scale", "multi_head_attention.query": "attn.q_proj",
        "multi_head_attention.key": "attn.k_proj", "multi_head_attention.value": "attn.v_proj",
        "multi_head_attention.linear": "attn.o_proj", "router": "moe_block.gate", ".moe.": ".moe_block.experts."})


def groks(s):
    config = dict(architectures=["Grok1ForCausalLM"], model_type="grok-1", vocab_size=48, hidden_size=32 * s,
                  intermediate_size=20 * s, num_hidden_layers=2, num_attention_heads=4 * s, num_key_value_heads=2 * s,
                  max_position_embeddings=128, rms_norm_eps=1e-5, num_local_experts=6, num_experts_per_tok=2,
                  attn_output_multiplier=1.7, embedding_multiplier_scale=3.0, output_multiplier_scale=0.6)
    yield Golden("grok1", own.Grok1, config)
    yield Golden("grok1-modules", own.Grok1, config, rename=grok_names, gguf=False, edit_config=lambda c: without(
                 c, "num_local_experts") | dict(num_experts=6, max_attn_value=30.0))


def glm_prompt(end, gmask, mark):
    """Ended once, at token 30, which is neither at the end of a page nor of a chunk."""
    def prompt(tokens):
        tokens[(tokens == end) | (tokens == gmask)] = 0
        tokens[29 if mark == gmask else 7] = mark
        tokens[30] = end
        return tokens
    return prompt


def glms(s):
    config = dict(architectures=["ChatGLMModel"], model_type="chatglm", vocab_size=48, hidden_size=32 * s, num_layers=2,
                  num_attention_heads=4 * s, inner_hidden_size=40 * s, layernorm_epsilon=1e-5, max_sequence_length=128,
                  position_encoding_2d=True, bos_token_id=40, eos_token_id=43, gmask_token_id=41, mask_token_id=42)
    yield Golden("chatglm1", own.ChatGlm1, config, prompt=glm_prompt(40, 41, 41), gguf=False)
    yield Golden("chatglm1-mask", own.ChatGlm1, config | dict(gmask_token_id=47), prompt=glm_prompt(40, 47, 42), gguf=False)


def goldens(scale):
    for family in (llamas, qwens, gpts, falcons, phis, gemmas, norms, own_code, mixtures, deepseeks, groks, glms):
        yield from family(scale)
