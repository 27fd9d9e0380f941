// SPDX-License-Identifier: Apache-2.0
#include "models/quantize_folder.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>

#include <unistd.h>

#include "models/config.h"
#include "models/io/checkpoint.h"
#include "models/io/safetensors_writer.h"
#include "models/quantize_file.h"
#include "models/weight_part.h"
#include "quant/codes.h"
#include "quant/fit.h"
#include "quant/spec.h"
#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::models {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr uint64_t side_file_limit = uint64_t{1} << 30;

/// A linear layer, and what its weight becomes; nullopt: it is kept.
struct Linear {
  const StoredTensor* weight = nullptr;
  std::optional<QuantLayout> layout;
  std::string name() const { return weight->name.substr(0, weight->name.rfind('.')); }
};

bool is_float(const QuantLayout& layout) { return layout.codebook == books::e4m3; }
int64_t group_of(const QuantLayout& layout, int64_t k) { return layout.group ? layout.group : k; }

std::string put(std::string text, std::string_view mark, int number) {
  const size_t at = text.find(mark);
  return at == std::string::npos ? text : text.replace(at, mark.size(), std::to_string(number));
}

/// Every tensor of a path of an architecture: those of all layers and experts.
std::vector<const StoredTensor*> tensors_of(const Checkpoint& folder, std::string_view path, int layers) {
  std::vector<const StoredTensor*> found;
  const std::string stem(path.substr(0, path.find('#')));
  const bool layered = stem.find("{}") != std::string::npos, experts = stem.find("{e}") != std::string::npos;
  for (int layer = 0; layer < (layered ? layers : 1); ++layer) {
    for (int expert = 0; expert == 0 || experts; ++expert) {
      const StoredTensor* tensor = folder.tensor(put(put(stem, "{}", layer), "{e}", expert) + ".weight");
      if (tensor == nullptr) break;
      found.push_back(tensor);
    }
  }
  return found;
}

/// Matrices that modules of the kind Linear have, by name; those of the embedding, positions and routers are none.
std::vector<Linear> find_linears(const Checkpoint& folder, const FolderOptions& options) {
  const Arch& arch = find_arch(folder.metadata().need_string("model_type"));
  const Config config = arch.config != nullptr ? arch.config(folder.metadata()) : read_config(folder.metadata());
  std::map<std::string, Linear, std::less<>> linears;
  for (const Name& name : arch.names) {
    if (name.name == "embedding" || name.name.starts_with("position") || name.name.starts_with("router")) continue;
    std::string_view paths = name.paths;
    while (!paths.empty()) {
      const size_t bar = paths.find('|');
      const std::string_view path = paths.substr(paths.starts_with('?') ? 1 : 0, bar);
      paths.remove_prefix(bar == std::string_view::npos ? paths.size() : bar + 1);
      const size_t hash = path.find('#');
      const std::string_view pieces = hash == std::string_view::npos ? "" : path.substr(hash + 1);
      const bool other = path.starts_with('=') || pieces.find("transpose") != std::string_view::npos || pieces.find("unit_head") != std::string_view::npos;
      for (const StoredTensor* tensor : other ? std::vector<const StoredTensor*>{} : tensors_of(folder, path, config.layers)) {
        if (tensor->shape.rank() != 2 || tensor->type == nullptr || tensor->block_elements() != 1) continue;
        Linear linear{tensor, {}};
        if (name.name != "output") linear.layout = options.matrices;
        for (const auto& [pattern, layout] : options.rules) {
          if (!TypeRule{pattern}.matches(tensor->name)) continue;
          linear.layout = layout;
          break;
        }
        if (linear.layout && tensor->shape[1] % group_of(*linear.layout, tensor->shape[1]) != 0) linear.layout.reset();
        linears.emplace(tensor->name, linear);
      }
    }
  }
  std::vector<Linear> out;
  for (auto& [name, linear] : linears) out.push_back(std::move(linear));
  return out;
}

std::string upper(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return out;
}

