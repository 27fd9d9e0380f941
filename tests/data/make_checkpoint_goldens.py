# SPDX-License-Identifier: Apache-2.0
"""A tiny random LLaMA in each form that quantised checkpoints come in, tests/data/checkpoints/<case>/: config.json and
model.safetensors; the first 32 rows of two of its matrices, dequantised, <module>.npy; and the logits of the model
with its weights dequantised, by transformers. Codes are packed here as each project documents it, by the project's own
package where it runs on a CPU. Needs numpy, torch, transformers, safetensors, compressed-tensors, bitsandbytes and hqq (made
with torch 2.13, transformers 5.23, compressed-tensors 0.20, bitsandbytes 0.50, hqq 0.2.8).

    python tests/data/make_checkpoint_goldens.py [case]
"""
import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent / "checkpoints"
TOKENS = 24
SIZES = dict(vocab_size=48, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False)
KEPT = ["self_attn.k_proj", "mlp.down_proj"]  # whose dequantised values are kept


def stream(codes, bits):
    """(r, c) codes to (r, c * bits / 32) words, a little-endian stream of bits in each row."""
    rows, columns = codes.shape
    each = (codes[:, :, None].astype(np.uint8) >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(each.reshape(rows, columns * bits), axis=1, bitorder="little").view("<i4")


def uniform(rng, w, bits, group, symmetric, kind, g_idx=None):
    """Codes (n, k), zeros and scales (n, groups) and the weights that they stand for."""
    n, k = w.shape
    g_idx = np.arange(k) // group if g_idx is None else g_idx
    groups, top = g_idx.max() + 1, 2**bits - 1
    codes, zeros, scales = np.zeros((n, k), int), np.zeros((n, groups), int), np.zeros((n, groups), np.float32)
    for g in range(groups):
        columns = g_idx == g
        low, high = np.minimum(w[:, columns].min(1), 0), np.maximum(w[:, columns].max(1), 0)
        if symmetric:
            high = np.maximum(-low, high)
            low = -high
        scale = torch.tensor((high - low) / top).to(kind).float().numpy()
        zero = np.full(n, 2 ** (bits - 1)) if symmetric else np.clip(np.round(-low / scale), 0, top).astype(int)
        codes[:, columns] = np.clip(np.round(w[:, columns] / scale[:, None]) + zero[:, None], 0, top)
        zeros[:, g], scales[:, g] = zero, scale
    return codes, zeros, scales, scales[:, g_idx] * (codes - zeros[:, g_idx]).astype(np.float32)


def floats(a, kind):
    return torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)).to(kind)


def ints(a):
    return torch.from_numpy(np.ascontiguousarray(a).astype(np.int32))


def gptq(bits=4, group=32, symmetric=False, act_order=False, version=1, kind=torch.float16, g_idx=True, others=()):
    def pack(rng, name, w):
        b = dict(others).get(name.split(".")[-1], bits)
        size = w.shape[1] if group == -1 else group
        order = np.arange(w.shape[1]) // size
        if act_order:
            # q, k and v see the same inputs, as do gate and up
            order = np.random.default_rng(w.shape[1] + len(name.split(".")[0])).permutation(order)
        codes, zeros, scales, weights = uniform(rng, w, b, size, symmetric, kind, order)
        if version == 1:
            zeros = np.maximum(zeros, 1)  # zero - 1 is what is stored
            weights = scales[:, order] * (codes - zeros[:, order]).astype(np.float32)
        parts = {"qweight": ints(stream(codes, b).T),
                 "qzeros": ints(stream(zeros.T - (version == 1), b)), "scales": floats(scales.T, kind)}
        if g_idx:
            parts["g_idx"] = ints(order)
        return parts, weights
    config = dict(quant_method="gptq", bits=bits, group_size=group, desc_act=act_order, sym=symmetric,
                  checkpoint_format="gptq" if version == 1 else "gptq_v2")
    if others:
        config["dynamic"] = {rf".*\.{name}": {"bits": b} for name, b in dict(others).items()}
    return config, pack


