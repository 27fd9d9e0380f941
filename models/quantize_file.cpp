// SPDX-License-Identifier: Apache-2.0
#include "models/quantize_file.h"

#include <algorithm>
#include <filesystem>
#include <mutex>

#include "models/choose_types.h"
#include "models/imatrix.h"
#include "models/io/gguf_writer.h"
#include "models/model_source.h"
#include "quant/fit.h"
#include "quant/fit_codes.h"
#include "quant/row_types.h"
#include "quant/spec.h"
#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::models {

namespace {

using quant::BlockType;
using Role = SourceTensor::Role;

/// The next type to try where rows do not divide into blocks of the first.
constexpr std::pair<std::string_view, std::string_view> smaller_blocks[] = {
    {"q6_k", "q8_0"},    {"q5_k", "q5_1"},  {"q4_k", "q5_0"},      {"q3_k", "iq4_nl"},    {"q2_k", "iq4_nl"},
    {"iq4_xs", "iq4_nl"}, {"q6_g64", "q8_0"}, {"q4_g128", "q4_g64"}, {"q4_g64", "q4_0"}};

/// A type of our own with smaller groups and otherwise the same: the largest that divide k; nullptr: none.
const BlockType* narrower(const BlockType& type, int64_t k) {
  const size_t mark = type.name.find("_g");
  if (mark == std::string_view::npos || quant::find_native_type(type.name) != &type) return nullptr;
  const std::string_view rest = type.name.substr(mark + 2);
  for (const int group : {128, 64, 32, 16}) {
    const size_t digits = std::min(rest.find('_'), rest.size());
    const BlockType* other =
        quant::find_native_type(message(type.name.substr(0, mark), "_g", group, rest.substr(digits)));
    if (other != nullptr && other->block_elements < type.block_elements && k % other->block_elements == 0) return other;
  }
  return nullptr;
}

const BlockType* fitting(const BlockType* type, int64_t k) {
  if (type != nullptr && quant::is_row_type(*type)) return quant::row_blocks(*type, k);
  while (type != nullptr && k % type->block_elements != 0) {
    const auto next = std::find_if(std::begin(smaller_blocks), std::end(smaller_blocks),
                                   [&](const auto& pair) { return pair.first == type->name; });
    type = next != std::end(smaller_blocks) ? &find_quantize_type(next->second) : narrower(*type, k);
  }
  return type;
}

struct Target {
  const BlockType* type = nullptr;  ///< nullptr: as it is
  bool whole_rows = false;
};

Target choose(const SourceTensor& tensor, const QuantizeOptions& options, const ChosenTypes& chosen) {
  if (tensor.role == Role::other) return {};
  if (const auto found = chosen.types.find(tensor.name); found != chosen.types.end())
    return {found->second == tensor.exact ? nullptr : found->second};
  const auto rule = std::find_if(options.rules.begin(), options.rules.end(),
                                 [&](const TypeRule& r) { return r.matches(tensor.name); });
  const BlockType* type = tensor.role == Role::embedding ? options.embedding
                          : tensor.role == Role::output  ? options.output
                                                         : options.matrices;
  if (rule != options.rules.end()) type = rule->type;
  else if (options.automatic)
    return {};
  const bool whole_rows = type != nullptr && quant::is_row_type(*type);
  type = fitting(type, tensor.shape[-1]);
  return {type == tensor.exact && !whole_rows ? nullptr : type, whole_rows && type != nullptr};
}

QuantizeReport make_plan(const ModelSource& source, const QuantizeOptions& options, const ChosenTypes& chosen = {}) {
  QuantizeReport report;
  report.divergence = chosen.divergence;
  for (const SourceTensor& tensor : source.tensors) {
    const auto [type, whole_rows] = choose(tensor, options, chosen);
    PlannedTensor planned{tensor.name,
                          tensor.shape,
                          tensor.exact,
                          type != nullptr ? type : tensor.exact,
                          tensor.role != Role::other,
                          whole_rows,
                          tensor.bytes,
                          0};
    planned.bytes_out = bytes_of_tensor(*planned.to, tensor.shape);
    if (planned.matrix) ++(type != nullptr ? report.quantised : report.kept[std::string(tensor.exact->name)]);
    report.bytes_in += planned.bytes_in;
    report.bytes_out += planned.bytes_out;
    report.tensors.push_back(std::move(planned));
  }
  for (const TypeRule& rule : options.rules) {
    const bool used = std::any_of(source.tensors.begin(), source.tensors.end(),
                                  [&](const SourceTensor& t) { return rule.matches(t.name); });
    NIBBLE_CHECK(used, "no tensor of the model matches '", rule.pattern, "'");
  }
  return report;
}

ModelSource open_source(const Checkpoint& checkpoint) {
  return checkpoint.gguf() != nullptr ? gguf_source(checkpoint) : folder_source(checkpoint);
}

/// What llama.cpp calls a file by the type of most of its matrices; nullptr where it has no name for it.
const uint32_t* file_type(const BlockType& type) {
  static constexpr std::pair<std::string_view, uint32_t> names[] = {
      {"f32", 0},   {"f16", 1},   {"q4_0", 2},  {"q4_1", 3},  {"q8_0", 7},    {"q5_0", 8},    {"q5_1", 9}, {"q2_k", 10},
      {"q3_k", 12}, {"q4_k", 15}, {"q5_k", 17}, {"q6_k", 18}, {"iq4_nl", 25}, {"iq4_xs", 30}, {"bf16", 32}};
  for (const auto& [name, number] : names)
    if (name == type.name) return &number;
  return nullptr;
}

void set(std::vector<std::pair<std::string, GgufValue>>& values, const std::string& key, const GgufValue& value) {
  const auto at = std::find_if(values.begin(), values.end(), [&](const auto& v) { return v.first == key; });
  if (at != values.end()) at->second = value;
  else values.emplace_back(key, value);
}

/// Keys of the source; what they say of types follows the plan.
std::vector<std::pair<std::string, GgufValue>> output_values(const ModelSource& source, const QuantizeReport& plan) {
  auto values = source.values;
  // the writer's
  std::erase_if(values, [](const auto& v) { return v.first == native_types_key; });
  if (plan.quantised == 0) return values;
  std::map<const BlockType*, int64_t> weights;
  for (const PlannedTensor& tensor : plan.tensors)
    if (tensor.matrix) weights[tensor.to] += tensor.shape.elements();
  const auto most = std::max_element(weights.begin(), weights.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  if (const uint32_t* number = file_type(*most->first)) set(values, "general.file_type", gguf_value(*number));
  else std::erase_if(values, [](const auto& v) { return v.first == "general.file_type"; });
  set(values, "general.quantization_version", gguf_value(uint32_t{2}));
  return values;
}

class FileQuantizer {
 public:
  FileQuantizer(const QuantizeOptions& options, const QuantizeStep& step)
      : options_(options), step_(step), pool_(options.threads > 0 ? options.threads : default_threads()) {}

  QuantizeReport write(const std::string& to, const ModelSource& source, const Calibration& calibration,
                       const ChosenTypes& chosen) {
    report_ = make_plan(source, options_, chosen);
    std::vector<GgufOutput> tensors;
    for (size_t i = 0; i < source.tensors.size(); ++i) {
      const SourceTensor& tensor = source.tensors[i];
      const BlockType* type = report_.tensors[i].to;
      const bool whole_rows = report_.tensors[i].whole_rows;
      if (type == tensor.exact && !whole_rows) {
        tensors.push_back({tensor.name, tensor.shape, type, [this, &tensor](std::span<std::byte> out) {
                             tensor.copy(out);
                             done(tensor);
                           }});
        continue;
      }
      const auto inputs = statistics_of(tensor, calibration);
      tensors.push_back(
          {tensor.name, tensor.shape, type, [this, &tensor, type, whole_rows, inputs](std::span<std::byte> out) {
             quantize(tensor, *type, whole_rows, *inputs, out);
             done(tensor);
           }});
    }
    report_.bytes_out = write_gguf(to, output_values(source, report_), tensors, options_.split_bytes);
    return report_;
  }

 private:
  void done(const SourceTensor& tensor) {
    tensor.release();
    if (step_) step_(tensor.name, ++done_, static_cast<int>(report_.tensors.size()));
  }

  void quantize(const SourceTensor& tensor, const BlockType& type, bool whole_rows,
                const quant::InputStatistics& inputs, std::span<std::byte> out) {
    const int64_t k = tensor.shape[-1], rows = tensor.shape.elements() / k;
    const auto row_bytes = static_cast<size_t>(k / type.block_elements) * type.block_bytes;
    pool_.for_each(rows, 16, [&](int64_t begin, int64_t end, const Worker&) {
      std::vector<float> values(static_cast<size_t>(k)), back(static_cast<size_t>(k));
      double error = 0, squares = 0;
      for (int64_t row = begin; row < end; ++row) {
        tensor.read(row, 1, values.data());
        std::byte* blocks = out.data() + static_cast<size_t>(row) * row_bytes;
        if (whole_rows)
          quantize_whole(type, values.data(), k, inputs, blocks);
        else
          quantize_row(type, values.data(), k, inputs, blocks);
        quant::dequantize_blocks(type, blocks, k, back.data());
        for (int64_t j = 0; j < k; ++j) {
          const double apart = double{values[j]} - double{back[j]};
          error += apart * apart;
          squares += double{values[j]} * double{values[j]};
        }
      }
      const std::lock_guard lock(mutex_);
      report_.squared_error += error;
      report_.squares += squares;
    });
  }

  void quantize_row(const BlockType& type, const float* values, int64_t k, const quant::InputStatistics& inputs,
                    std::byte* blocks) const {
    // plain rounding is the reference quantiser's where there is one
    const bool fit = quant::can_fit(type) && (options_.search || type.encode == nullptr);
    if (fit) {
      quant::fit_rows(type, values, 1, k, inputs, blocks, options_.search);
      return;
    }
    for (int64_t j = 0; j < k; j += type.block_elements, blocks += type.block_bytes) type.encode(values + j, blocks);
  }

  /// All blocks of the row with one scale.
  void quantize_whole(const BlockType& type, const float* values, int64_t k, const quant::InputStatistics& inputs,
                      std::byte* blocks) const {
    quant::CodedTarget target{.layout = type.format->layout, .round_scale = type.round_scale};
    const int groups = type.block_elements / target.layout.group;
    target.layout.group = 0;
    std::vector<uint8_t> codes(static_cast<size_t>(k));
    quant::BlockCodes block{};
    quant::fit_codes(target, values, 1, k, inputs, codes.data(), block.scale, block.minimum, options_.search);
    std::fill_n(block.scale, groups, block.scale[0]);
    std::fill_n(block.minimum, groups, block.minimum[0]);
    for (auto at = codes.begin(); at != codes.end(); at += type.block_elements, blocks += type.block_bytes) {
      std::copy_n(at, type.block_elements, block.codes);
      type.write(block, blocks);
    }
  }

  const QuantizeOptions& options_;
  const QuantizeStep& step_;
  ThreadPool pool_;
  std::mutex mutex_;
  QuantizeReport report_;
  int done_ = 0;
};

struct Prepared {
  Calibration calibration;
  ChosenTypes chosen;
};

/// Runs the model where that is asked for.
Prepared prepare(const std::string& from, const QuantizeOptions& options, const ModelSource& source,
                 const QuantizeStep& step) {
  NIBBLE_CHECK(options.calibration.empty() || options.importance.empty(),
               "both a text and an importance matrix to calibrate with");
  NIBBLE_CHECK(!options.automatic || !options.calibration.empty(),
               "types to be chosen by measuring: expected a text to calibrate with");
  if (!options.importance.empty()) return {use_imatrix(Imatrix::read(options.importance), source), {}};
  if (options.calibration.empty()) return {};
  TextCalibration text =
      calibrate_on_text(from, options.calibration, options.calibrate, step, options.automatic.has_value());
  Prepared out;
  out.calibration = std::move(text.calibration);
  if (options.automatic)
    out.chosen =
        choose_types(source, make_plan(source, options), options, text.model, text.tokens, out.calibration, step);
  return out;
}

bool wildcard(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern[0] != '*')
    return !text.empty() && (pattern[0] == '?' || pattern[0] == text[0]) && wildcard(pattern.substr(1), text.substr(1));
  for (size_t i = 0; i <= text.size(); ++i)
    if (wildcard(pattern.substr(1), text.substr(i))) return true;
  return false;
}

}  // namespace

