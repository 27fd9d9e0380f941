#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/models/: tiny random models of Hugging Face transformers and the logits that it gives for them.

Per golden of model_goldens.py: NAME/ (config.json, model.safetensors), NAME.gguf (made of that folder by the
converter of llama.cpp), both with matrices in f16, which holds these weights exactly, NAME.tokens.npy (the prompt, int32) and
NAME.logits.npy (float32, one row per token). The name begins with the architecture.

    pip install torch==2.13.0 transformers==5.23.0 numpy safetensors
    python3 make_model_goldens.py --llama-cpp PATH_TO_ITS_SOURCES [--seed N] [--scale N] [--out FOLDER] [NAME ...]

The tests also run over another folder: NIBBLE_MODEL_GOLDENS=FOLDER test_e2e --gtest_filter='Models/*'.
"""
import argparse
import contextlib
import io
import json
import logging
import pathlib
import shutil
import sys
import tempfile
import zlib

import numpy as np
import safetensors.torch
import torch
import transformers

import model_goldens


def randomize(model, golden, seed):
    """Norms away from 1, biases away from 0, matrices that keep the size of what they multiply: attention is far from
    uniform and as strong as the rest. Values are those of f16, so that files in f16 are exact."""
    g = torch.Generator().manual_seed(seed)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    embeddings = golden.embedding or (2 / model.get_input_embeddings().weight.shape[1] ** 0.5 if tied else 1.0)
    transposed = {id(m.weight) for m in model.modules() if type(m).__name__ == "Conv1D"}
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() == 3:  # one matrix per expert; gpt-oss has them transposed
                p.copy_(noise / p.shape[1 if golden.transposed_experts else 2] ** 0.5)
            elif p.dim() == 2 and "norm" not in name and not name.endswith("bias"):
                embedding = any(key in name for key in ("emb", "wte", "wpe"))
                p.copy_(noise * (embeddings if embedding else 1 / p.shape[0 if id(p) in transposed else 1] ** 0.5))
            elif name.endswith("bias"):
                p.copy_(noise * 0.3)
            else:
                p.copy_(noise * 0.3 + (0 if golden.norm_plus_one else 1))
            p.copy_(p.half().float())
        for name, p in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                p.copy_((torch.randn(p.shape, generator=g) * 0.2).half().float())


class LlamaCpp:
    """Its converter and its gguf package, kept quiet and away from tokenizers: these models have none."""

    def __init__(self, path):
        sys.path.insert(0, str(path))
        sys.path.insert(0, str(path / "gguf-py"))
        logging.disable(logging.WARNING)
        import conversion
        import gguf
        self.conversion, self.gguf = conversion, gguf

    def convert(self, folder, outfile, golden):
        c = self.conversion
        hparams = c.ModelBase.load_hparams(folder, False) | golden.gguf_config
        model_class = c.get_model_class(c.get_model_architecture(hparams, c.ModelType.TEXT))
        keys = golden.gguf_keys

        class Converter(model_class):
            model_arch = model_class.model_arch

            def set_vocab(self):
                pass

            def modify_tensors(self, tensor, name, layer):
                passing = [gguf for theirs, gguf in golden.gguf_names.items() if theirs in name]
                if passing:
                    yield f"blk.{layer}.{passing[0]}.weight", tensor
                elif name.startswith(("blk.", "token_embd.", "output.", "output_norm.")):  # baichuan maps names, then calls itself
                    yield name, tensor
                else:  # what a generator returns is tensors too (the stacked norms of stablelm)
                    yield from (yield from super().modify_tensors(tensor, name, layer)) or ()

            def set_gguf_parameters(self):
                super().set_gguf_parameters()
                for method, value in keys.items():
                    getattr(self.gguf_writer, "add_" + method)(value)
                for key in golden.gguf_without:
                    for values in self.gguf_writer.kv_data:
                        values.pop(f"{self.gguf_writer.arch}.attention.{key}", None)

        with torch.inference_mode():
            converter = Converter(folder, self.gguf.LlamaFileType.MOSTLY_F16, outfile, eager=True, model_name=outfile.stem,
                                  hparams=hparams)
            with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
                converter.write()

    def write(self, folder, outfile, golden):
        """For what the converter does not know."""
        w = self.gguf.GGUFWriter(str(outfile), golden.gguf_arch)
        w.add_name(outfile.stem)
        for method, value in golden.gguf_keys.items():
            if hasattr(w, "add_" + method):
                getattr(w, "add_" + method)(value)
            else:
                w.add_bool(f"{golden.gguf_arch}.{method}", value)
        for name, tensor in golden.gguf_tensors(safetensors.torch.load_file(folder / "model.safetensors")).items():
            data = tensor.contiguous().numpy()
            w.add_tensor(name, data.astype(np.float16 if data.ndim == 2 else np.float32))
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()



def save_folder(model, golden, folder):
    """As transformers saves it, or under the names of the model's own code where transformers has no such class."""
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors = golden.rename(tensors) if golden.rename is not None else tensors
    tensors = {name: (t if t.dim() == 1 or golden.f32 else t.half()).contiguous() for name, t in tensors.items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config = golden.edit_config(config) if golden.edit_config is not None else config
    path.write_text(json.dumps(config, indent=1) + "\n")


def logits_of(model, golden, tokens):
    with torch.no_grad():
        extra = golden.forward_arguments(golden.tokens) if golden.forward_arguments is not None else {}
        return model(torch.from_numpy(tokens)[None].long(), **extra).logits[0].numpy()


def make(golden, converter, out, seed):
    seed = seed + zlib.crc32(golden.name.encode()) % 1000
    torch.manual_seed(seed)
    model = golden.model_class._from_config(golden.config, attn_implementation=golden.attention).eval().float()
    randomize(model, golden, seed)
    vocab = model.get_input_embeddings().weight.shape[0]
    tokens = np.random.default_rng(seed).integers(0, vocab, golden.tokens).astype(np.int32)
    tokens = golden.prompt(tokens) if golden.prompt is not None else tokens
    folder = out / golden.name
    shutil.rmtree(folder, ignore_errors=True)
    save_folder(model, golden, folder)
    if golden.before_forward is not None:
        golden.before_forward(model)
    logits = logits_of(model, golden, tokens)
    # what rows owe to the tokens before them: only attention carries that
    others = (tokens + np.arange(golden.tokens) % 2).astype(np.int32) % vocab
    others = golden.prompt(others) if golden.prompt is not None else others
    moved = np.abs(logits_of(model, golden, others) - logits)[::2].max() / (logits.max() - logits.min())
    assert moved > 0.05, f"{golden.name}: attention moves logits by only {moved:.3f} of their range"
    outfile = out / f"{golden.name}.gguf"
    with tempfile.TemporaryDirectory() as temporary:
        copy = pathlib.Path(temporary) / golden.name
        shutil.copytree(folder, copy)
        # the size of the vocabulary is all that some converters want of it
        pieces = {str(i): i for i in range(vocab)}
        (copy / "tokenizer.json").write_text(json.dumps({"model": {"vocab": pieces}, "added_tokens": []}))
        outfile.unlink(missing_ok=True)
        if not golden.gguf:
            pass
        elif golden.gguf_tensors is not None:
            converter.write(folder, outfile, golden)
        else:
            converter.convert(copy, outfile, golden)
    np.save(out / f"{golden.name}.tokens.npy", tokens)
    np.save(out / f"{golden.name}.logits.npy", logits.astype(np.float32))
    size = sum(f.stat().st_size for f in (outfile,) if golden.gguf) + sum(f.stat().st_size for f in folder.iterdir())
    print(f"{golden.name:20} logits {logits.min():8.3f} to {logits.max():7.3f}, {moved:.2f} of it by attention, "
          f"{size // 1024} KiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="goldens to make; all of them without")
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=int, default=1, help="widths and heads times this")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "models")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True, parents=True)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    converter = LlamaCpp(args.llama_cpp)
    for golden in model_goldens.goldens(args.scale):
        if not args.names or golden.name in args.names:
            make(golden, converter, args.out, args.seed)


main()
