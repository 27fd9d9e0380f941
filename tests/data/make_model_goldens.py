#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/models/: tiny random models of Hugging Face transformers as GGUF, with the logits transformers gives.

Per model NAME.gguf (f32), NAME.tokens.npy (the prompt, int32) and NAME.logits.npy (float32, one row per token).
The name begins with the architecture; the converters below are written from the models' definitions.

    pip install torch==2.13.0 transformers==5.23.0 gguf==0.19.0 numpy && python3 make_model_goldens.py
"""
import pathlib

import gguf
import numpy as np
import torch
import transformers

OUT = pathlib.Path(__file__).parent / "models"
TOKENS = 70  # more than two pages of the KV cache and than the biggest chunk the tests cut a prompt into


def randomize(model, seed):
    """Norms away from 1, biases away from 0, attention that is not uniform. Its output is kept at a fraction of the residual:
    keys and values are cached in f16, and that rounding alone must stay well below the tests' bound of 1e-4."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() == 2:
                gain = 0.2 if "o_proj" in name or "out_proj" in name else 1.0
                p.copy_(noise * (1.0 if "emb" in name or "wte" in name else gain / p.shape[1] ** 0.5))
            else:
                p.copy_(noise * 0.3 + (0 if name.endswith("bias") else 1))


def interleave(w, heads):
    """Rows of each head from (first half, second half) to adjacent pairs, as GGUF files of llama have them."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def llama_tensors(model):
    c, state = model.config, {k: v.numpy() for k, v in model.state_dict().items()}
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    if not c.tie_word_embeddings:
        names["lm_head"] = "output"
    for i in range(c.num_hidden_layers):
        for theirs, ours in {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
                             "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
                             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
                             "mlp.down_proj": "ffn_down"}.items():
            names[f"model.layers.{i}.{theirs}"] = f"blk.{i}.{ours}"
    result = {f"{ours}.weight": state[f"{theirs}.weight"] for theirs, ours in names.items()}
    for name in result:
        if ".attn_q." in name:
            result[name] = interleave(result[name], c.num_attention_heads)
        if ".attn_k." in name:
            result[name] = interleave(result[name], c.num_key_value_heads)
    if c.rope_parameters["rope_type"] == "llama3":
        plain = 1.0 / (c.rope_parameters["rope_theta"] ** (np.arange(0, c.head_dim, 2, dtype=np.float32) / c.head_dim))
        result["rope_freqs.weight"] = (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    return result


def gptj_tensors(model):
    c, state = model.config, {k: v.numpy() for k, v in model.state_dict().items()}
    names = {"transformer.wte": "token_embd", "transformer.ln_f": "output_norm", "lm_head": "output"}
    for i in range(c.n_layer):
        for theirs, ours in {"ln_1": "attn_norm", "attn.q_proj": "attn_q", "attn.k_proj": "attn_k", "attn.v_proj": "attn_v",
                             "attn.out_proj": "attn_output", "mlp.fc_in": "ffn_up", "mlp.fc_out": "ffn_down"}.items():
            names[f"transformer.h.{i}.{theirs}"] = f"blk.{i}.{ours}"
    return {f"{ours}.{kind}": state[f"{theirs}.{kind}"] for theirs, ours in names.items() for kind in ("weight", "bias")
            if f"{theirs}.{kind}" in state}


def write(name, arch, model, tensors, keys):
    tokens = np.random.default_rng(7).integers(0, model.config.vocab_size, TOKENS).astype(np.int32)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens)[None].long()).logits[0].numpy()
    w = gguf.GGUFWriter(str(OUT / f"{name}.gguf"), arch)
    w.add_name(name)
    for method, value in keys.items():
        getattr(w, "add_" + method)(value)
    for tensor, data in tensors.items():
        w.add_tensor(tensor, np.ascontiguousarray(data, dtype=np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    np.save(OUT / f"{name}.tokens.npy", tokens)
    np.save(OUT / f"{name}.logits.npy", logits.astype(np.float32))
    print(name, "logits", float(logits.min()), "to", float(logits.max()))


def llama(name, arch, model_class, config, seed):
    model = model_class._from_config(config, attn_implementation="eager").eval().float()
    randomize(model, seed)
    keys = dict(block_count=config.num_hidden_layers, embedding_length=config.hidden_size,
                head_count=config.num_attention_heads, head_count_kv=config.num_key_value_heads,
                key_length=config.head_dim, value_length=config.head_dim, rope_dimension_count=config.head_dim,
                feed_forward_length=config.intermediate_size, context_length=config.max_position_embeddings,
                rope_freq_base=config.rope_parameters["rope_theta"], layer_norm_rms_eps=config.rms_norm_eps,
                vocab_size=config.vocab_size)
    if getattr(config, "sliding_window", None):
        keys["sliding_window"] = config.sliding_window
    write(name, arch, model, llama_tensors(model), keys)


def gptj(name, config, seed):
    model = transformers.GPTJForCausalLM._from_config(config, attn_implementation="eager").eval().float()
    randomize(model, seed)
    keys = dict(block_count=config.n_layer, embedding_length=config.n_embd, head_count=config.n_head,
                rope_dimension_count=config.rotary_dim, feed_forward_length=config.n_inner,
                context_length=config.n_positions, layer_norm_eps=config.layer_norm_epsilon)
    write(name, "gptj", model, gptj_tensors(model), keys)


def main():
    OUT.mkdir(exist_ok=True)
    small = dict(vocab_size=48, hidden_size=32, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=128)
    llama3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=32)
    plain = dict(rope_type="default", rope_theta=10000.0)
    llama("llama-3", "llama", transformers.LlamaForCausalLM,
          transformers.LlamaConfig(**small, head_dim=16, rope_parameters=llama3, tie_word_embeddings=False), 1)
    llama("llama-tied", "llama", transformers.LlamaForCausalLM,
          transformers.LlamaConfig(**small, head_dim=8, rope_parameters=plain | {"rope_theta": 50000.0},
                                   tie_word_embeddings=True), 2)
    llama("mistral", "mistral", transformers.MistralForCausalLM,
          transformers.MistralConfig(**small, head_dim=8, sliding_window=9, rope_parameters=plain,
                                     tie_word_embeddings=False), 3)
    gptj("gptj", transformers.GPTJConfig(vocab_size=48, n_embd=32, n_inner=44, n_layer=2, n_head=2, rotary_dim=8,
                                         n_positions=128), 4)


main()
