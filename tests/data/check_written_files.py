# SPDX-License-Identifier: Apache-2.0
"""Reads what `nibble quantize` wrote by the packages that others read it with, and prints how far its weights are from the
source's: those of a GGUF file by the package gguf, those of a folder by compressed-tensors or bitsandbytes. Types of our own
in GGUF are bytes to that package and left out. transformers runs a folder as well, and the distance of its logits is printed
(5.23 expects packed zero points of another shape than compressed-tensors 0.20 packs, and refuses them). Needs numpy, torch,
transformers, safetensors, compressed-tensors, bitsandbytes (with accelerate) and gguf.

    python tests/data/check_written_files.py SOURCE WRITTEN      both .gguf files, or both folders
    python tests/data/check_written_files.py SOURCE.gguf FOLDER NIBBLE TEXT     a folder written of a GGUF file: distance of the
        logits of NIBBLE from those of transformers, and the number of ids of TEXT, which must be one and the same thrice
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np


def distance(got, want):
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want.astype(np.float64)))


def gguf_values(path):
    import gguf

    out = {}
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.tensor_type != gguf.GGMLQuantizationType.I8:
            out[tensor.name] = (tensor.tensor_type.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    return out


def folder_tensors(path):
    from safetensors import safe_open

    out = {}
    for file in sorted(pathlib.Path(path).glob("*.safetensors")):
        with safe_open(file, "pt") as f:
            out.update({name: f.get_tensor(name) for name in f.keys()})
    return out


def folder_values(path):
    import torch

    config = json.loads((pathlib.Path(path) / "config.json").read_text()).get("quantization_config")
    tensors = folder_tensors(path)
    out = {name: ("float", t.float().numpy()) for name, t in tensors.items() if t.dtype in (torch.float32, torch.float16, torch.bfloat16)}
    if config is None:
        return out
    if config["quant_method"] == "bitsandbytes":
        from bitsandbytes.functional import QuantState, dequantize_4bit

        for name in [n for n in tensors if n + ".absmax" in tensors]:
            state = QuantState.from_dict({n[len(name) + 1:]: t for n, t in tensors.items() if n.startswith(name + ".")}, device="cpu")
            out[name] = (config["bnb_4bit_quant_type"], dequantize_4bit(tensors[name], state).float().numpy())
        return out
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    groups = QuantizationConfig.model_validate(config).config_groups
    for module in sorted({n.rsplit(".", 1)[0] for n in tensors if n.endswith(".weight_scale")}):
        scheme = next(s for s in groups.values() if s.targets == ["Linear"] or module in s.targets)
        state = {n[len(module) + 1:]: t for n, t in tensors.items() if n.startswith(module + ".")}
        kind = BaseCompressor.get_value_from_registry(scheme.format)
        out[module + ".weight"] = (f"{scheme.format} {scheme.weights.num_bits}", kind.decompress(state, scheme)["weight"].float().numpy())
    return out


def main(source, written):
    read = gguf_values if source.endswith(".gguf") else folder_values
    want = read(source)
    for name, (kind, got) in sorted(read(written).items()):
        if name in want:
            print(f"{name:50} {kind:20} {distance(got, want[name][1]):.5f}")
    if read is folder_values:
        import torch
        import transformers

        tokens = torch.arange(24)[None] * 7 % 40 + 3
        logits = lambda path: transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(tokens).logits.detach().float().numpy()
        try:
            print(f"logits of transformers: {distance(logits(written), logits(source)):.5f}")
        except RuntimeError as error:
            print("transformers:", error)


def unpacked(source, written, nibble, text):
    import torch
    import transformers

    tokens = list(range(3, 35))
    with tempfile.TemporaryDirectory() as folder:
        out = folder + "/logits.npy"
        subprocess.run([nibble, "eval", "-m", written, "--tokens", ",".join(map(str, tokens)), "--logits", out], check=True, capture_output=True)
        got = np.load(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(written, dtype=torch.float32)
    want = model(torch.tensor([tokens])).logits[0].detach().numpy()
    print(f"logits: {np.abs(got - want).max() / (want.max() - want.min()):.2e} of their range")
    ids = lambda path: json.loads(subprocess.run([nibble, "tokenize", "-m", path, "--json", "--parse-special"], stdin=open(text, "rb"),
                                                 check=True, capture_output=True).stdout)["ids"]
    theirs = transformers.AutoTokenizer.from_pretrained(written)(pathlib.Path(text).read_bytes().decode())["input_ids"]
    print("ids:", len(theirs), ids(written) == theirs, ids(source) == theirs)


(unpacked if len(sys.argv) == 5 else main)(*sys.argv[1:])