/// Tensors that stand for a quantised weight, in this order: shape and codes, or floats of 8 bits; zero points; scales.
std::vector<SafetensorsOutput> outputs_of(const Linear& linear, size_t module) {
  const QuantLayout& layout = *linear.layout;
  const int64_t n = linear.weight->shape[0], k = linear.weight->shape[1], groups = k / group_of(layout, k), bits = layout.bits;
  const std::string name = linear.name();
  std::vector<SafetensorsOutput> out;
  const auto add = [&](const char* suffix, std::string type, const Shape& shape, size_t element) {
    out.push_back({name + suffix, std::move(type), shape, static_cast<uint64_t>(shape.elements()) * element, module});
  };
  if (is_float(layout)) {
    add(".weight", "F8_E4M3", {n, k}, 1);
  } else {
    add(".weight_shape", "I64", {2}, 8);
    add(".weight_packed", "I32", {n, (k * bits + 31) / 32}, 4);
    if (layout.zero_point == ZeroPoint::integer) add(".weight_zero_point", "I32", {(n * bits + 31) / 32, groups}, 4);
  }
  add(".weight_scale", upper(nibble::name(layout.scale)), {n, groups}, element_bytes(layout.scale));
  return out;
}

/// Codes as a stream of bits in 32-bit words, lowest first; `stride` words from one to the next.
void put_code(uint32_t* words, int64_t stride, int bits, int64_t index, unsigned code) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % 32);
  words[bit / 32 * stride] |= code << shift;
  if (shift + bits > 32) words[(bit / 32 + 1) * stride] |= code >> (32 - shift);
}

struct Codes {
  std::vector<uint8_t> codes;          ///< (n, k)
  std::vector<float> scales, offsets;  ///< (n, groups)
};

class FolderQuantizer {
 public:
  FolderQuantizer(const Checkpoint& folder, const FolderOptions& options, FolderReport& report)
      : folder_(folder), options_(options), report_(report), pool_(options.threads > 0 ? options.threads : default_threads()) {}

  /// The bytes of outputs_of.
  std::vector<std::vector<std::byte>> run(const Linear& linear, const std::vector<SafetensorsOutput>& outputs) {
    const QuantLayout& layout = *linear.layout;
    const int64_t n = linear.weight->shape[0], k = linear.weight->shape[1], groups = k / group_of(layout, k);
    Codes all{std::vector<uint8_t>(static_cast<size_t>(n * k)), std::vector<float>(static_cast<size_t>(n * groups)), std::vector<float>(static_cast<size_t>(n * groups))};
    WeightPart part{linear.weight, make_slice(linear.weight->shape, "", 0, {}, folder_.where(*linear.weight))};
    pool_.for_each(n, 16, [&](int64_t begin, int64_t end, const Worker&) { rows(part, layout, begin, end - begin, all); });
    std::vector<std::vector<std::byte>> bytes;
    for (const SafetensorsOutput& output : outputs) bytes.emplace_back(output.bytes);
    write(layout, n, k, all, outputs, bytes);
    return bytes;
  }

 private:
  void rows(const WeightPart& part, const QuantLayout& layout, int64_t row, int64_t count, Codes& all) {
    const int64_t k = part.slice.columns, groups = k / group_of(layout, k);
    std::vector<float> values(static_cast<size_t>(count * k));
    read_rows(part, folder_.bytes(*part.tensor).data(), row, count, values.data());
    uint8_t* codes = all.codes.data() + row * k;
    float *scales = all.scales.data() + row * groups, *offsets = all.offsets.data() + row * groups;
    const quant::BlockType* type = searched(layout, k);
    if (type != nullptr) fit(*type, values.data(), count, k, codes, scales, offsets);
    else quant::quantize_numbers(layout, values.data(), count, k, codes, scales, offsets);
    double error = 0, squares = 0;
    const FloatBook* book = float_book(layout.codebook);
    for (int64_t i = 0; i < count * k; ++i) {
      const int64_t g = i / group_of(layout, k);
      const double back = double{scales[g]} * (book != nullptr ? double{book->value(codes[i])} * book->unit : codes[i] - double{offsets[g]});
      error += (values[static_cast<size_t>(i)] - back) * (values[static_cast<size_t>(i)] - back);
      squares += double{values[static_cast<size_t>(i)]} * double{values[static_cast<size_t>(i)]};
    }
    const std::lock_guard lock(mutex_);
    report_.squared_error += error;
    report_.squares += squares;
  }

