# SPDX-License-Identifier: Apache-2.0
"""Models that transformers has no class for: forward passes in numpy and f64, written from what the authors published.
They have just enough of a transformers model's interface for make_model_goldens.py."""
import json
import types

import numpy as np
import safetensors.torch
import torch


class OwnModel:
    """shapes(config) gives the tensors by their names in the file, forward(weights, tokens) the logits."""

    def __init__(self, config):
        self.config = config
        self.parameters = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in self.shapes(config).items()}

    @classmethod
    def _from_config(cls, config, attn_implementation):
        return cls(config)

    def eval(self):
        return self

    float = eval

    def modules(self):
        return []

    named_buffers = modules

    def named_parameters(self):
        return self.parameters.items()

    def get_input_embeddings(self):
        return types.SimpleNamespace(weight=self.parameters[self.input_name])

    def get_output_embeddings(self):
        return types.SimpleNamespace(weight=self.parameters[self.output_name])

    def save_pretrained(self, folder):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config))
        safetensors.torch.save_file({name: p.detach() for name, p in self.parameters.items()}, folder / "model.safetensors")

    def __call__(self, tokens):
        weights = {name: p.detach().double().numpy() for name, p in self.parameters.items()}
        return types.SimpleNamespace(logits=torch.from_numpy(self.forward(weights, tokens[0].numpy()))[None])


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def rotate(x, positions):
    """x (tokens, heads, d): pairs (i, i + d / 2), base 10000."""
    d = x.shape[-1]
    angle = np.outer(positions, 10000.0 ** -(np.arange(0, d, 2) / d))[:, None]
    a, b = x[..., :d // 2], x[..., d // 2:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


class Grok1(OwnModel):
    """Grok-1, from xai-org/grok-1, model.py: norms before and after attention and experts, scores capped at 30 by tanh, a
    softmax over all experts whose chosen weights are not divided by their sum, GELU by tanh."""
    input_name, output_name = "transformer.in_out_embed.weight", "lm_head.weight"

    @staticmethod
    def shapes(c):
        n, ffn, d = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // c["num_attention_heads"]
        kv = d * c["num_key_value_heads"]
        shapes = {Grok1.input_name: (c["vocab_size"], n), "transformer.rms_norm.weight": (n,), Grok1.output_name: (c["vocab_size"], n)}
        for i in range(c["num_hidden_layers"]):
            layer = f"transformer.decoder_layer.{i}"
            shapes |= {f"{layer}.{norm}.weight": (n,) for norm in ("rms_norm", "rms_norm_1", "rms_norm_2", "rms_norm_3")}
            shapes |= {f"{layer}.multi_head_attention.{name}.weight": shape for name, shape in
                       dict(query=(n, n), key=(kv, n), value=(kv, n), linear=(n, n)).items()}
            shapes[f"{layer}.router.weight"] = (c["num_local_experts"], n)
            for e in range(c["num_local_experts"]):
                shapes |= {f"{layer}.moe.{e}.{name}.weight": shape for name, shape in
                           dict(linear=(ffn, n), linear_v=(ffn, n), linear_1=(n, ffn)).items()}
        return shapes

    def forward(self, w, tokens):
        c = self.config
        heads, kv_heads, count = c["num_attention_heads"], c["num_key_value_heads"], len(tokens)

        def norm(x, name):
            return x / np.sqrt((x * x).mean(-1, keepdims=True) + c["rms_norm_eps"]) * w[f"{name}.weight"]

        def linear(x, name):
            return x @ w[f"{name}.weight"].T

        def attention(x, name):
            q, k, v = (linear(x, f"{name}.{part}").reshape(count, n, -1)
                       for part, n in (("query", heads), ("key", kv_heads), ("value", kv_heads)))
            q, k = rotate(q, np.arange(count)), rotate(k, np.arange(count))
            k, v = (np.repeat(part, heads // kv_heads, 1) for part in (k, v))
            scores = np.einsum("thd,shd->hts", q, k) * c["attn_output_multiplier"]
            scores = np.where(np.tri(count, dtype=bool), 30 * np.tanh(scores / 30), -np.inf)
            return linear(np.einsum("hts,shd->thd", softmax(scores), v).reshape(count, -1), f"{name}.linear")

        def experts(x, layer):
            scores = softmax(linear(x, f"{layer}.router"))
            y = np.zeros_like(x)
            for t in range(count):
                for e in np.argsort(-scores[t])[:c["num_experts_per_tok"]]:
                    gate, up = linear(x[t], f"{layer}.moe.{e}.linear"), linear(x[t], f"{layer}.moe.{e}.linear_v")
                    y[t] += scores[t, e] * linear(gelu_tanh(gate) * up, f"{layer}.moe.{e}.linear_1")
            return y

        x = w[self.input_name][tokens] * c["embedding_multiplier_scale"]
        for i in range(c["num_hidden_layers"]):
            layer = f"transformer.decoder_layer.{i}"
            x = x + norm(attention(norm(x, f"{layer}.rms_norm"), f"{layer}.multi_head_attention"), f"{layer}.rms_norm_1")
            x = x + norm(experts(norm(x, f"{layer}.rms_norm_2"), layer), f"{layer}.rms_norm_3")
        return linear(norm(x, "transformer.rms_norm"), "lm_head") * c["output_multiplier_scale"]


class ChatGlm1(OwnModel):
    """ChatGLM-6B, from modeling_chatglm.py beside its weights (github.com/THUDM/ChatGLM-6B): the tokens before the first
    bos see each other; half of a head is rotated by the first position, the other half by the second; the norm's result,
    not its input, goes around attention and MLP, times sqrt(2 layers)."""
    input_name, output_name = "transformer.word_embeddings.weight", "lm_head.weight"

    @staticmethod
    def shapes(c):
        n, ffn = c["hidden_size"], c["inner_hidden_size"]
        shapes = {ChatGlm1.input_name: (c["vocab_size"], n), "transformer.final_layernorm.weight": (n,),
                  "transformer.final_layernorm.bias": (n,), ChatGlm1.output_name: (c["vocab_size"], n)}
        for i in range(c["num_layers"]):
            for name, shape in {"input_layernorm": (n,), "attention.query_key_value": (3 * n, n), "attention.dense": (n, n),
                                "post_attention_layernorm": (n,), "mlp.dense_h_to_4h": (ffn, n), "mlp.dense_4h_to_h": (n, ffn)}.items():
                shapes[f"transformer.layers.{i}.{name}.weight"] = shape
                shapes[f"transformer.layers.{i}.{name}.bias"] = shape[:1]
        return shapes

    def forward(self, w, tokens):
        c = self.config
        heads, count, tokens = c["num_attention_heads"], len(tokens), list(tokens)
        prefix = tokens.index(c["bos_token_id"])
        mark = tokens.index(c["gmask_token_id"] if c["gmask_token_id"] in tokens else c["mask_token_id"])
        first = np.minimum(np.arange(count), prefix)
        first[prefix:] = mark
        second = np.maximum(np.arange(count) - prefix + 1, 0)
        seen = np.tri(count, dtype=bool) | (np.arange(count) < prefix)

        def norm(x, name):
            x = x - x.mean(-1, keepdims=True)
            return x / np.sqrt((x * x).mean(-1, keepdims=True) + c["layernorm_epsilon"]) * w[f"{name}.weight"] + w[f"{name}.bias"]

        def linear(x, name):
            return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

        def attention(x, name):
            q, k, v = np.split(linear(x, f"{name}.query_key_value").reshape(count, heads, -1), 3, -1)
            half = q.shape[-1] // 2
            q, k = (np.concatenate([rotate(y[..., :half], first), rotate(y[..., half:], second)], -1) for y in (q, k))
            scores = np.where(seen, np.einsum("thd,shd->hts", q, k) / np.sqrt(2 * half), -np.inf)
            return linear(np.einsum("hts,shd->thd", softmax(scores), v).reshape(count, -1), f"{name}.dense")

        x, alpha = w[self.input_name][tokens], np.sqrt(2 * c["num_layers"])
        for i in range(c["num_layers"]):
            layer = f"transformer.layers.{i}"
            x = norm(x, f"{layer}.input_layernorm")
            x = norm(x * alpha + attention(x, f"{layer}.attention"), f"{layer}.post_attention_layernorm")
            x = x * alpha + linear(gelu_tanh(linear(x, f"{layer}.mlp.dense_h_to_4h")), f"{layer}.mlp.dense_4h_to_h")
        return norm(x, "transformer.final_layernorm") @ w[self.output_name].T
