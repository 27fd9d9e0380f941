#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/tokenizers: tiny tokenizers of every kind, and what the reference libraries make of fuzzed texts.

Needs tokenizers, sentencepiece and gguf (pip). Usage: make_tokenizer_goldens.py [SEED [TEXTS]]; the committed files are those
of the defaults. goldens.json has the texts, and for each case its base file, the keys of tokenizer.json that it
replaces, and hashes (FNV-1a folded to 16 bits) of the ids without special tokens and of the decoded text, text by text,
and of all ids with special tokens. What differs from ours by design is left out ("----").

The GGUF files are two of the SentencePiece models, with the keys that llama.cpp's converter writes for T5, and a
vocabulary of bytes for the longest match, as RWKV's, whose reference is the trie below.
"""
import base64
import copy
import json
import pathlib
import random
import sys

import gguf
import sentencepiece
import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 1
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 220
HERE = pathlib.Path(__file__).parent / "tokenizers"
MARK = "\u2581"

CORPUS = """It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a
wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this truth
is so well fixed in the minds of the surrounding families, that he is considered the rightful property of some one or
other of their daughters. "My dear Mr. Bennet," said his lady to him one day, "have you heard that Netherfield Park is
let at last?" Mr. Bennet replied that he had not. In 1813 it cost 18 shillings; in 2024, 7.99. Don't you'll they've we're.
def main(x, y):\n    return [x + 1, y * 2]  # code\n\tif (a == b) { c(); }
Größe, façade, naïve, Привет мир, 你好世界, こんにちは, 안녕하세요, مرحبا, नमस्ते 🙂 ½ ﬁ Ⅷ."""


def fnv(values):
    out = 2166136261
    for byte in values:
        out = (out ^ byte) * 16777619 & 0xFFFFFFFF
    return out


def hash_ids(ids):
    return fnv(",".join(map(str, ids)).encode())


def folded(hashes):
    return "".join("----" if h is None else f"{(h ^ h >> 16) & 0xFFFF:04x}" for h in hashes)


RANGES = [(0x20, 0x7E)] * 6 + [(0xA0, 0x17F), (0x300, 0x36F), (0x391, 0x3A1), (0x3B1, 0x3C9), (0x410, 0x44F),
          (0x5D0, 0x5EA), (0x621, 0x64A), (0x915, 0x939), (0x93E, 0x94D), (0xE01, 0xE3A), (0x1100, 0x1112),
          (0x1161, 0x1175), (0xAC00, 0xD7A3), (0x3041, 0x3096), (0x4E00, 0x9FA5), (0x2010, 0x2027), (0x2070, 0x2071),
          (0x2153, 0x215E), (0x2160, 0x217F), (0xFF01, 0xFF5E), (0xFB00, 0xFB06), (0x1F600, 0x1F64F), (0x1D400, 0x1D433)]
SPECIAL = ["<s>", "</s>", "<unk>", "[CLS]", "[MASK]", "<|end|>", "<tag>", " <tag> ", "word", "<|end|> ", "<0x41>", "##a"]
SPACES = [" ", "  ", "    ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u00a0", "\u3000", "\u2003", "\u200d", "\u200b", "\ufeff"]
WORDS = CORPUS.split()


def fuzz(rng):
    out = []
    for _ in range(rng.randint(0, 12)):
        kind = rng.random()
        if kind < 0.35:
            out.append(rng.choice(WORDS))
        elif kind < 0.6:
            out.append(rng.choice(SPACES[:8] if rng.random() < 0.7 else SPACES))
        elif kind < 0.65:
            out.append(rng.choice(SPECIAL))
        elif kind < 0.72:
            out.append(str(rng.randint(0, 10 ** rng.randint(1, 9))))
        elif kind < 0.77:
            out.append(rng.choice("'.,!?-_/#@$") * rng.randint(1, 4))
        else:
            low, high = rng.choice(RANGES)
            out.extend(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 4)))
        if rng.random() < 0.4:
            out.append(" ")
    return "".join(out)


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_bpe():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=420, initial_alphabet=ALPHABET, special_tokens=["<|end|>"]))
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok


def llama_bpe():
    tok = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=430, special_tokens=special))
    spec = json.loads(tok.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["id"] < 3]
    spec["pre_tokenizer"] = None
    spec["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    spec["post_processor"] = template(["<s>"], [1], [])
    return spec


def template(names, ids, after):
    item = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    single = [item(n) for n in names] + [{"Sequence": {"id": "A", "type_id": 0}}] + [item(n) for n, _ in after]
    table = {n: {"id": n, "ids": [i], "tokens": [n]} for n, i in list(zip(names, ids)) + after}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": table}


def clip_bpe():
    tok = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tok.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
                                           normalizers.Lowercase()])
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=260, special_tokens=["<unk>", "<s>", "</s>"],
                                                          end_of_word_suffix="</w>"))
    tok.decoder = decoders.BPEDecoder(suffix="</w>")
    tok.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    return tok


def wordpiece():
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    tok.normalizer = normalizers.BertNormalizer()
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.train_from_iterator([CORPUS], trainers.WordPieceTrainer(
        vocab_size=330, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    tok.decoder = decoders.WordPiece()
    tok.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tok


def unigram(charsmap):
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.train_from_iterator([CORPUS], trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>",
                                                              special_tokens=["<pad>", "</s>", "<unk>"]))
    tok.decoder = decoders.Metaspace()
    spec = json.loads(tok.to_str())
    spec["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    spec["post_processor"] = template([], [], [("</s>", 1)])
    return spec


def train_sentencepiece(name, **options):
    corpus = HERE / "corpus.tmp"
    corpus.write_text(CORPUS.replace("\n\t", "\n"), encoding="utf8")
    sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(HERE / name), minloglevel=2,
                                             hard_vocab_limit=False, num_threads=1, **options)
    corpus.unlink()
    (HERE / f"{name}.vocab").unlink()


def gguf_of_unigram(name):
    from sentencepiece import sentencepiece_model_pb2
    model = sentencepiece_model_pb2.ModelProto.FromString((HERE / f"{name}.model").read_bytes())
    kinds = gguf.TokenType  # SentencePiece numbers its types alike
    out = gguf.GGUFWriter(str(HERE / f"{name}.gguf"), "t5")
    out.add_tokenizer_model("t5")
    out.add_token_list([piece.piece.encode() for piece in model.pieces])
    out.add_token_scores([piece.score for piece in model.pieces])
    out.add_token_types([kinds(piece.type) for piece in model.pieces])
    out.add_unk_token_id(model.trainer_spec.unk_id)
    out.add_eos_token_id(model.trainer_spec.eos_id)
    out.add_add_eos_token(False)
    out.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    out.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    if model.normalizer_spec.precompiled_charsmap:
        out.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
    write(out)


def write(out):
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()


class LongestMatch:
    """The token that reaches farthest from here, then on behind it; every byte is a token."""

    def __init__(self, tokens):
        self.trie = {}
        for id, token in tokens.items():
            node = self.trie
            for byte in token:
                node = node.setdefault(byte, {})
            node[None] = id

    def encode(self, text):
        data, ids, at = text.encode(), [], 0
        while at < len(data):
            node, end = self.trie, at
            while end < len(data) and data[end] in node:
                node = node[data[end]]
                end += 1
                if None in node:
                    best = node[None], end
            ids.append(best[0])
            at = best[1]
        return ids


def gguf_of_bytes(name, rng):
    """Token 0 ends texts; then all bytes, then slices of the corpus, which may cut characters."""
    data, tokens = CORPUS.encode(), [bytes([byte]) for byte in range(256)]
    while len(tokens) < 700:
        begin = rng.randrange(len(data))
        token = data[begin:begin + rng.choice([2, 2, 3, 3, 4, 5, 7, 11])]
        tokens += [token] if token not in tokens else []
    out = gguf.GGUFWriter(str(HERE / f"{name}.gguf"), "rwkv7")
    out.add_tokenizer_model("rwkv")
    out.add_token_list([b"<s>"] + [repr(token)[2:-1].encode() for token in tokens])
    out.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * len(tokens))
    write(out)
    return dict(enumerate(tokens, 1))


def added(id, content, **flags):
    out = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
           "special": True}
    return out | flags


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def variants(specs):
    """name -> (base, replaced keys). A key "model.x" reaches into the model."""
    out = {name: (name, {}) for name in specs}
    end = specs["gpt2"]["added_tokens"]
    size = len(specs["gpt2"]["model"]["vocab"])
    more = end + [added(size, "<tag>", lstrip=True, rstrip=True), added(size + 1, "word", single_word=True, special=False),
                  added(size + 2, "<s>", normalized=True, special=False, rstrip=True)]
    out["gpt2_added"] = ("gpt2", {"added_tokens": more})
    out["gpt2_prefix"] = ("gpt2", {"pre_tokenizer": {**LEVEL, "add_prefix_space": True, "use_regex": True}})
    out["llama3"] = ("gpt2", {"pre_tokenizer": sequence(split(LLAMA3, "Isolated"), LEVEL), "model.ignore_merges": True,
                              "post_processor": {"type": "Sequence", "processors": [
                                  {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                                  template(["<|end|>"], [0], [])]}})
    for form in ["NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Nmt", "Lowercase"]:
        out[f"form_{form}"] = ("gpt2", {"normalizer": {"type": form}, "added_tokens": more})
    out["form_strip"] = ("gpt2", {"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\x{1F600}-\x{1F64F}]"}, "content": "_"}]}})
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
        for invert in [False, True]:
            out[f"split_{behavior}_{invert}"] = ("gpt2", {"pre_tokenizer": sequence(
                split(r"\w+|\s", behavior, invert), LEVEL)})
        out[f"punctuation_{behavior}"] = ("gpt2", {"pre_tokenizer": sequence(
            {"type": "Punctuation", "behavior": behavior}, {"type": "Digits", "individual_digits": behavior < "J"}, LEVEL)})
    patterns = {"class": r"[\p{Lu}\p{Han}&&[^\p{Han}]]|\p{Ll}{2,3}+|\h+", "empty": r"(?=(?:\d{3})+(?!\d))|\b",
                "lines": r"^\s*#|\w+$|.$", "case": r"(?i:THE|größe)", "property": r"\p{Punctuation}|\p{^L}\p{Letter}"}
    for name, pattern in patterns.items():
        out[f"regex_{name}"] = ("gpt2", {"pre_tokenizer": sequence(split(pattern, "Isolated"), LEVEL)})
    out["whitespace"] = ("gpt2", {"pre_tokenizer": sequence({"type": "Whitespace"}, LEVEL)})
    out["whitespace_split"] = ("gpt2", {"pre_tokenizer": sequence({"type": "WhitespaceSplit"}, LEVEL)})
    out["delimiter"] = ("gpt2", {"pre_tokenizer": sequence({"type": "CharDelimiterSplit", "delimiter": "e"}, LEVEL)})
    out["llama_normalized"] = ("llama", {"added_tokens": [dict(t, normalized=True) for t in specs["llama"]["added_tokens"]]})
    for scheme in ["first", "always", "never"]:
        for cut in [False, True]:
            space = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": cut}
            out[f"metaspace_{scheme}_{cut}"] = ("llama", {"normalizer": None, "pre_tokenizer": space, "decoder": space})
    out["llama_no_bytes"] = ("llama", {"model.byte_fallback": False})
    out["llama_no_fuse"] = ("llama", {"model.byte_fallback": False, "model.fuse_unk": False})
    out["bert_cased"] = ("bert", {"normalizer": {"type": "BertNormalizer", "clean_text": False, "handle_chinese_chars": True,
                                                 "strip_accents": None, "lowercase": False}})
    out["bert_accents"] = ("bert", {"normalizer": {"type": "BertNormalizer", "clean_text": True, "strip_accents": True,
                                                   "handle_chinese_chars": False, "lowercase": False}})
    out["unigram_bytes"] = ("unigram", {"normalizer": {"type": "NFKC"}, "decoder": {"type": "Sequence", "decoders": [
        {"type": "ByteFallback"}, {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}]}})
    return out


def decoded_hash(text, name):
    # Broken characters are replaced later here; control tokens found in the normalised text are still control tokens.
    return None if "\ufffd" in text or name == "llama_normalized" else fnv(text.encode())


def patched(spec, keys):
    out = copy.deepcopy(spec)
    for key, value in keys.items():
        (out["model"] if key.startswith("model.") else out)[key.removeprefix("model.")] = value
    return out


def main():
    HERE.mkdir(exist_ok=True)
    rng = random.Random(SEED)
    texts = ["", " ", "a", "  a  b ", "Hello world", "the  \n\n end", "x" * 30] + [fuzz(rng) for _ in range(COUNT)]
    rules = HERE / "rules.tsv"
    rules.write_text("".join(f"{' '.join(a.split('|'))}\t{b}\n" for a, b in [
        ("FB01", "66 69"), ("BD", "31 2044 32"), ("2167", "56 49 49 49"), ("A0", "20"), ("3000", "20"), ("9", "20"),
        ("65|301", "E9"), ("61|308", "E4"), ("200B", ""), ("FF21", "41"), ("2026", "2E 2E 2E")]))
    own = dict(normalization_rule_tsv=str(rules))
    train_sentencepiece("sp_bpe", model_type="bpe", vocab_size=500, byte_fallback=True, character_coverage=0.98,
                        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
                        user_defined_symbols=["<tag>", "word"])
    train_sentencepiece("sp_bpe_rules", model_type="bpe", vocab_size=250, **own)
    train_sentencepiece("sp_unigram", model_type="unigram", vocab_size=300, character_coverage=0.98,
                        user_defined_symbols=["<tag>"], **own)
    train_sentencepiece("sp_unigram_bytes", model_type="unigram", vocab_size=520, byte_fallback=True, add_dummy_prefix=False,
                        normalization_rule_name="identity", character_coverage=0.98)
    rules.unlink()
    proto = sentencepiece.SentencePieceProcessor(model_file=str(HERE / "sp_unigram.model")).serialized_model_proto()
    from sentencepiece import sentencepiece_model_pb2
    parsed = sentencepiece_model_pb2.ModelProto.FromString(proto)
    as_spec = lambda tok: tok if isinstance(tok, dict) else json.loads(tok.to_str())
    specs = {"gpt2": as_spec(byte_bpe()), "llama": llama_bpe(), "clip": as_spec(clip_bpe()), "bert": as_spec(wordpiece()),
             "unigram": unigram(parsed.normalizer_spec.precompiled_charsmap)}
    for name, spec in specs.items():
        spec["version"] = "1.0"
        (HERE / f"{name}.json").write_text(json.dumps(spec, ensure_ascii=False, separators=(",", ":")), encoding="utf8")
    cases = []
    for name, (base, keys) in variants(specs).items():
        tok = Tokenizer.from_str(json.dumps(patched(specs[base], keys)))
        bare = [tok.encode(t, add_special_tokens=False).ids for t in texts]
        full = [tok.encode(t).ids for t in texts]
        cases.append({"name": name, "base": f"{base}.json", "keys": keys, "bare": folded(map(hash_ids, bare)),
                      "full": fnv(b";".join(str(hash_ids(i)).encode() for i in full)),
                      "decoded": folded(decoded_hash(tok.decode(i), name) for i in bare)})
    for name in ["sp_bpe", "sp_bpe_rules", "sp_unigram", "sp_unigram_bytes"]:
        tok = sentencepiece.SentencePieceProcessor(model_file=str(HERE / f"{name}.model"))
        bare = [tok.encode(t) for t in texts]
        decoded = [None if tok.unk_id() in i or "\ufffd" in tok.decode(i) else fnv(tok.decode(i).encode()) for i in bare]
        cases.append({"name": name, "base": f"{name}.model", "keys": {}, "bare": folded(map(hash_ids, bare)), "full": 0,
                      "decoded": folded(decoded)})
    for name in ["sp_unigram", "sp_unigram_bytes"]:
        gguf_of_unigram(name)
        case = next(c for c in cases if c["name"] == name) | {"name": f"gguf_{name}", "base": f"{name}.gguf"}
        # Of GGUF's vocabularies llama.cpp takes user-defined tokens out before spaces are looked at, SentencePiece behind it.
        for key in ("bare", "decoded"):
            hashes = [case[key][4 * i:4 * i + 4] for i in range(len(texts))]
            case[key] = "".join("----" if "<tag>" in t else h for t, h in zip(texts, hashes))
        cases.append(case)
    tokens = gguf_of_bytes("rwkv", rng)
    bare = [LongestMatch(tokens).encode(t) for t in texts]
    decoded = [b"".join(tokens[i] for i in ids).decode() for ids in bare]
    assert decoded == texts
    cases.append({"name": "gguf_rwkv", "base": "rwkv.gguf", "keys": {}, "bare": folded(map(hash_ids, bare)), "full": 0,
                  "decoded": folded(fnv(t.encode()) for t in decoded)})
    (HERE / "goldens.json").write_text(json.dumps({"texts": texts, "cases": cases}, ensure_ascii=False,
                                                  separators=(",", ":")) + "\n", encoding="utf8")


main()