  /// The block type of our own by which a layout's scales are searched for; nullptr: they reach from end to end.
  const quant::BlockType* searched(const QuantLayout& layout, int64_t k) const {
    if (!options_.search) return nullptr;
    for (const quant::BlockType* type : quant::native_block_types())
      if (type->format->layout == layout && k % type->block_elements == 0 && quant::can_fit(*type)) return type;
    return nullptr;
  }

  static void fit(const quant::BlockType& type, const float* values, int64_t rows, int64_t k, uint8_t* codes, float* scales, float* offsets) {
    const QuantLayout& layout = type.format->layout;
    std::vector<std::byte> blocks(static_cast<size_t>(rows * k / type.block_elements) * type.block_bytes);
    quant::fit_rows(type, values, rows, k, {}, blocks.data());
    quant::BlockCodes block{};
    for (const std::byte* at = blocks.data(); at != blocks.data() + blocks.size(); at += type.block_bytes, codes += type.block_elements) {
      type.decode(at, block);
      std::copy_n(block.codes, type.block_elements, codes);
      for (int g = 0; g < type.block_elements / layout.group; ++g) {
        *scales++ = block.scale[g];
        *offsets++ = static_cast<float>(1 << (layout.bits - 1));
      }
    }
  }

  static void write(const QuantLayout& layout, int64_t n, int64_t k, const Codes& all, const std::vector<SafetensorsOutput>& outputs,
                    std::vector<std::vector<std::byte>>& bytes) {
    const int64_t groups = k / group_of(layout, k);
    for (size_t o = 0; o < outputs.size(); ++o) {
      const std::string_view name = outputs[o].name;
      std::byte* out = bytes[o].data();
      auto* words = reinterpret_cast<uint32_t*>(out);
      if (name.ends_with(".weight")) {
        std::memcpy(out, all.codes.data(), all.codes.size());
      } else if (name.ends_with("_shape")) {
        const int64_t sizes[] = {n, k};
        std::memcpy(out, sizes, sizeof sizes);
      } else if (name.ends_with("_packed")) {
        const int64_t per_row = outputs[o].shape[1];
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < k; ++j) put_code(words + i * per_row, 1, layout.bits, j, all.codes[static_cast<size_t>(i * k + j)]);
      } else if (name.ends_with("_zero_point")) {
        for (int64_t i = 0; i < n; ++i)
          for (int64_t g = 0; g < groups; ++g) put_code(words + g, groups, layout.bits, i, static_cast<unsigned>(all.offsets[static_cast<size_t>(i * groups + g)]));
      } else if (layout.scale == DType::f32) {
        std::memcpy(out, all.scales.data(), bytes[o].size());
      } else {
        for (size_t i = 0; i < all.scales.size(); ++i) {
          const uint16_t half = layout.scale == DType::f16 ? f32_to_f16(all.scales[i]) : f32_to_bf16(all.scales[i]);
          std::memcpy(out + 2 * i, &half, 2);
        }
      }
    }
  }

  const Checkpoint& folder_;
  const FolderOptions& options_;
  FolderReport& report_;
  ThreadPool pool_;
  std::mutex mutex_;
};

