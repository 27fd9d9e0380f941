# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/quant/: blocks of every file type with the values that the Python package gguf gives them, and the
blocks that it quantises weights.f32.bin to. All inputs are random numbers from a fixed seed; among the scales are zero,
subnormal, negative and the largest numbers.

    pip install gguf numpy && python tests/data/make_quant_goldens.py
"""
import pathlib

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

OUT = pathlib.Path(__file__).parent / "quant"
K = 1024
# name -> weights and bytes per block, byte offsets of the f16 fields
BLOCKS = {"Q8_0": (32, 34, [0]), "Q6_K": (256, 210, [208]), "Q5_0": (32, 22, [0]), "Q5_1": (32, 24, [0, 2]),
          "Q5_K": (256, 176, [0, 2]), "Q4_0": (32, 18, [0]), "Q4_1": (32, 20, [0, 2]), "Q4_K": (256, 144, [0, 2]),
          "Q3_K": (256, 110, [108]), "Q2_K": (256, 84, [80, 82]), "IQ4_NL": (32, 18, [0]), "IQ4_XS": (256, 136, [0]),
          "IQ3_S": (256, 110, [0]), "IQ3_XXS": (256, 98, [0]), "IQ2_S": (256, 82, [0]), "IQ2_XS": (256, 74, [0]),
          "IQ2_XXS": (256, 66, [0]), "IQ1_M": (256, 56, []), "IQ1_S": (256, 50, [0]), "TQ2_0": (256, 66, [64]),
          "TQ1_0": (256, 54, [52]), "MXFP4": (32, 17, []), "NVFP4": (64, 36, []), "Q2_0": (64, 18, [0]),
          "Q1_0": (128, 18, [0])}
ENCODED = [T.F16, T.BF16, T.Q8_0, T.Q5_0, T.Q5_1, T.Q4_0, T.Q4_1, T.MXFP4, T.TQ2_0, T.TQ1_0]


def scales(rng: np.random.Generator, count: int) -> np.ndarray:
    values = rng.normal(0, 0.01, count).astype(np.float16)
    values[1::4] = [0, 3 * 2.0**-24, -65504, 2.0**-14, 65504, -1023 * 2.0**-24, 5 * 2.0**-24, 1][:len(values[1::4])]
    return values.view(np.uint16)


def set_scales(name: str, blocks: np.ndarray, rng: np.random.Generator) -> None:
    for at in BLOCKS[name][2]:
        blocks[:, at:at + 2] = scales(rng, len(blocks)).view(np.uint8).reshape(-1, 2)
    if name == "IQ1_M":  # nibble i of the scale is the highest of word i
        d = scales(rng, len(blocks))
        for i in range(4):
            high = (d >> np.uint16(4 * i) & np.uint16(15)) << np.uint16(4)
            blocks[:, 49 + 2 * i] = blocks[:, 49 + 2 * i] & 15 | high.astype(np.uint8)
    if name == "MXFP4":  # 12 * 2^124 is still finite
        blocks[:, 0] = [0, 1, 2, 3, 126, 127, 128, 252] * (len(blocks) // 8)
    if name == "NVFP4":
        blocks[0, :4] = [0, 0x7f, 0x7e, 1]
        blocks[1, :4] = [0x80, 0xff, 8, 7]


def values(name: str, blocks: np.ndarray) -> np.ndarray:
    """The package has no decoder for Q1_0 and Q2_0 (ggml-quants.c: a bit is the sign, two bits are the code minus 1)."""
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if name == "Q1_0":
        return d * (2 * np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").astype(np.float32) - 1)
    if name == "Q2_0":
        codes = blocks[:, 2:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3
        return d * (codes.reshape(len(blocks), -1).astype(np.float32) - 1)
    return dequantize(blocks, T[name])


def main() -> None:
    OUT.mkdir(exist_ok=True)
    rng = np.random.default_rng(20240607)
    for name, (weights, size, _) in BLOCKS.items():
        blocks = rng.integers(0, 256, (K // weights, size), dtype=np.uint8)
        set_scales(name, blocks, rng)
        out = values(name, blocks).astype("<f4")
        assert np.isfinite(out).all(), name
        (OUT / f"{name.lower()}.blocks.bin").write_bytes(blocks.tobytes())
        (OUT / f"{name.lower()}.values.bin").write_bytes(out.tobytes())
    weights = rng.normal(0, 0.05, (4, 256)).astype(np.float32)
    weights[1] = np.abs(weights[1])
    weights[2] *= rng.choice([1e-3, 1, 30], 256).astype(np.float32)
    weights[3, :32] = 0
    weights[3, 32:64] = 0.125
    (OUT / "weights.f32.bin").write_bytes(weights.tobytes())
    for kind in ENCODED:
        (OUT / f"{kind.name.lower()}.encoded.bin").write_bytes(quantize(weights, kind).tobytes())


if __name__ == "__main__":
    main()