def awq(version="gemm", group=32, kind=torch.float16):
    def pack(rng, name, w):
        codes, zeros, scales, weights = uniform(rng, w, 4, group, False, kind)
        if version == "gemv":
            n, groups = zeros.shape
            words = -(-groups // 8) * {32: 4, 64: 2}.get(group, 1)
            wide, wide_scales = np.zeros((n, 8 * words), int), np.zeros((n, 8 * words))
            wide[:, :groups], wide_scales[:, :groups] = zeros, scales
            return {"qweight": ints(stream(codes, 4)), "qzeros": ints(stream(wide, 4)), "scales": floats(wide_scales, kind)}, weights
        mixed = lambda a: stream(a.reshape(len(a), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(a.shape), 4)
        return {"qweight": ints(mixed(codes.T)), "qzeros": ints(mixed(zeros.T)), "scales": floats(scales.T, kind)}, weights
    return dict(quant_method="awq", bits=4, group_size=group, zero_point=True, version=version, modules_to_not_convert=None), pack


def auto_round(packing, group=32):
    config, pack = awq(group=group) if packing.endswith("awq") else gptq(group=group, version=1 if packing.endswith("auto_gptq") else 2, g_idx=False)
    return dict(quant_method="auto-round", bits=4, group_size=group, sym=False, data_type="int", packing_format=packing), pack


def compressed(bits=4, group=32, symmetric=True, kind=torch.bfloat16, act_order=False):
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    def pack(rng, name, w):
        size = w.shape[1] if group is None else group
        order = np.arange(w.shape[1]) // size
        if act_order:
            order = np.random.default_rng(w.shape[1] + len(name.split(".")[0])).permutation(order)
        codes, zeros, scales, weights = uniform(rng, w, bits, size, symmetric, kind, order)
        half = 2 ** (bits - 1)
        signed = lambda a: torch.from_numpy((a - half).astype(np.int8))
        parts = {"weight_packed": pack_to_int32(signed(codes), bits), "weight_scale": floats(scales, kind), "weight_shape": torch.tensor(w.shape)}
        if not symmetric:
            parts["weight_zero_point"] = pack_to_int32(signed(zeros), bits, packed_dim=0)
        if act_order:
            parts["weight_g_idx"] = ints(order)
        return parts, weights
    weights = dict(num_bits=bits, type="int", symmetric=symmetric, group_size=group, strategy="channel" if group is None else "group",
                   actorder="group" if act_order else None)
    return compressed_config("pack-quantized", weights), pack


def compressed_config(form, weights):
    return dict(quant_method="compressed-tensors", format=form, ignore=["lm_head"],
                config_groups={"group_0": dict(targets=["Linear"], weights=weights, input_activations=None)})


def compressed_int8(symmetric=True):
    def pack(rng, name, w):
        codes, zeros, scales, weights = uniform(rng, w, 8, w.shape[1], symmetric, torch.bfloat16)
        parts = {"weight": torch.from_numpy((codes - 128).astype(np.int8)), "weight_scale": floats(scales, torch.bfloat16)}
        if not symmetric:
            parts["weight_zero_point"] = torch.from_numpy((zeros - 128).astype(np.int8))
        return parts, weights
    return compressed_config("int-quantized", dict(num_bits=8, type="int", symmetric=symmetric, strategy="channel")), pack


def fp8_codes(w, scales):
    return (torch.from_numpy(np.ascontiguousarray(w)) / scales).clamp(-448, 448).to(torch.float8_e4m3fn)


def compressed_fp8():
    def pack(rng, name, w):
        scale = floats(np.abs(w).max(1, keepdims=True) / 448, torch.bfloat16)
        codes = fp8_codes(w, scale.float())
        return {"weight": codes, "weight_scale": scale}, (codes.to(torch.bfloat16) * scale).float().numpy()
    return compressed_config("float-quantized", dict(num_bits=8, type="float", symmetric=True, strategy="channel")), pack


def fp8(block):
    def pack(rng, name, w):
        n, k = w.shape
        a, b = block or (n, k)
        rows, columns = -(-n // a), -(-k // b)
        scales = torch.zeros(rows, columns)
        for i in range(rows):
            for j in range(columns):
                scales[i, j] = float(np.abs(w[a * i:a * i + a, b * j:b * j + b]).max() / 448)
        full = scales.repeat_interleave(a, 0)[:n].repeat_interleave(b, 1)[:, :k]
        codes = fp8_codes(w, full)
        return {"weight": codes, "weight_scale_inv": scales if block else scales.reshape(())}, (codes.float() * full).half().float().numpy()
    return dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=block), pack


def bitsandbytes(kind, nested=False):
    import bitsandbytes.functional as bnb

    def pack(rng, name, w):
        codes, state = bnb.quantize_4bit(torch.from_numpy(w.copy()).to(torch.bfloat16), blocksize=64, quant_type=kind, compress_statistics=nested)
        parts = {"weight": codes} | {f"weight.{part}": t for part, t in state.as_dict(packed=True).items()}
        return parts, bnb.dequantize_4bit(codes, state).float().numpy()
    return dict(quant_method="bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=nested), pack


def bitsandbytes8():
    def pack(rng, name, w):
        peaks = torch.from_numpy(np.abs(w).max(1))
        codes = torch.round(torch.from_numpy(w.copy()) * (127 / peaks[:, None])).to(torch.int8)
        scale = (peaks.numpy() * np.float32(1 / 127)).astype(np.float32)
        return {"weight": codes, "SCB": peaks, "weight_format": torch.tensor(0, dtype=torch.uint8)}, codes.numpy().astype(np.float32) * scale[:, None]
    return dict(quant_method="bitsandbytes", load_in_8bit=True), pack


def hqq(bits=4, axis=1, group=32):
    from hqq.core.quantize import Quantizer

    def pack(rng, name, w):
        codes, meta = Quantizer.quantize(torch.from_numpy(w.copy()), nbits=bits, group_size=group, axis=axis, optimize=False,
                                         round_zero=False, device="cpu", compute_dtype=torch.float16)
        scale, zero = meta["scale"].half(), meta["zero"].half()
        meta = meta | {"scale": scale.float(), "zero": zero.float(), "compute_dtype": torch.float32}
        weights = Quantizer.dequantize(codes, meta).float().numpy()
        parts = {"W_q": codes.contiguous(), "scale": scale, "zero": zero, "shape": torch.tensor(w.shape), "axis": torch.tensor(axis, dtype=torch.int32),
                 "nbits": torch.tensor(bits, dtype=torch.int32), "group_size": torch.tensor(group, dtype=torch.int32)}
        return parts, weights
    return dict(quant_method="hqq", quant_config=dict(weight_quant_params=dict(nbits=bits, group_size=group, axis=axis)), skip_modules=["lm_head"]), pack


CASES = {
    "gptq4": gptq(),
    "gptq4-symmetric": gptq(symmetric=True, g_idx=False),
    "gptq4-v2": gptq(version=2, kind=torch.bfloat16),
    "gptq4-act-order": gptq(act_order=True),
    "gptq4-row": gptq(group=-1),
    "gptq8": gptq(bits=8),
    "gptq8-act-order": gptq(bits=8, act_order=True, symmetric=True),
    "gptq3": gptq(bits=3),
    "gptq2": gptq(bits=2, group=64, version=2),
    "gptq-mixed": gptq(others={"down_proj": 8, "k_proj": 2}),
    "awq-gemm": awq(),
    "awq-gemv": awq("gemv", group=64),
    "auto-round-gptq": auto_round("auto_round:auto_gptq"),
    "auto-round-v2": auto_round("auto_round"),
    "auto-round-awq": auto_round("auto_round:auto_awq"),
    "packed4": compressed(),
    "packed4-zeros": compressed(symmetric=False),
    "packed4-act-order": compressed(act_order=True, symmetric=False),
    "packed6-channel": compressed(bits=6, group=None),
    "packed3": compressed(bits=3, group=64, symmetric=False, kind=torch.float16),
    "int8-channel": compressed_int8(),
    "int8-zeros": compressed_int8(symmetric=False),
    "fp8-channel": compressed_fp8(),
    "fp8-block": fp8([32, 48]),
    "fp8-tensor": fp8(None),
    "nf4": bitsandbytes("nf4"),
    "nf4-nested": bitsandbytes("nf4", nested=True),
    "fp4": bitsandbytes("fp4"),
    "bnb-int8": bitsandbytes8(),
    "hqq4": hqq(),
    "hqq3": hqq(bits=3, group=64),
    "hqq4-axis0": hqq(axis=0),
}
PLAIN = {"gptq4": ["mlp.up_proj"]}  # modules that stay as they are


def make(name):
    config, pack = CASES[name]
    seed = sum(map(ord, name))
    rng = np.random.default_rng(seed)
    llama = transformers.LlamaConfig(**SIZES)
    model = transformers.AutoModelForCausalLM.from_config(llama, attn_implementation="eager").float().eval()
    g = torch.Generator().manual_seed(seed)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors = {}
    with torch.no_grad():
        for key, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            p.copy_(noise * (1.0 if "emb" in key else 1 / p.shape[1] ** 0.5) if p.dim() == 2 else noise * 0.3 + 1)
            p.copy_(p.half())
            module = key.removesuffix(".weight")
            short = module.removeprefix("model.layers.0.")
            if "layers" not in key or "norm" in key or short in PLAIN.get(name, []):
                tensors[key] = p.detach().half()
                continue
            parts, weights = pack(rng, short, p.numpy())
            tensors.update({f"{module}.{part}": t.contiguous() for part, t in parts.items()})
            p.copy_(torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32)))
            if short in KEPT:
                np.save(folder / f"{short}.npy", p.numpy()[:32])
    save_file(tensors, folder / "model.safetensors")
    values = json.loads(llama.to_json_string())
    values |= {"architectures": ["LlamaForCausalLM"], "torch_dtype": "float16", "quantization_config": config}
    (folder / "config.json").write_text(json.dumps(values, indent=1))
    tokens = rng.integers(0, llama.vocab_size, TOKENS).astype(np.int32)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens)[None].long()).logits[0].numpy()
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "logits.npy", logits.astype(np.float32))
    print(name, float(logits.min()), float(logits.max()))


for case in sys.argv[1:] or CASES:
    make(case)