ordered_json scheme_of(const QuantLayout& layout, std::vector<std::string> targets) {
  ordered_json weights = {{"num_bits", int{layout.bits}},
                          {"type", is_float(layout) ? "float" : "int"},
                          {"symmetric", layout.zero_point == ZeroPoint::symmetric},
                          {"strategy", layout.group ? "group" : "channel"},
                          {"group_size", nullptr},
                          {"dynamic", false}};
  if (layout.group) weights["group_size"] = int{layout.group};
  return {{"targets", std::move(targets)}, {"weights", weights}, {"input_activations", nullptr}, {"output_activations", nullptr},
          {"format", is_float(layout) ? "float-quantized" : "pack-quantized"}};
}

/// What config.json says of it. Layers that stay as they are have to be named.
ordered_json quantization_config(const Checkpoint& folder, const std::vector<Linear>& linears) {
  std::vector<std::pair<QuantLayout, std::vector<std::string>>> kinds;
  std::set<std::string> ignored = {"lm_head"};
  for (const StoredTensor& tensor : folder.tensors())
    if (tensor.shape.rank() == 2 && tensor.name.ends_with(".weight")) ignored.insert(tensor.name.substr(0, tensor.name.rfind('.')));
  for (const Linear& linear : linears) {
    if (!linear.layout) continue;
    ignored.erase(linear.name());
    auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const auto& one) { return one.first == *linear.layout; });
    if (kind == kinds.end()) kind = kinds.insert(kinds.end(), {*linear.layout, {}});
    kind->second.push_back(linear.name());
  }
  NIBBLE_CHECK(!kinds.empty(), folder.path(), ": no linear layer to quantise");
  ordered_json config = {{"quant_method", "compressed-tensors"}, {"quantization_status", "compressed"}, {"ignore", ignored}};
  std::set<std::string> formats;
  for (size_t i = 0; i < kinds.size(); ++i) {
    const ordered_json scheme = scheme_of(kinds[i].first, kinds.size() == 1 ? std::vector<std::string>{"Linear"} : kinds[i].second);
    config["config_groups"][message("group_", i)] = scheme;
    formats.insert(scheme["format"].get<std::string>());
  }
  config["format"] = formats.size() == 1 ? *formats.begin() : "mixed-precision";
  return config;
}

/// A folder that takes its name when it is whole.
class NewFolder {
 public:
  explicit NewFolder(fs::path to) : to_(std::move(to)) {
    if (!to_.has_filename()) to_ = to_.parent_path();
    partial_ = to_;
    partial_ += ".partial." + std::to_string(getpid());
    NIBBLE_CHECK(!fs::exists(to_) || (fs::is_directory(to_) && fs::is_empty(to_)), to_.string(), ": expected a folder that is new or empty");
    std::error_code error;
    NIBBLE_CHECK(fs::create_directory(partial_, error) && !error, partial_.string(), ": cannot create it: ", error.message());
  }
  ~NewFolder() {
    std::error_code ignored;
    if (!done_) fs::remove_all(partial_, ignored);
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  std::string path() const { return partial_.string(); }
  void write(const std::string& name, std::string_view text) const {
    const std::string file = (partial_ / name).string();
    std::FILE* out = std::fopen(file.c_str(), "wbx");
    NIBBLE_CHECK(out != nullptr, file, ": cannot create it: ", std::strerror(errno));
    const bool written = std::fwrite(text.data(), 1, text.size(), out) == text.size() && std::fflush(out) == 0 && fsync(fileno(out)) == 0;
    const bool closed = std::fclose(out) == 0;
    NIBBLE_CHECK(written && closed, file, ": cannot write it: ", std::strerror(errno));
  }
  void finish() {
    std::error_code error;
    fs::rename(partial_, to_, error);
    NIBBLE_CHECK(!error, to_.string(), ": cannot rename ", partial_.string(), " to it: ", error.message());
    done_ = true;
  }

 private:
  fs::path to_, partial_;
  bool done_ = false;
};

/// Files of text beside the weights, which say nothing about how those are stored.
void copy_side_files(const HfFolder& folder, const NewFolder& to) {
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    const std::string name = entry.path().filename().string(), ending = entry.path().extension().string();
    const bool text = ending == ".json" || ending == ".txt" || ending == ".model" || ending == ".jinja" || ending == ".tiktoken";
    if (!text || !entry.is_regular_file() || name == "config.json" || name == "quantize_config.json" || name.ends_with(".index.json")) continue;
    if (const auto content = folder.text(name, side_file_limit)) to.write(name, *content);
  }
}

}  // namespace

