// SPDX-License-Identifier: Apache-2.0
// nibble quantize: a model in fewer bits.
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>

#include "apps/command.h"
#include "apps/flags.h"
#include "apps/terminal.h"
#include "models/imatrix.h"
#include "models/quantize_file.h"
#include "models/quantize_folder.h"
#include "quant/row_types.h"
#include "tensor/check.h"

namespace nibble::cli {

namespace {

using models::QuantizeReport;

struct QuantizeFlags {
  std::string from, to, format = "q4_g64", embedding, output, keep, text, split;
  std::string size, types;
  std::vector<std::string> rules, plugins;
  models::QuantizeOptions options;
  double bits = 0;
  bool feedback = false, nearest = false, dry_run = false, native = false;
};

double bits_per_weight(uint64_t bytes, double weights) {
  return weights > 0 ? 8 * static_cast<double>(bytes) / weights : 0;
}

void print_tensor(const std::string& name, const Shape& shape, const std::string& from, const std::string& to,
                  uint64_t bytes) {
  std::printf("%-40s %-16s %-8s -> %-8s %10s %7.3f bits\n", printable(name).c_str(), to_string(shape).c_str(),
              from.c_str(), to.c_str(), human_bytes(bytes).c_str(),
              bits_per_weight(bytes, static_cast<double>(shape.elements())));
}

/// "30 matrices quantised, 2 written as f32".
std::string matrices_text(int quantised, const std::map<std::string, int>& others) {
  std::string text = message(quantised, " matrices quantised");
  for (const auto& [type, count] : others) text += message(", ", count, " written as ", type);
  return text;
}

void print_plan_sizes(size_t tensors, const std::string& matrices, uint64_t out, uint64_t in, double weights) {
  std::printf("%zu tensors, %s: %s, was %s; %.3f bits per weight\n", tensors, matrices.c_str(),
              human_bytes(out).c_str(), human_bytes(in).c_str(), bits_per_weight(out, weights));
}

int print_plan(const QuantizeReport& plan) {
  double weights = 0;
  for (const models::PlannedTensor& t : plan.tensors) {
    weights += static_cast<double>(t.shape.elements());
    print_tensor(t.name, t.shape, std::string(t.from->name),
                 std::string(t.to->name) + (t.whole_rows ? ", one scale a row" : ""), t.bytes_out);
  }
  if (plan.divergence > 0) std::printf("expected divergence of the predictions: %.4f\n", plan.divergence);
  print_plan_sizes(plan.tensors.size(), matrices_text(plan.quantised, plan.kept), plan.bytes_out, plan.bytes_in,
                   weights);
  return 0;
}

/// "500M", "4G", or bytes.
uint64_t parse_size(const std::string& text) {
  size_t end = 0;
  uint64_t size = 0;
  try {
    size = std::stoull(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  const std::string unit = text.substr(end);
  const uint64_t scale = unit.empty() ? 1 : unit == "K" ? 1000 : unit == "M" ? 1000000 : unit == "G" ? 1000000000 : 0;
  NIBBLE_CHECK(end > 0 && text[0] != '-' && scale > 0 && size > 0 && size <= (uint64_t{1} << 50) / scale, "size '",
               text, "': expected bytes, or as in 500M or 4G");
  return size * scale;
}

void show_step(std::string_view what, int done, int total) {
  std::fprintf(stderr, "\r\033[K%d of %d: %s", done, total, printable(what).c_str());
}

void print_sizes(const std::string& to, uint64_t out, uint64_t in, double weights, const std::string& matrices) {
  std::printf("%s: %s, was %s; %.3f bits per weight; %s\n", to.c_str(), human_bytes(out).c_str(),
              human_bytes(in).c_str(), bits_per_weight(out, weights), matrices.c_str());
}

void print_error(double squared_error, double squares) {
  if (squares > 0) std::printf("error of the weights: %.3f %%\n", 100 * std::sqrt(squared_error / squares));
}

void refuse_flags_of_auto(const QuantizeFlags& flags) {
  NIBBLE_CHECK(flags.bits == 0 && flags.size.empty() && flags.types.empty() && !flags.native,
               "--bits, --size, --types and --native belong to --type auto");
}

int print_folder_plan(const models::FolderReport& plan) {
  for (const models::FolderTensor& t : plan.tensors) print_tensor(t.name, t.shape, t.from, t.to, t.bytes_out);
  print_plan_sizes(plan.tensors.size(), matrices_text(plan.quantised, plan.floats), plan.bytes_out, plan.bytes_in,
                   plan.weights);
  return 0;
}

int print_folder(const std::string& to, const models::FolderReport& report) {
  if (isatty(STDERR_FILENO) != 0) std::fputs("\r\033[K", stderr);
  print_sizes(to, report.bytes_out, report.bytes_in, report.weights, matrices_text(report.quantised, report.floats));
  print_error(report.squared_error, report.squares);
  return 0;
}

/// f32, f16 or bf16; nullopt: keep, or nothing.
std::optional<DType> parse_float_type(const char* flag, const std::string& type) {
  if (type == "keep" || type.empty()) return std::nullopt;
  for (const DType known : {DType::f32, DType::f16, DType::bf16})
    if (type == name(known)) return known;
  fail(flag, " ", type, ": expected f16, bf16, f32 or keep");
}

/// Of a folder of floats.
bool is_float_type(const std::string& type) {
  return type == "keep" || type == "f32" || type == "f16" || type == "bf16";
}

int write_floats(const QuantizeFlags& flags, const models::QuantizeStep& step) {
  NIBBLE_CHECK(flags.rules.empty() && flags.output.empty() && flags.keep.empty() && flags.text.empty() &&
                   flags.options.importance.empty(),
               "--type ", flags.format,
               ": a folder of floats has one type; expected no types of single tensors and nothing to calibrate with");
  models::UnpackOptions options{.matrices = parse_float_type("--type", flags.format),
                                .threads = flags.options.threads,
                                .split_bytes = 0};
  if (!flags.split.empty()) options.split_bytes = parse_size(flags.split);
  const auto report = models::unpack_to_folder(flags.from, flags.dry_run ? "" : flags.to, options, step);
  return flags.dry_run ? print_folder_plan(report) : print_folder(flags.to, report);
}

/// OUT is no GGUF file.
int write_folder(const QuantizeFlags& flags) {
  NIBBLE_CHECK(flags.embedding.empty(), flags.to,
               ": a folder keeps its embedding; expected --keep-type in place of --embedding, or a name that ends in "
               ".gguf");
  NIBBLE_CHECK(flags.format != "auto", "--type auto: expected a name that ends in .gguf, found ", flags.to);
  refuse_flags_of_auto(flags);
  const models::QuantizeStep step = isatty(STDERR_FILENO) != 0 ? show_step : [](std::string_view, int, int) {};
  if (is_float_type(flags.format)) return write_floats(flags, step);
  models::FolderOptions options{.matrices = models::folder_layout(flags.format),
                                .rules = {},
                                .kept = parse_float_type("--keep-type", flags.keep),
                                .search = !flags.nearest,
                                .threads = flags.options.threads,
                                .split_bytes = 0,
                                .calibration = {},
                                .importance = flags.options.importance,
                                .calibrate = flags.options.calibrate};
  if (!flags.split.empty()) options.split_bytes = parse_size(flags.split);
  if (!flags.text.empty()) options.calibration = read_text(flags.text);
  std::vector<std::string> rules = flags.rules;
  if (!flags.output.empty()) rules.push_back("lm_head=" + flags.output);
  for (const std::string& rule : rules) {
    const size_t equals = rule.rfind('=');
    NIBBLE_CHECK(equals != std::string::npos, "type of tensors '", rule, "': expected PATTERN=TYPE");
    const std::string type = rule.substr(equals + 1);
    options.rules.emplace_back(rule.substr(0, equals),
                               type == "keep" ? std::nullopt : std::optional(models::folder_layout(type)));
  }
  if (flags.dry_run) return print_folder_plan(models::plan_folder(flags.from, options));
  return print_folder(flags.to, models::quantize_folder(flags.from, flags.to, options, step));
}

models::AutoTypes automatic_types(const QuantizeFlags& flags) {
  NIBBLE_CHECK((flags.bits > 0) != !flags.size.empty(), "--type auto: expected either --bits or --size");
  NIBBLE_CHECK(flags.embedding.empty() && flags.output.empty(),
               "--type auto chooses the embedding's type too: expected --tensor-type NAME=TYPE");
  models::AutoTypes types{
      .bits = flags.bits, .bytes = flags.size.empty() ? 0 : parse_size(flags.size), .candidates = {}};
  if (flags.types.empty()) types.candidates = models::usual_candidates(flags.native);
  for (std::string_view rest = flags.types; !rest.empty();) {
    const size_t comma = rest.find(',');
    const quant::BlockType& type = models::find_quantize_type(rest.substr(0, comma));
    NIBBLE_CHECK(quant::can_fit(type) && !quant::is_row_type(type), "--types ", type.name,
                 ": types that are measured have codes with scales of their own group");
    types.candidates.push_back(&type);
    rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
  }
  return types;
}

void choose_plain_types(const QuantizeFlags& flags, models::QuantizeOptions& options) {
  refuse_flags_of_auto(flags);
  options.matrices = models::find_type_or_keep(flags.format);
  if (!flags.embedding.empty()) options.embedding = models::find_type_or_keep(flags.embedding);
  else if (options.matrices != nullptr) options.embedding = &models::usual_embedding(*options.matrices);
  options.output = flags.output.empty() ? options.embedding : models::find_type_or_keep(flags.output);
}

int quantize(QuantizeFlags& flags) {
  load_plugins(flags.plugins);
  models::QuantizeOptions& options = flags.options;
  options.calibrate.threads = options.threads;
  // larger matrices of moments take too much memory and time
  options.calibrate.feedback_inputs = flags.feedback ? 4096 : 0;
  if (!flags.to.empty() && !flags.to.ends_with(".gguf")) return write_folder(flags);
  NIBBLE_CHECK(flags.keep.empty(), "--keep-type belongs to a quantised folder: in a GGUF file --embedding, "
               "--output-tensor-type and --tensor-type say it");
  if (flags.format == "auto") options.automatic = automatic_types(flags);
  else choose_plain_types(flags, options);
  for (const std::string& rule : flags.rules) options.rules.push_back(models::parse_type_rule(rule));
  options.search = !flags.nearest;
  if (!flags.split.empty()) options.split_bytes = parse_size(flags.split);
  NIBBLE_CHECK(flags.dry_run || !flags.to.empty(), "no file to write: expected IN OUT, or --dry-run");
  if (!flags.text.empty()) options.calibration = read_text(flags.text);
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const models::QuantizeStep step = terminal ? show_step : [](std::string_view, int, int) {};
  const auto report = flags.dry_run ? models::plan_quantize(flags.from, options, step)
                                    : models::quantize_file(flags.from, flags.to, options, step);
  if (terminal) std::fputs("\r\033[K", stderr);
  if (flags.dry_run) return print_plan(report);
  double weights = 0;
  for (const models::PlannedTensor& t : report.tensors) weights += static_cast<double>(t.shape.elements());
  print_sizes(flags.to, report.bytes_out, report.bytes_in, weights, matrices_text(report.quantised, report.kept));
  if (report.divergence > 0) std::printf("expected divergence of the predictions: %.4f\n", report.divergence);
  print_error(report.squared_error, report.squares);
  return 0;
}

struct ImatrixFlags {
  std::string model, text, to;
  models::CalibrateOptions options;
};

int imatrix(const ImatrixFlags& flags) {
  models::LoadOptions load;
  load.threads = flags.options.threads;
  const auto model = models::Model::load(flags.model, load);
  const auto tokens = model->tokenizer->encode(read_text(flags.text), {.parse_special = false});
  const bool terminal = isatty(STDERR_FILENO) != 0;
  int chunks = 0;
  const auto calibration = models::calibrate(model, tokens, flags.options, [&](int chunk, int total) {
    chunks = total;
    if (terminal) show_step("calibrating", chunk, total);
  });
  if (terminal) std::fputs("\r\033[K", stderr);
  const models::Checkpoint checkpoint = models::Checkpoint::open(flags.model);
  const models::ModelSource source =
      checkpoint.gguf() != nullptr ? models::gguf_source(checkpoint) : models::folder_source(checkpoint);
  const models::Imatrix result = models::make_imatrix(calibration, source, flags.options, chunks);
  result.write(flags.to);
  std::printf("%s: inputs of %zu matrices, %d chunks of %d tokens\n", flags.to.c_str(), result.squares.size(), chunks,
              flags.options.context);
  return 0;
}

void add_calibration_flags(CLI::App& app, models::CalibrateOptions& options, const char* about) {
  app.add_option("--chunks", options.chunks, about)->type_name("N")->check(between(1, 1 << 20));
}

}  // namespace

Action setup_quantize(CLI::App& app) {
  auto flags = std::make_shared<QuantizeFlags>();
  app.add_option("in", flags->from, "GGUF file, the first shard of a split one, or a Hugging Face folder")
      ->type_name("IN")
      ->required();
  app.add_option("out", flags->to,
                 "GGUF file to write (ending in .gguf), or a folder of safetensors: quantised for compressed-tensors "
                 "or bitsandbytes, "
                 "or floats")
      ->type_name("OUT");
  app.add_option("--format,--type", flags->format,
                 "Of the matrices: q4_g64, q4_g128, q6_g64, a type of GGUF as q4_k, weights as int4:g128:sym:f16 or "
                 "nf4, keep: copy all, or auto: chosen for each by measuring")
      ->type_name("TYPE")
      ->capture_default_str();
  app.add_option("--bits", flags->bits, "With auto: bits per weight at most, over all tensors")
      ->type_name("BITS")
      ->check(between(1, 32));
  app.add_option("--size", flags->size, "With auto: bytes of all tensors at most: 500M, 4G")->type_name("SIZE");
  app.add_option("--types", flags->types, "With auto: choose among these only: q4_k,q6_k,q8_0")->type_name("TYPE,...");
  app.add_flag("--native", flags->native, "With auto: choose among our own types too");
  app.add_option("--embedding,--token-embedding-type", flags->embedding,
                 "Of the token embedding, or keep (default: q6_g64 or q6_k, unless TYPE has six bits)")
      ->type_name("TYPE");
  app.add_option("--output-tensor-type", flags->output, "Of the output matrix, or keep (default: as the embedding)")
      ->type_name("TYPE");
  app.add_option("--tensor-type", flags->rules,
                 "Of the tensors whose name matches: 'blk.*.ffn_down=q6_k'; the first match counts")
      ->type_name("PATTERN=TYPE");
  app.add_option("--keep-type", flags->keep,
                 "Of a quantised folder's other matrices, as the embedding: f16, bf16, f32 (default: keep, as they "
                 "are; those that a GGUF file has quantised become f32, which holds their values)")
      ->type_name("TYPE");
  app.add_option("--calibrate", flags->text,
                 "Text to run through the model first, so that errors fall where they matter least")
      ->type_name("FILE");
  app.add_option("--imatrix", flags->options.importance,
                 "The same from a file: of nibble imatrix, or llama.cpp's (.dat or .gguf)")
      ->type_name("FILE")
      ->excludes("--calibrate");
  add_calibration_flags(app, flags->options.calibrate,
                        "Chunks of the text to run at most, of 256 tokens each, spread over all of it (default 32; 128 "
                        "with --feedback)");
  app.add_flag("--feedback", flags->feedback,
               "Also make errors good in the weights that follow (slow; inputs of up to 4096)")
      ->needs("--calibrate");
  app.add_flag("--nearest", flags->nearest, "Plain rounding, without a search for scales");
  app.add_option("--split-max-size", flags->split, "Several files with at most this much of tensors each: 500M, 4G")
      ->type_name("SIZE");
  app.add_flag("--dry-run", flags->dry_run, "Only say what each tensor would become, and the sizes");
  app.add_option("-t,--threads", flags->options.threads, "Threads (default: the physical cores this process may use)")
      ->type_name("N")->check(between(1, 1024));
  add_plugin_flag(app, flags->plugins);
  app.footer(
      "Quantise from the most exact file there is. Our own types can be read by nibble only.\n\nExample:\n"
      "  nibble quantize model-f16.gguf model-q4.gguf --calibrate text.txt\n"
      "  nibble quantize FOLDER OUTFOLDER --type int4:g128:asym:bf16\n"
      "  nibble quantize model.gguf OUTFOLDER --type f16\n"
      "  nibble quantize model-f16.gguf model-4.6.gguf --type auto --bits 4.6 --calibrate text.txt\n"
      "  nibble quantize FOLDER model-q4_k.gguf --type q4_k --token-embedding-type q6_k --imatrix model.imatrix");
  return [flags] { return quantize(*flags); };
}

Action setup_imatrix(CLI::App& app) {
  auto flags = std::make_shared<ImatrixFlags>();
  app.add_option("-m,--model", flags->model, "GGUF file or Hugging Face folder")->type_name("MODEL")->required();
  app.add_option("-f,--file", flags->text, "Text to run through the model")->type_name("FILE")->required();
  app.add_option("-o,--output", flags->to, "File to write, GGUF as llama.cpp's llama-imatrix does")
      ->type_name("FILE")
      ->required();
  add_calibration_flags(app, flags->options,
                        "Chunks of the text to run at most, of 256 tokens each, spread over all of it (default 32)");
  app.add_option("-t,--threads", flags->options.threads, "Threads (default: the physical cores this process may use)")
      ->type_name("N")->check(between(1, 1024));
  app.footer("Example:\n  nibble imatrix -m model-f16.gguf -f text.txt -o model.imatrix");
  return [flags] { return imatrix(*flags); };
}

}  // namespace nibble::cli
