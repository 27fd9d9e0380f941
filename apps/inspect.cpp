// SPDX-License-Identifier: Apache-2.0
// nibble inspect: what a model file or folder says about itself, and the memory it will need.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/command.h"
#include "apps/flags.h"
#include "apps/terminal.h"
#include "models/io/checkpoint.h"
#include "models/kv_cache.h"
#include "tensor/check.h"

namespace nibble::cli {

namespace {

using models::Checkpoint;
using models::Gguf;
using models::GgufValue;
using models::StoredTensor;

struct InspectFlags {
  ModelFlags model;
  bool tensors = false, json = false;
};

struct Summary {
  uint64_t parameters = 0, tensor_bytes = 0, packed_bytes = 0;
  std::map<std::string, std::pair<int, uint64_t>> types;  ///< name -> tensors, bytes
  std::optional<models::Config> config;
  std::string cannot_run;  ///< why there is no config
  int64_t context = 0;
  uint64_t kv_bytes = 0;
};

/// Bytes of the tensor once it is loaded: matrices packed, vectors as f32.
uint64_t loaded_bytes(const StoredTensor& tensor) {
  if (tensor.shape.rank() != 2 || tensor.type == nullptr || tensor.type->format == nullptr)
    return tensor.shape.rank() == 1 ? static_cast<uint64_t>(tensor.shape.elements()) * sizeof(float) : tensor.bytes;
  try {
    return tensor.type->format->bytes(*tensor.type->format, tensor.shape[0], tensor.shape[1]);
  } catch (const Error&) {
    return tensor.bytes;  // a shape that the format cannot hold: loading will say so
  }
}

Summary summarise(const Checkpoint& checkpoint, const InspectFlags& flags) {
  Summary s;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    s.parameters += static_cast<uint64_t>(tensor.shape.elements());
    s.tensor_bytes += tensor.bytes;
    s.packed_bytes += loaded_bytes(tensor);
    auto& [count, bytes] = s.types[std::string(tensor.type_name())];
    ++count;
    bytes += tensor.bytes;
  }
  try {
    const models::Metadata& metadata = checkpoint.metadata();
    s.config = models::find_arch(metadata.need_string("general.architecture|model_type")).config(metadata);
    const GgufValue* tokens = checkpoint.gguf() != nullptr ? checkpoint.gguf()->find("tokenizer.ggml.tokens") : nullptr;
    if (s.config->vocab == 0 && tokens != nullptr) s.config->vocab = static_cast<int>(tokens->count);
  } catch (const Error& error) {
    s.cannot_run = error.what();
    return s;
  }
  s.context = flags.model.context > 0 ? flags.model.context : std::min(s.config->context, 4096);
  constexpr int page = models::KvCache::page_tokens;
  s.kv_bytes =
      models::KvCache::bytes_per_token(*s.config) * static_cast<uint64_t>((s.context + page - 1) / page * page);
  return s;
}

nlohmann::json value_json(const GgufValue& value, size_t longest) {
  return std::visit([&](const auto& v) -> nlohmann::json {
    if constexpr (requires { v.begin(); } && !std::is_same_v<std::decay_t<decltype(v)>, std::string>) {
      auto out = nlohmann::json::array();
      for (size_t i = 0; i < std::min(v.size(), longest); ++i) out.push_back(v[i]);
      return out;
    } else {
      return v;
    }
  }, value.data);
}

std::string value_text(const GgufValue& value) {
  constexpr size_t shown = 8;
  if (const auto* text = std::get_if<std::string>(&value.data)) return printable(*text, 100);
  if (value.type == GgufValue::Type::f32) return message(static_cast<float>(std::get<double>(value.data)));
  std::string text = value_json(value, shown).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (value.type != GgufValue::Type::array) return text;
  if (value.element == GgufValue::Type::f32) {
    text = "[";
    const auto& numbers = std::get<std::vector<double>>(value.data);
    for (size_t i = 0; i < std::min(numbers.size(), shown); ++i)
      text += (i > 0 ? "," : "") + message(static_cast<float>(numbers[i]));
    text += "]";
  }
  if (value.count > shown) text.back() = ',', text += "...]";
  return printable(text, 200);
}

std::string type_text(const GgufValue& value) {
  if (value.type != GgufValue::Type::array) return std::string(name(value.type));
  return std::string(name(value.element)) + "[" + std::to_string(value.count) + "]";
}

/// As the file's name says it: innermost dimension last.
std::vector<int64_t> dims(const Shape& shape) {
  std::vector<int64_t> out;
  for (int i = 0; i < shape.rank(); ++i) out.push_back(shape[i]);
  return out;
}

std::vector<std::string> warnings(const Checkpoint& checkpoint) {
  return checkpoint.gguf() != nullptr ? checkpoint.gguf()->warnings() : std::vector<std::string>{};
}

std::string kind(const Checkpoint& checkpoint) {
  const Gguf* gguf = checkpoint.gguf();
  return gguf != nullptr ? message("GGUF version ", gguf->version()) : std::string("Hugging Face folder");
}

void print_metadata(const Checkpoint& checkpoint) {
  std::printf("\nmetadata\n");
  const auto line = [](std::string_view key, const std::string& type, const std::string& text) {
    std::printf("  %-44s %-14s %s\n", printable(key).c_str(), type.c_str(), text.c_str());
  };
  if (const Gguf* gguf = checkpoint.gguf()) {
    for (const auto& [key, value] : gguf->values()) line(key, type_text(value), value_text(value));
    return;
  }
  for (const auto& [key, value] : checkpoint.metadata().values().items())
    line(key, value.type_name(), printable(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), 200));
}