QuantLayout folder_layout(std::string_view name) {
  const quant::BlockType* native = quant::looks_like_spec(name) ? nullptr : quant::find_native_type(name);
  NIBBLE_CHECK(native != nullptr || quant::looks_like_spec(name), "can't quantise a folder to '", name, "': expected weights as in int4:g128:asym:bf16 or fp8_e4m3");
  QuantLayout layout = native != nullptr ? native->format->layout : quant::layout_of_spec(name);
  if (layout.zero_point == ZeroPoint::minimum) layout.zero_point = ZeroPoint::integer;
  NIBBLE_CHECK(is_float(layout) || (layout.codebook == 0 && layout.bits > 1), "can't quantise a folder to '", name,
               "': safetensors hold integers of 2 to 8 bits, or fp8_e4m3");
  return layout;
}

FolderReport quantize_folder(const std::string& from, const std::string& to, const FolderOptions& options,
                             const std::function<void(std::string_view, int, int)>& step) {
  const Checkpoint checkpoint = Checkpoint::open(from);
  NIBBLE_CHECK(checkpoint.folder() != nullptr, from, ": expected a Hugging Face folder to make one of");
  const std::vector<Linear> linears = find_linears(checkpoint, options);
  std::map<std::string, const Linear*> quantised;
  FolderReport report;
  for (const Linear& linear : linears) {
    ++(linear.layout ? report.quantised : report.kept);
    if (linear.layout) quantised.emplace(linear.weight->name, &linear);
  }
  std::vector<SafetensorsOutput> outputs;
  for (size_t i = 0; i < checkpoint.tensors().size(); ++i) {
    const StoredTensor& tensor = checkpoint.tensors()[i];
    NIBBLE_CHECK(tensor.coded == nullptr && tensor.scales == nullptr && (tensor.type == nullptr || tensor.block_elements() == 1), checkpoint.where(tensor),
                 ": expected a folder that is not quantised, found type ", tensor.type_name());
    report.weights += static_cast<double>(tensor.shape.elements());
    const auto linear = quantised.find(tensor.name);
    if (linear == quantised.end()) outputs.push_back({tensor.name, upper(tensor.type_name()), tensor.shape, tensor.bytes, i});
    else for (SafetensorsOutput& output : outputs_of(*linear->second, i)) outputs.push_back(std::move(output));
  }
  const ordered_json config = quantization_config(checkpoint, linears);
  NewFolder folder(to);
  SafetensorsWriter writer(folder.path(), outputs, options.split_bytes);
  FolderQuantizer quantizer(checkpoint, options, report);
  for (size_t o = 0, done = 0; o < outputs.size(); ++done) {
    const StoredTensor& tensor = checkpoint.tensors()[outputs[o].module];
    const auto linear = quantised.find(tensor.name);
    if (linear == quantised.end()) {
      writer.write(o++, checkpoint.bytes(tensor));
    } else {
      for (const auto& bytes : quantizer.run(*linear->second, outputs_of(*linear->second, outputs[o].module))) writer.write(o++, bytes);
    }
    checkpoint.file(tensor).release(tensor.offset, tensor.bytes);
    if (step) step(tensor.name, static_cast<int>(done + 1), static_cast<int>(checkpoint.tensors().size()));
  }
  report.bytes_out = writer.finish();
  report.bytes_in = checkpoint.file_bytes();
  ordered_json whole = ordered_json::parse(checkpoint.folder()->text("config.json", side_file_limit).value());
  whole["quantization_config"] = config;
  folder.write("config.json", whole.dump(2) + "\n");
  copy_side_files(*checkpoint.folder(), folder);
  folder.finish();
  return report;
}

}  // namespace nibble::models
