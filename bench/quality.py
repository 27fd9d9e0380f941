#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What quantising costs: perplexity and divergence of our types and llama.cpp's, from the same floats."""
import argparse, math, pathlib, re, subprocess, sys

DESCRIPTION = """\
Dequantises MODEL.gguf to f32 (that is the source and the base of every comparison), quantises it with `nibble quantize` and
with llama-quantize, and prints a Markdown table: bits per weight over the whole file, perplexity, the logarithm of its
ratio to the source's (position by position, so its error is that of the difference), KL divergence from the source's
logits and how often the likeliest token is the same, with standard errors. All files are measured by `nibble
perplexity`. Both sides see the same calibration text: nibble by --calibrate (32 chunks of 256 tokens, 128 with
--feedback), llama.cpp by an importance matrix. What exists in --work is not made again. A source that was quantised
before favours types with the same grid; --spread undoes that. Needs the Python packages gguf and numpy."""
EXAMPLE = """\
example:
  bench/quality.py model.gguf --text wiki.test.raw --calibration other.txt --work /var/tmp/quality --llama ../llama.cpp/build/bin"""
OURS = ["--type q4_g128 --feedback", "--type auto --bits {q4_g128} --native"]
OURS += [f"--type auto --bits {{{name}}}" for name in ("Q3_K_M", "IQ4_XS", "Q4_0", "Q4_K_M")]
THEIRS = ["Q3_K_M", "IQ4_XS", "Q4_0", "Q4_K_M", "Q8_0"]