bool TypeRule::matches(std::string_view tensor) const {
  constexpr std::string_view ending = ".weight";
  if (wildcard(pattern, tensor)) return true;
  return tensor.ends_with(ending) && wildcard(pattern, tensor.substr(0, tensor.size() - ending.size()));
}

const BlockType& find_quantize_type(std::string_view name) {
  if (quant::looks_like_spec(name)) return quant::type_of_spec(name);
  if (const BlockType* type = quant::find_native_type(name)) return *type;
  if (const BlockType* type = quant::find_row_type(name)) return *type;
  std::string known = "q4_g64, q4_g128, q6_g64, weights as in int4:g128:sym:f16 or int8:row, ";
  for (const BlockType* type : quant::all_block_types()) {
    if (type->encode == nullptr && !quant::can_fit(*type)) continue;
    if (type->name == name) return *type;
    known += std::string(type->name) + ", ";
  }
  fail("can't quantise to '", name, "': expected one of ", known.substr(0, known.size() - 2));
}

std::vector<const BlockType*> usual_candidates(bool native) {
  constexpr std::string_view common[] = {"q2_k",   "q3_k", "iq4_xs", "q4_k", "q5_k", "q6_k",
                                         "iq4_nl", "q4_0", "q4_1",   "q5_0", "q5_1", "q8_0"};
  constexpr std::string_view own[] = {"q2z_g32", "q3s_g64", "q3s_g32",  "q3z_g64", "q4_g128", "q4_g64",
                                      "nf4_g64", "q4z_g64", "q5s_g128", "q5s_g64", "q5z_g64", "q6_g64"};
  std::vector<const BlockType*> types;
  for (std::string_view name : common) types.push_back(&find_quantize_type(name));
  for (std::string_view name : own)
    if (native) types.push_back(&find_quantize_type(name));
  return types;
}