void print_text(const Checkpoint& checkpoint, const Summary& s, const InspectFlags& flags) {
  std::printf("file:        %s (%s, %s)\n", checkpoint.path().c_str(), kind(checkpoint).c_str(),
              human_bytes(checkpoint.file_bytes()).c_str());
  std::printf("tensors:     %zu, %s parameters, %s", checkpoint.tensors().size(), human_count(s.parameters).c_str(),
              human_bytes(s.tensor_bytes).c_str());
  for (const auto& [type, sum] : s.types)
    std::printf("%s %d %s", &type == &s.types.begin()->first ? ":" : ",", sum.first, type.c_str());
  std::printf("\n");
  if (s.config) {
    const models::Config& c = *s.config;
    std::printf(
        "shape:       %d layers, width %d, %d heads of %d (%d for keys and values), feed-forward %d, vocabulary %d, "
        "context %d\n",
        c.layers, c.width, c.heads, c.head_dim, c.kv_heads, c.ffn, c.vocab, c.context);
    if (checkpoint.tensors().empty())
      std::printf("memory:      no weights: the file cannot be run, but `nibble tokenize` can use its vocabulary\n");
    else
      std::printf("memory:      %s weights + %s KV cache for %lld positions = %s, and some MiB of working space\n",
                human_bytes(s.packed_bytes).c_str(), human_bytes(s.kv_bytes).c_str(), static_cast<long long>(s.context),
                human_bytes(s.packed_bytes + s.kv_bytes).c_str());
  } else {
    std::printf("memory:      %s weights; not a model that can be run: %s\n", human_bytes(s.packed_bytes).c_str(),
                printable(s.cannot_run, 400).c_str());
  }
  for (const std::string& warning : warnings(checkpoint)) std::printf("warning:     %s\n", warning.c_str());
  print_metadata(checkpoint);
  if (!flags.tensors) return;
  std::printf("\ntensors\n");
  for (const StoredTensor& tensor : checkpoint.tensors())
    std::printf("  %-44s %-8s %-20s %12llu bytes\n", printable(tensor.name).c_str(),
                std::string(tensor.type_name()).c_str(), to_string(tensor.shape).c_str(),
                static_cast<unsigned long long>(tensor.bytes));
}

void print_json(const Checkpoint& checkpoint, const Summary& s, const InspectFlags& flags) {
  nlohmann::ordered_json out;
  out["file"] = checkpoint.path();
  if (checkpoint.gguf() != nullptr) out["version"] = checkpoint.gguf()->version();
  out["file_bytes"] = checkpoint.file_bytes();
  out["parameters"] = s.parameters;
  out["tensor_count"] = checkpoint.tensors().size();
  for (const auto& [type, sum] : s.types) out["types"][type] = {{"tensors", sum.first}, {"bytes", sum.second}};
  out["memory"]["weights"] = s.packed_bytes;
  if (s.config) {
    out["memory"]["kv_cache"] = s.kv_bytes;
    out["memory"]["context"] = s.context;
  } else {
    out["cannot_run"] = s.cannot_run;
  }
  out["warnings"] = warnings(checkpoint);
  constexpr size_t longest_array = 64;
  if (checkpoint.gguf() == nullptr) out["metadata"] = checkpoint.metadata().values();
  else for (const auto& [key, value] : checkpoint.gguf()->values()) {
      if (value.type == GgufValue::Type::array && value.count > longest_array)
        out["metadata"][key] = {{"array", type_text(value)}};
      else
        out["metadata"][key] = value_json(value, longest_array);
  }
  if (flags.tensors)
    for (const StoredTensor& tensor : checkpoint.tensors())
      out["tensors"].push_back({{"name", tensor.name}, {"type", tensor.type_name()}, {"shape", dims(tensor.shape)},
                                {"bytes", tensor.bytes}, {"shard", tensor.file}, {"offset", tensor.offset}});
  put(out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace

Action setup_inspect(CLI::App& app) {
  auto flags = std::make_shared<InspectFlags>();
  add_model_flag(app, flags->model);
  app.add_option("-c,--context,--ctx-size", flags->model.context,
                 "Positions the memory estimate counts (default: the model's, at most 4096)")
      ->type_name("N")
      ->check(between(1, 1 << 24));
  app.add_flag("--tensors", flags->tensors, "Every tensor with its type, shape (rows, columns) and bytes");
  app.add_flag("--json", flags->json, "As JSON; arrays of more than 64 elements by type and length only");
  app.footer("Example:\n  nibble inspect -m model.gguf --tensors");
  return [flags] {
    load_plugins(flags->model.plugins);
    const Checkpoint checkpoint = Checkpoint::open(flags->model.model);
    const Summary summary = summarise(checkpoint, *flags);
    (flags->json ? print_json : print_text)(checkpoint, summary, *flags);
    return 0;
  };
}

}  // namespace nibble::cli