def run(*command):
    command = [str(part) for part in command]
    print("+", " ".join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def make(target, *command):
    """Runs the command with {} replaced by a temporary name, unless the target is there."""
    if not target.exists():
        # the programs want the usual ending
        part = target.with_name("part-" + target.name)
        run(*[str(piece).replace("{}", str(part)) for piece in command])
        part.rename(target)
    return target


def steps(tensor):
    """The distance between neighbouring values of each block, as an array that broadcasts against (blocks, values)."""
    import gguf, numpy
    name = tensor.tensor_type.name
    if name in ("F32", "F16", "BF16"):
        return None
    elements, size = gguf.GGML_QUANT_SIZES[tensor.tensor_type]
    blocks = tensor.data.reshape(-1, size)

    def halves(at):
        return blocks[:, at:at + 2].copy().view(numpy.float16).astype(numpy.float32)
    if name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        return numpy.abs(halves(0))
    if name in ("Q4_K", "Q5_K"):
        scales = gguf.quants.Q4_K.get_scale_min(blocks[:, 4:16])[0].astype(numpy.float32)
        return numpy.repeat(halves(0) * scales, 32, axis=1)
    if name == "Q6_K":
        return numpy.abs(numpy.repeat(halves(208) * blocks[:, 192:208].copy().view(numpy.int8).astype(numpy.float32), 16, axis=1))
    sys.exit(f"{tensor.name}: the steps of {name} are not known")


def write_floats(source, target, spread):
    import gguf, numpy
    random = numpy.random.default_rng(1)
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type", "general.quantization_version"):
            continue
        kind = field.types[0]
        writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        step = steps(tensor) if spread else None
        if step is not None:
            blocks = values.reshape(step.shape[0], -1)
            values = blocks + step * random.uniform(-0.5, 0.5, blocks.shape).astype(numpy.float32)
        writer.add_tensor(tensor.name, values.reshape([int(n) for n in reversed(tensor.shape)]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def bits_per_weight(path, weights):
    import gguf
    return 8 * (path.stat().st_size - gguf.GGUFReader(path).data_offset) / weights


def rounded_down(bits):
    return f"{math.floor(100 * bits) / 100}"


def measure(flags, path, base):
    log = path.with_suffix(".txt")
    if not log.exists():
        log.write_text(run(flags.nibble, "perplexity", "-m", path, "--kl-base", base))
    out = log.read_text()

    def find(name):
        found = re.search(rf"^{re.escape(name)} +(\S+) \+/- (\S+)", out, re.M)
        return float(found[1]), float(found[2])
    return find("PPL"), find("ln(PPL / PPL of the base)"), find("KL divergence"), find("Same top token")


def main():
    parser = argparse.ArgumentParser(description=DESCRIPTION, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--text", required=True, help="to measure on")
    parser.add_argument("--calibration", required=True, help="another text")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="folder for what is made")
    parser.add_argument("--nibble", default="build/release/nibble")
    parser.add_argument("--llama", type=pathlib.Path, help="folder of llama-quantize and llama-imatrix; for --theirs")
    parser.add_argument("--chunks", type=int, default=12, help="of 512 tokens, to measure on")
    parser.add_argument("--calibration-chunks", type=int, default=16, help="of 512 tokens, for llama.cpp")
    parser.add_argument("--spread", action="store_true", help="move each weight by up to half a step, so that the source lies on no grid")
    parser.add_argument("--ours", nargs="*", default=OURS, help="flags of nibble quantize; {NAME} is the size of type "
                        "NAME, theirs or one of ours before, in bits per weight, rounded down")
    parser.add_argument("--theirs", nargs="*", default=THEIRS, help="types of llama-quantize; may be none")
    flags = parser.parse_args()
    if flags.theirs and flags.llama is None:
        parser.error("--theirs needs --llama")
    flags.work.mkdir(parents=True, exist_ok=True)
    stem = flags.model.stem + (".spread" if flags.spread else "")

    def file(name):
        return flags.work / f"{stem}.{name}"

    source = file("f32.gguf")
    if not source.exists():
        part = source.with_name("part-" + source.name)
        write_floats(flags.model, part, flags.spread)
        part.rename(source)
    import gguf
    weights = sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(source).tensors)
    base = make(file("kld"), flags.nibble, "perplexity", "-m", source, "-f", flags.text, "--chunks", flags.chunks, "--save-logits", "{}")
    files = [("source, f32", source)]
    sizes = {}
    if flags.theirs:
        eight = make(file("Q8_0.gguf"), flags.llama / "llama-quantize", source, "{}", "Q8_0")
        matrix = make(file("imatrix.gguf"), flags.llama / "llama-imatrix", "-m", eight, "-f", flags.calibration, "-o", "{}",
                      "-c", 512, "--chunks", flags.calibration_chunks, "--no-ppl")
    for kind in flags.theirs:
        path = make(file(f"{kind}.gguf"), flags.llama / "llama-quantize", "--imatrix", matrix, source, "{}", kind)
        sizes[kind] = rounded_down(bits_per_weight(path, weights))
        files.append((f"llama.cpp {kind}", path))
    calibrate = ["--calibrate", flags.calibration]
    for kind in flags.ours:
        name = kind.format_map(sizes)
        path = file(re.sub("[^a-z0-9._]+", "-", name.lower()).strip("-") + ".gguf")
        make(path, flags.nibble, "quantize", source, "{}", *name.split(), *calibrate)
        sizes[name.split("--type ")[-1].split()[0]] = rounded_down(bits_per_weight(path, weights))
        files.append((f"nibble `{name}`", path))
    rows = []
    for name, path in files:
        (perplexity, _), (ratio, ratio_error), (divergence, divergence_error), (top, top_error) = measure(flags, path, base)
        rows.append((bits_per_weight(path, weights),
                     f"{name} | {{:.2f}} | {perplexity:.2f} | {ratio:.3f} ± {ratio_error:.3f} | {divergence:.4f} ± {divergence_error:.4f} | {top:.1f} ± {top_error:.1f}"))
        print(f"{rows[-1][0]:.3f}", rows[-1][1], file=sys.stderr, flush=True)
    print("| file | bits per weight | perplexity | ln of its ratio | KL divergence | same top token, % |\n|---|--:|--:|--:|--:|--:|")
    for bits, row in sorted(rows):
        print("|", row.format(bits), "|")


if __name__ == "__main__":
    main()
