# SPDX-License-Identifier: Apache-2.0
"""Tiny random models in folders as Hugging Face transformers saves them, with the logits it gives for them:
tests/data/folders/<name>/. Needs numpy, torch and transformers (made with torch 2.13, transformers 5.23).

    python tests/data/make_folder_goldens.py
"""
import json
import pathlib
import shutil

import numpy as np
import safetensors.torch
import torch
import transformers
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

OUT = pathlib.Path(__file__).parent / "folders"
TOKENS = 70


def save(name, dtype, config, seed, shard="1GB"):
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            p.copy_(noise * (1.0 if "emb" in key else 1 / p.shape[1] ** 0.5) if p.dim() == 2 else noise * 0.3 + 1)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, TOKENS).astype(np.int32)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens)[None].long()).logits[0].numpy()
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "logits.npy", logits.astype(np.float32))
    print(name, float(logits.min()), float(logits.max()))


def save_mxfp4(name, seed):
    """gpt-oss as it is published: experts in MXFP4, the rest in bf16."""
    config = transformers.GptOssConfig(
        vocab_size=48, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, max_position_embeddings=128, num_local_experts=3, num_experts_per_tok=2, sliding_window=9,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0), pad_token_id=None, eos_token_id=2)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    g = torch.Generator().manual_seed(seed)
    tensors = {}
    with torch.no_grad():
        for key, p in model.named_parameters():
            if key.endswith("_proj") and p.dim() == 3:
                experts, k, n = p.shape
                blocks = torch.randint(0, 256, (experts, n, k // 32, 16), generator=g, dtype=torch.uint8)
                scales = torch.randint(121, 125, (experts, n, k // 32), generator=g, dtype=torch.uint8)
                p.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
                tensors |= {f"{key}_blocks": blocks, f"{key}_scales": scales}
            else:
                noise = torch.randn(p.shape, generator=g)
                p.copy_(noise * (1.0 if "emb" in key else 1 / p.shape[1] ** 0.5) if p.dim() == 2 else noise * 0.3 + ("norm" in key))
                p.copy_(p.bfloat16().float())
                tensors[key] = p.bfloat16().contiguous()
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    quantization = dict(quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                                      "model.embed_tokens", "lm_head"])
    (folder / "config.json").write_text(json.dumps(config.to_dict() | dict(quantization_config=quantization), indent=1) + "\n")
    tokens = np.random.default_rng(seed).integers(0, 48, TOKENS).astype(np.int32)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens)[None].long()).logits[0].numpy()
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "logits.npy", logits.astype(np.float32))
    experts = model.model.layers[1].mlp.experts
    np.save(folder / "gate_up.npy", experts.gate_up_proj.detach().numpy())
    np.save(folder / "down.npy", experts.down_proj.detach().numpy())
    print(name, float(logits.min()), float(logits.max()))


def main():
    small = dict(vocab_size=48, hidden_size=32, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=128)
    llama3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                  original_max_position_embeddings=32)
    save("llama-f32", torch.float32, transformers.LlamaConfig(**small, rope_parameters=llama3, tie_word_embeddings=False), 1)
    save("llama-bf16-shards", torch.bfloat16, transformers.LlamaConfig(**small, head_dim=16, tie_word_embeddings=True), 2, "12KB")
    save_mxfp4("gptoss-mxfp4", 4)
    save("mistral-f16", torch.float16, transformers.MistralConfig(**small, head_dim=8, sliding_window=9, tie_word_embeddings=False), 3)


main()