const BlockType* find_type_or_keep(std::string_view name) {
  return name == "keep" ? nullptr : &find_quantize_type(name);
}

const BlockType& usual_embedding(const BlockType& matrices) {
  const bool native = quant::find_native_type(matrices.name) == &matrices || quant::is_row_type(matrices);
  if (8 * static_cast<int>(matrices.block_bytes) >= 6 * matrices.block_elements) return matrices;
  return find_quantize_type(native ? "q6_g64" : "q6_k");
}

TypeRule parse_type_rule(std::string_view text) {
  const size_t equals = text.rfind('=');
  NIBBLE_CHECK(equals != std::string_view::npos && equals > 0 && std::count(text.begin(), text.end(), '*') <= 4,
               "type of tensors '", text, "': expected PATTERN=TYPE with at most four *, as in blk.*.ffn_down=q6_k");
  return {std::string(text.substr(0, equals)), find_type_or_keep(text.substr(equals + 1))};
}

TextCalibration calibrate_on_text(const std::string& from, const std::string& text, const CalibrateOptions& options,
                                  const QuantizeStep& step, bool floats) {
  LoadOptions load;
  load.threads = options.threads;
  load.floats = floats;
  TextCalibration out;
  out.model = Model::load(from, load);
  out.tokens = out.model->tokenizer->encode(text, {.parse_special = false});
  out.calibration = calibrate(out.model, out.tokens, options, [&](int chunk, int chunks) {
    if (step) step("calibrating", chunk, chunks);
  });
  return out;
}

QuantizeReport plan_quantize(const std::string& from, const QuantizeOptions& options, const QuantizeStep& step) {
  const Checkpoint checkpoint = Checkpoint::open(from);
  const ModelSource source = open_source(checkpoint);
  if (!options.automatic) return make_plan(source, options);
  return make_plan(source, options, prepare(from, options, source, step).chosen);
}

QuantizeReport quantize_file(const std::string& from, const std::string& to, const QuantizeOptions& options,
                             const QuantizeStep& step) {
  std::error_code ignored;
  NIBBLE_CHECK(!std::filesystem::equivalent(from, to, ignored), to,
               ": that is the input; expected another file to write");
  const Checkpoint checkpoint = Checkpoint::open(from);
  const ModelSource source = open_source(checkpoint);
  const Prepared prepared = prepare(from, options, source, step);
  QuantizeReport report = FileQuantizer(options, step).write(to, source, prepared.calibration, prepared.chosen);
  report.bytes_in = checkpoint.file_bytes();
  return report;
}

}  // namespace nibble::models
