#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the small model of this repository and writes austen.gguf (LLaMA architecture, Q8_0).

Text: the six novels of Jane Austen (public domain) as Debian's package r-cran-janeaustenr ships them:
    apt-get install r-cran-janeaustenr
    Rscript -e 'library(janeaustenr); b <- austen_books(); f <- file("austen.txt", "w");
                for (n in levels(b$book)) writeLines(b$text[b$book == n], f); close(f)'
    pip install torch numpy tokenizers gguf
    python3 models/tiny/train.py austen.txt models/tiny/austen.gguf
Rotary embedding uses adjacent pairs, as GGUF files of this architecture do, so nothing is permuted on export.
"""
import argparse
import math
import re
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

WIDTH, LAYERS, HEADS, KV_HEADS, FFN, VOCAB, CONTEXT = 192, 6, 6, 2, 512, 2048, 256
HEAD_DIM = WIDTH // HEADS
THETA, EPS = 10000.0, 1e-5
END = "<|endoftext|>"


def paragraphs(path):
    """Unwraps the hard line breaks of the books; one paragraph a line, chapters begin with END."""
    out = []
    for block in re.split(r"\n\s*\n", open(path, encoding="utf-8").read()):
        text = " ".join(block.split()).replace("_", "").replace("--", "—")
        if re.fullmatch(r"(CHAPTER|Chapter|VOLUME|Volume)\b.{0,20}", text):
            out.append(None)
        elif len(text) > 40:
            out.append(text)
    chapters, current = [], []
    for p in out + [None]:
        if p is None:
            if current:
                chapters.append("\n\n".join(current))
            current = []
        else:
            current.append(p)
    return chapters


def train_tokenizer(chapters):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # the GPT-2 pattern
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(chapters, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tok


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * self.weight


def rope(x, cos, sin):  # (batch, heads, time, head_dim), adjacent pairs
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn_norm, self.ffn_norm = Norm(), Norm()
        self.attn_q = nn.Linear(WIDTH, HEADS * HEAD_DIM, bias=False)
        self.attn_k = nn.Linear(WIDTH, KV_HEADS * HEAD_DIM, bias=False)
        self.attn_v = nn.Linear(WIDTH, KV_HEADS * HEAD_DIM, bias=False)
        self.attn_output = nn.Linear(HEADS * HEAD_DIM, WIDTH, bias=False)
        self.ffn_gate = nn.Linear(WIDTH, FFN, bias=False)
        self.ffn_up = nn.Linear(WIDTH, FFN, bias=False)
        self.ffn_down = nn.Linear(FFN, WIDTH, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        n = self.attn_norm(x)
        q = rope(self.attn_q(n).view(b, t, HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        k = rope(self.attn_k(n).view(b, t, KV_HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        v = self.attn_v(n).view(b, t, KV_HEADS, HEAD_DIM).transpose(1, 2)
        k, v = (z.repeat_interleave(HEADS // KV_HEADS, 1) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_output(y.transpose(1, 2).reshape(b, t, -1))
        n = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(n)) * self.ffn_up(n))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embd = nn.Embedding(VOCAB, WIDTH)
        self.blk = nn.ModuleList(Block() for _ in range(LAYERS))
        self.output_norm = Norm()
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02 if "embd" in name else 1 / math.sqrt(p.shape[1]))
                if name.endswith(("attn_output.weight", "ffn_down.weight")):
                    p.data /= math.sqrt(2 * LAYERS)
        angle = torch.arange(CONTEXT)[:, None] * THETA ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, ids):
        x = self.token_embd(ids)
        cos, sin = self.cos[:ids.shape[1]], self.sin[:ids.shape[1]]
        for block in self.blk:
            x = block(x, cos, sin)
        return self.output_norm(x) @ self.token_embd.weight.T


def train(model, ids, minutes, batch, rate):
    data = torch.tensor(ids)
    held = len(data) * 98 // 100
    train_data, test_data = data[:held], data[held:]
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
                            lr=rate, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(1)
    start, step, mean = time.process_time(), 0, None
    while True:
        done = (time.process_time() - start) / (60 * minutes)
        if done >= 1:
            break
        for group in opt.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * (0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2)
        at = torch.randint(len(train_data) - CONTEXT - 1, (batch,), generator=generator)
        rows = torch.stack([train_data[i:i + CONTEXT + 1] for i in at])
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        step += 1
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"step {step}, {100 * done:.0f} % of the time, loss {mean:.3f}", flush=True)
    with torch.no_grad():
        n = (len(test_data) - 1) // CONTEXT
        rows = test_data[:n * CONTEXT].view(n, CONTEXT)
        logits = model(rows[:, :-1])
        held_out = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).item()
    print(f"{step} steps, held-out loss {held_out:.3f} per token", flush=True)


def export(model, tok, path):
    import gguf
    import json
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("nibble austen")
    w.add_license("Apache-2.0")
    w.add_description("Trained by models/tiny/train.py on the novels of Jane Austen (public domain)")
    w.add_block_count(LAYERS)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(WIDTH)
    w.add_feed_forward_length(FFN)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(EPS)
    w.add_rope_dimension_count(HEAD_DIM)
    w.add_rope_freq_base(THETA)
    w.add_vocab_size(VOCAB)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    model_json = json.loads(tok.to_str())["model"]
    tokens = [t for t, _ in sorted(model_json["vocab"].items(), key=lambda kv: kv[1])]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model_json["merges"]]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.CONTROL if t == END else gguf.TokenType.NORMAL for t in tokens])
    w.add_token_merges(merges)
    w.add_bos_token_id(0)
    w.add_eos_token_id(0)
    w.add_add_bos_token(True)
    for name, p in model.named_parameters():
        data = p.detach().numpy().astype(np.float32)
        if data.ndim == 2:
            q = gguf.quants.quantize(data, gguf.GGMLQuantizationType.Q8_0)
            w.add_tensor(name, q, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            w.add_tensor(name, data)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def sample(model, tok, prompt, count, temperature=0.7):
    ids = [0] + tok.encode(prompt).ids
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for _ in range(count):
            logits = model(torch.tensor([ids[-CONTEXT:]]))[0, -1] / temperature
            top, index = logits.topk(40)
            ids.append(index[torch.multinomial(top.softmax(0), 1, generator=generator)].item())
    return tok.decode(ids)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("text")
    a.add_argument("out")
    a.add_argument("--minutes", type=float, default=40, help="CPU time for training, all threads added up")
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--batch", type=int, default=8)
    a.add_argument("--rate", type=float, default=3e-3)
    args = a.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    chapters = paragraphs(args.text)
    tok = train_tokenizer(chapters)
    ids = []
    for chapter in chapters:
        ids += [0] + tok.encode(chapter).ids
    model = Model()
    print(f"{len(chapters)} chapters, {len(ids)} tokens, "
          f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    train(model, ids, args.minutes, args.batch, args.rate)
    model.eval()
    export(model, tok, args.out)
    for prompt in ("It was", "Elizabeth", "The weather"):
        print("---\n" + sample(model, tok, prompt, 60))


if __name__ == "__main__":
    main()
