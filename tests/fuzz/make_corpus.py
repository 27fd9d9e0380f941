#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of the fuzz targets into OUT/<target>/: small files of the tests' data and a few made here."""
import json, pathlib, struct, sys

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
LARGEST = 100_000  # bytes: fuzzing is slow above


def text(value):
    return struct.pack("<Q", len(value)) + value


def gguf(values, tensors, data):
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, kind, raw in values:
        out += text(key) + struct.pack("<I", kind) + raw
    for name, sizes, kind, offset in tensors:
        out += text(name) + struct.pack("<I", len(sizes)) + b"".join(struct.pack("<Q", n) for n in sizes) + struct.pack("<IQ", kind, offset)
    return out + b"\0" * (-len(out) % 32) + data


def strings(values):
    return struct.pack("<IQ", 8, len(values)) + b"".join(text(value) for value in values)


def small_ggufs():
    words = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % i for i in range(256)] + [b"\xe2\x96\x81", b"a", b"b", b"\xe2\x96\x81a", b"ab"]
    spm = [(b"general.architecture", 8, text(b"llama")), (b"tokenizer.ggml.model", 8, text(b"llama")),
           (b"tokenizer.ggml.tokens", 9, strings(words)), (b"tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, len(words)) + struct.pack("<f", -1) * len(words)),
           (b"tokenizer.ggml.token_type", 9, struct.pack("<IQ", 5, len(words)) + b"".join(struct.pack("<i", kind) for kind in [2, 3, 3] + [6] * 256 + [1] * 5)),
           (b"tokenizer.ggml.bos_token_id", 4, struct.pack("<I", 1))]
    sizes = [(b"llama." + key, 4, struct.pack("<I", number)) for key, number in
             [(b"block_count", 1), (b"embedding_length", 64), (b"attention.head_count", 4), (b"feed_forward_length", 128), (b"context_length", 64)]]
    eps = [(b"llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5))]
    letters = [bytes([c]) for c in range(97, 123)]
    bpe = [(b"general.architecture", 8, text(b"qwen2")), (b"tokenizer.ggml.model", 8, text(b"gpt2")), (b"tokenizer.ggml.pre", 8, text(b"qwen2")),
           (b"tokenizer.ggml.tokens", 9, strings(letters + [b"ab", b"abc"])), (b"tokenizer.ggml.merges", 9, strings([b"a b", b"ab c"]))]
    yield "spm", gguf(spm + sizes + eps, [(b"token_embd.weight", [64, 4], 0, 0)], bytes(1024))
    yield "bpe", gguf(bpe, [], b"")
    for name, kind in (("unigram", b"t5"), ("wordpiece", b"bert"), ("rwkv", b"rwkv")):
        yield name, gguf([(key, t, text(kind) if key == b"tokenizer.ggml.model" else raw) for key, t, raw in spm], [], b"")
    yield "types", gguf([(b"k%d" % i, i, bytes(8)[:n]) for i, n in enumerate([1, 1, 2, 2, 4, 4, 4, 1, 8])] + [(b"l", 10, bytes(8))],
                        [(b"t%d" % i, [256], i, 32 * i) for i in (0, 2, 12)], bytes(4096))


def safetensors(header, data=b""):
    raw = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(raw)) + raw + data


def small_safetensors():
    kinds = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for kind, size in kinds.items():
        header[kind] = {"dtype": kind, "shape": [2, 3], "data_offsets": [at, at + 6 * size]}
        at += 6 * size
    yield "types", safetensors(header, bytes(at))
    yield "empty", safetensors({})
    yield "scalar", safetensors({"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, bytes(4))
    yield "overlap", safetensors({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}, bytes(8))


# a message of field `number`: SentencePiece's ModelProto is made of these
def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def sentencepiece(kind):
    pieces = [(b"<unk>", 2), (b"<s>", 3), (b"</s>", 3)] + [(b"<0x%02X>" % i, 6) for i in range(256)]
    pieces += [(piece.encode(), 1) for piece in ("▁", "a", "b", "▁a", "ab", "▁ab")]
    out = b"".join(field(1, field(1, piece) + field(2, -float(i)) + field(3, t)) for i, (piece, t) in enumerate(pieces))
    return out + field(2, field(3, kind) + field(40, 0) + field(41, 1) + field(42, 2)) + field(3, field(1, b"identity") + field(3, 1) + field(4, 1))


JINJA = ["{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m['content'] | trim }}\n{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}",
         "{% macro f(x, y=2) %}{{ x ~ y }}{% endmacro %}{{ f(1) }}{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}",
         "{%- for t in tools %}{{ t | tojson(indent=2) }}{% else %}none{% endfor -%}{{ messages[-1:] | length }}{{ range(3) | list | join(', ') }}",
         "{{ 'a' if messages[0]['role'] == 'system' and not x is defined else raise_exception('no') }}{# c #}{% generation %}b{% endgeneration %}",
         "{% for i in range(1000000000) %}{{ i }}{% endfor %}", "{{ ('a' * 1000000) * 1000000 }}", "{{ " + "(" * 300 + "1" + ")" * 300 + " }}"]


def quantized(folder):
    """As the target reads it: of large tensors only the first bytes, which it repeats."""
    raw = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    lines, data = [json.dumps(json.loads((folder / "config.json").read_text()))], b""
    for name, tensor in json.loads(raw[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + offset for offset in tensor["data_offsets"])
        values = raw[begin:end] if end - begin <= 512 else raw[begin:begin + 32]
        lines.append(f"{name} {tensor['dtype']} {','.join(str(n) for n in tensor['shape']) or '-'} {len(values)}")
        data += values
    return "\n".join(lines).encode() + b"\n\n" + data


def imatrix_entry(name, runs, values):
    return struct.pack("<i", len(name)) + name + struct.pack("<ii", runs, len(values)) + struct.pack(f"<{len(values)}f", *values)


def small_imatrices():
    entries = [imatrix_entry(b"blk.0.ffn_up.weight", 4, [1, 2, 0.5, 8]), imatrix_entry(b"output.weight", 0, [1])]
    yield "old", struct.pack("<i", 2) + b"".join(entries) + struct.pack("<i", 4)
    yield "older", struct.pack("<i", 1) + entries[0]
    yield "many", struct.pack("<i", 1 << 20) + entries[0]
    yield "gguf", gguf([(b"general.type", 8, text(b"imatrix")), (b"imatrix.chunk_count", 4, struct.pack("<I", 3))],
                       [(b"a.in_sum2", [4, 2], 0, 0), (b"a.counts", [1, 2], 0, 32)], struct.pack("<8f", *range(8)) + struct.pack("<2f", 2, 0) + bytes(24))


def seeds():
    for path in sorted((DATA / "models").glob("*.gguf")) + sorted((DATA / "tokenizers").rglob("*.gguf")):
        yield "gguf", path.name, path.read_bytes()
    for name, data in small_ggufs():
        yield "gguf", name, data
    for path in sorted(DATA.rglob("*.safetensors")):
        yield "safetensors", path.parent.name + path.name, path.read_bytes()
    for name, data in small_safetensors():
        yield "safetensors", name, data
    for path in sorted(DATA.rglob("*.index.json")):
        yield "index", path.parent.name, path.read_bytes()
    for name, target in (("one", "a.safetensors"), ("up", "../a.safetensors"), ("absolute", "/etc/passwd"), ("absent", "b.safetensors")):
        yield "index", name, json.dumps({"metadata": {"total_size": 8}, "weight_map": {"a": target}}).encode()
    for path in sorted(DATA.rglob("config.json")):
        yield "config", path.parent.name, path.read_bytes()
    for path in sorted(DATA.rglob("tokenizer.json")) + sorted((DATA / "tokenizers").glob("*.json")):
        yield "tokenizer_json", path.parent.name + path.name, path.read_bytes()
    for path in sorted(DATA.rglob("*.model")):
        yield "tokenizer_model", path.parent.name + path.name, path.read_bytes()
    for kind in (1, 2):
        yield "tokenizer_model", f"small{kind}", sentencepiece(kind)
    for i, template in enumerate(JINJA):
        yield "jinja", str(i), template.encode()
    for i, case in enumerate(json.loads((DATA / "jinja_cases.json").read_text(encoding="utf-8"))):
        yield "jinja", f"case{i}", case.encode()
    for path in sorted(DATA.rglob("*.jinja")):
        yield "jinja", path.parent.name, path.read_bytes()
    for path in sorted(DATA.rglob("tokenizer_config.json")):
        yield "tokenizer_config", path.parent.name, path.read_bytes()
    for name, value in (("text", "{{ messages[0].content }}"), ("list", [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]), ("number", 1)):
        yield "tokenizer_config", name, json.dumps({"chat_template": value, "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False},
                                                    "add_bos_token": True, "added_tokens_decoder": {"1": {"content": "<s>", "special": True}}}).encode()
    for path in sorted((DATA / "checkpoints").iterdir()):
        yield "quantized", path.name, quantized(path)
    for name, data in small_imatrices():
        yield "imatrix", name, data
    row = struct.pack("<ff6H", 0.5, -3, 1, 2, 3, 4, 5, 0)
    yield "logits", "small", b"_logits_" + struct.pack("<iii8i", 4, 5, 2, *range(8)) + 2 * row
    yield "logits", "negative", b"_logits_" + struct.pack("<iii", -4, 5, 1 << 30)


def main():
    out = pathlib.Path(sys.argv[1])
    counts = {}
    for target, name, data in seeds():
        if len(data) > LARGEST:
            continue
        (out / target).mkdir(parents=True, exist_ok=True)
        (out / target / name).write_bytes(data)
        counts[target] = counts.get(target, 0) + 1
    print(", ".join(f"{target}: {count}" for target, count in counts.items()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__ + "\nusage: make_corpus.py OUT")
    main()
