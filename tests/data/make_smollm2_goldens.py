#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/smollm2_greedy.json: greedy continuations that transformers gives, in float32, for the dequantised
weights of SmolLM2-135M-Instruct.Q4_1.gguf (as it is, and requantised to Q8_0) for five prompts.

    pip install torch==2.13.0 transformers==5.23.0 gguf==0.19.0 numpy
    python3 make_smollm2_goldens.py SmolLM2-135M-Instruct.Q4_1.gguf
"""
import json
import pathlib
import sys

import gguf
import numpy as np
import torch
import transformers

PROMPTS = ["The capital of France is", "Once upon a time, in a small village by the sea,", "def fibonacci(n):\n",
           "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
           "The three most important things to know about rice cooking are"]
TOKENS = 64


def halves(w, heads):
    """Rows of each head back from adjacent pairs to (first half, second half)."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def transformers_model(reader, weights):
    key = lambda name: reader.fields["llama." + name].contents()
    heads, kv_heads = key("attention.head_count"), key("attention.head_count_kv")
    config = transformers.LlamaConfig(
        vocab_size=len(weights["token_embd.weight"]), hidden_size=key("embedding_length"),
        intermediate_size=key("feed_forward_length"), num_hidden_layers=key("block_count"), num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=key("context_length"), tie_word_embeddings=True,
        rms_norm_eps=float(key("attention.layer_norm_rms_epsilon")),
        rope_parameters=dict(rope_type="default", rope_theta=float(key("rope.freq_base"))))
    state = {"model.embed_tokens.weight": weights["token_embd.weight"], "model.norm.weight": weights["output_norm.weight"],
             "lm_head.weight": weights["token_embd.weight"]}
    for i in range(config.num_hidden_layers):
        for theirs, ours in {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
                             "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
                             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
                             "mlp.down_proj": "ffn_down"}.items():
            w = weights[f"blk.{i}.{ours}.weight"]
            if ours in ("attn_q", "attn_k"):
                w = halves(w, heads if ours == "attn_q" else kv_heads)
            state[f"model.layers.{i}.{theirs}.weight"] = w
    model = transformers.LlamaForCausalLM(config).eval().float()
    model.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(w)) for name, w in state.items()})
    return model


def greedy(model, ids):
    past, tokens, step = None, [], torch.tensor([ids])
    with torch.no_grad():
        for _ in range(TOKENS):
            out = model(step, past_key_values=past, use_cache=True)
            past, step = out.past_key_values, out.logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(int(step))
    return tokens


def main(path):
    reader = gguf.GGUFReader(path)
    weights, rounded = {}, {}
    for t in reader.tensors:
        w = gguf.dequantize(t.data, t.tensor_type).reshape([int(d) for d in reversed(t.shape)]).astype(np.float32)
        weights[t.name] = rounded[t.name] = w
        if w.ndim == 2:
            q8 = gguf.GGMLQuantizationType.Q8_0
            rounded[t.name] = gguf.dequantize(gguf.quantize(w, q8), q8).reshape(w.shape).astype(np.float32)
    file = pathlib.Path(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    cases = [{"prompt": p, "ids": tokenizer(p, add_special_tokens=False)["input_ids"]} for p in PROMPTS]
    for kind, w in {"q4_1": weights, "q8_0": rounded}.items():
        model = transformers_model(reader, w)
        for case in cases:
            case[kind] = greedy(model, case["ids"])
    out = pathlib.Path(__file__).parent / "smollm2_greedy.json"
    out.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


main(sys.argv[1])
