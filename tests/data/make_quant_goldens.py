# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/quant/: blocks of every file type with the values that the Python package gguf gives them, and the
blocks that it quantises weights.f32.bin to. All inputs are random numbers from a fixed seed.

    pip install gguf numpy && python tests/data/make_quant_goldens.py
"""
import pathlib

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

OUT = pathlib.Path(__file__).parent / "quant"
K = 256
# type -> byte offsets of the f16 fields in a block
F16_FIELDS = {T.Q8_0: [0], T.Q6_K: [208], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q5_K: [0, 2], T.Q4_0: [0], T.Q4_1: [0, 2],
              T.Q4_K: [0, 2]}
BLOCK_BYTES = {T.Q8_0: 34, T.Q6_K: 210, T.Q5_0: 22, T.Q5_1: 24, T.Q5_K: 176, T.Q4_0: 18, T.Q4_1: 20, T.Q4_K: 144}
ENCODED = [T.F16, T.BF16, T.Q8_0, T.Q5_0, T.Q5_1, T.Q4_0, T.Q4_1]


def main() -> None:
    OUT.mkdir(exist_ok=True)
    rng = np.random.default_rng(20240607)
    for kind, size in BLOCK_BYTES.items():
        blocks = rng.integers(0, 256, (2 * K // (256 if kind.name.endswith("K") else 32), size), dtype=np.uint8)
        for at in F16_FIELDS[kind]:
            values = rng.normal(0, 0.01, len(blocks)).astype(np.float16)
            blocks[:, at:at + 2] = values.view(np.uint8).reshape(-1, 2)
        (OUT / f"{kind.name.lower()}.blocks.bin").write_bytes(blocks.tobytes())
        (OUT / f"{kind.name.lower()}.values.bin").write_bytes(dequantize(blocks, kind).astype("<f4").tobytes())
    weights = rng.normal(0, 0.05, (4, K)).astype(np.float32)
    weights[1] = np.abs(weights[1])
    weights[2] *= rng.choice([1e-3, 1, 30], K).astype(np.float32)
    weights[3, :32] = 0
    weights[3, 32:64] = 0.125
    (OUT / "weights.f32.bin").write_bytes(weights.tobytes())
    for kind in ENCODED:
        (OUT / f"{kind.name.lower()}.encoded.bin").write_bytes(quantize(weights, kind).tobytes())


if __name__ == "__main__":
    main()
