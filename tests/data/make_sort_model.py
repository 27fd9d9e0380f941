#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""minGPT's trained model that sorts six letters, gpt-nano-sort-model.json of llm-viz, as a Hugging Face folder of GPT-2.

    make_sort_model.py gpt-nano-sort-model.json FOLDER       (needs numpy and safetensors)
"""
import base64
import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

values = json.loads(pathlib.Path(sys.argv[1]).read_text())
folder = pathlib.Path(sys.argv[2])
config = values.pop("config")
tensors = {}
for name, value in values.items():
    array = np.frombuffer(base64.b64decode(value["data"]), "<f4").reshape(value["shape"])
    if name.endswith((".c_attn.weight", ".c_fc.weight", ".c_proj.weight")):  # Hugging Face's GPT-2 has (in, out)
        array = array.T
    if not name.endswith(".attn.bias"):  # the causal mask
        tensors[name] = np.ascontiguousarray(array)
folder.mkdir(parents=True, exist_ok=True)
save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
sizes = {key: config[key] for key in ("vocab_size", "n_layer", "n_head", "n_embd")}
(folder / "config.json").write_text(json.dumps(
    {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_positions": config["block_size"],
     "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": False} | sizes, indent=1) + "\n")
