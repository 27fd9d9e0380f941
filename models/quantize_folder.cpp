// SPDX-License-Identifier: Apache-2.0
#include "models/quantize_folder.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>

#include "models/float_model.h"
#include "models/folder_form.h"
#include "models/folder_linears.h"
#include "models/io/new_folder.h"
#include "quant/fit_codes.h"
#include "quant/spec.h"
#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::models {

namespace {

using nlohmann::ordered_json;

class FolderQuantizer {
 public:
  FolderQuantizer(const Checkpoint& file, const FolderOptions& options, ThreadPool& pool, FolderReport& report)
      : file_(file), options_(options), pool_(pool), report_(report) {}

  FolderCodes run(const Linear& linear, const quant::InputStatistics& inputs) {
    const QuantLayout& layout = *linear.layout;
    const int64_t n = linear.weight->shape[0], k = linear.weight->shape[1], groups = k / group_of(layout, k);
    FolderCodes all{std::vector<uint8_t>(static_cast<size_t>(n * k)),
                    std::vector<float>(static_cast<size_t>(n * groups)),
                    std::vector<float>(static_cast<size_t>(n * groups))};
    pool_.for_each(n, 16, [&](int64_t begin, int64_t end, const Worker&) {
      rows(*linear.weight, layout, inputs, begin, end - begin, all);
    });
    return all;
  }

 private:
  void rows(const FloatTensor& weight, const QuantLayout& layout, const quant::InputStatistics& inputs, int64_t row,
            int64_t count, FolderCodes& all) {
    const int64_t k = weight.shape[1], groups = k / group_of(layout, k);
    std::vector<float> values(static_cast<size_t>(count * k));
    weight.read_rows(file_, row, count, values.data());
    uint8_t* codes = all.codes.data() + row * k;
    float *scales = all.scales.data() + row * groups, *offsets = all.offsets.data() + row * groups;
    quant::fit_codes({.layout = layout}, values.data(), count, k, inputs, codes, scales, offsets, options_.search);
    double error = 0, squares = 0;
    const FloatBook* book = float_book(layout.codebook);
    for (int64_t i = 0; i < count * k; ++i) {
      const int64_t g = i / group_of(layout, k);
      const double back = double{scales[g]} * (book != nullptr ? double{book->value(codes[i])} * book->unit
                                                               : codes[i] - double{offsets[g]});
      error += (values[static_cast<size_t>(i)] - back) * (values[static_cast<size_t>(i)] - back);
      squares += double{values[static_cast<size_t>(i)]} * double{values[static_cast<size_t>(i)]};
    }
    const std::lock_guard lock(mutex_);
    report_.squared_error += error;
    report_.squares += squares;
  }

  const Checkpoint& file_;
  const FolderOptions& options_;
  ThreadPool& pool_;
  FolderReport& report_;
  std::mutex mutex_;
};

/// What becomes of each tensor, and what they are written as.
struct FolderPlan {
  std::vector<Linear> linears;
  std::map<std::string, const Linear*> quantised;  ///< by the weight's name
  std::optional<DType> kept;                       ///< FolderOptions::kept, or what has to be in its place
  std::vector<SafetensorsOutput> outputs;          ///< module: the index of the tensor
  ordered_json config;
  FolderReport report;
};

SafetensorsOutput output_of(const FloatTensor& tensor, size_t index) {
  return {tensor.name, upper_type_name(tensor.type_name()), tensor.shape, tensor.bytes(), index};
}

FolderTensor planned_floats(const FloatTensor& tensor) {
  return {tensor.name,
          tensor.shape,
          std::string(tensor.part.tensor->type_name()),
          std::string(tensor.type_name()),
          tensor.stored_bytes(),
          tensor.bytes()};
}

/// Settles what the floats that are not quantised are written as.
void choose_types(FloatModel& model, const FolderOptions& options, FolderPlan& plan) {
  const auto quantised = [&](const FloatTensor& tensor) { return plan.quantised.contains(tensor.name); };
  // transformers leaves each tensor of a folder for bitsandbytes in its type, and cannot multiply several types
  const bool alike = std::any_of(plan.linears.begin(), plan.linears.end(),
                                 [](const Linear& l) { return l.layout && in_bitsandbytes(*l.layout); });
  plan.kept = options.kept;
  if (alike && !plan.kept) {
    std::set<std::string_view> types;
    for (const FloatTensor& tensor : model.tensors)
      if (tensor.floats() && !quantised(tensor)) types.insert(tensor.type_name());
    if (types.size() > 1) plan.kept = DType::f32;
  }
  for (FloatTensor& tensor : model.tensors) {
    if (quantised(tensor) || !(tensor.matrix() || (alike && tensor.floats()))) continue;
    const auto* rule = find_rule(options, tensor.name);
    const auto type = rule != nullptr && *rule && (*rule)->bits == 0 ? (*rule)->scale : plan.kept;
    if (type && tensor.type_name() != name(*type)) tensor.type = type;
    if (tensor.matrix()) ++plan.report.floats[std::string(tensor.type_name())];
  }
}

void set_dtype(ordered_json& config, DType type) {
  bool said = false;
  for (ordered_json* object : {&config, config.contains("text_config") ? &config["text_config"] : nullptr})
    for (const char* key : {"dtype", "torch_dtype"}) {
      if (object == nullptr || !object->is_object() || !object->contains(key)) continue;
      (*object)[key] = torch_name(type);
      said = true;
    }
  if (!said) config["torch_dtype"] = torch_name(type);
}

void add(FolderReport& report, FolderTensor planned) {
  report.weights += static_cast<double>(planned.shape.elements());
  report.bytes_out += planned.bytes_out;
  report.tensors.push_back(std::move(planned));
}

/// Also settles the types of the model's tensors that are not quantised.
FolderPlan make_plan(FloatModel& model, const FolderOptions& options) {
  NIBBLE_CHECK(options.calibration.empty() || options.importance.empty(),
               "both a text and an importance matrix to calibrate with");
  FolderPlan plan;
  NIBBLE_CHECK(options.matrices.bits != 0, "matrices of a quantised folder: expected a quantised type, found ",
               name(options.matrices.scale));
  plan.linears = find_linears(model, options);
  for (const Linear& linear : plan.linears)
    if (linear.layout) plan.quantised.emplace(linear.weight->name, &linear);
  plan.report.quantised = static_cast<int>(plan.quantised.size());
  choose_types(model, options, plan);
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    const FloatTensor& tensor = model.tensors[i];
    const auto linear = plan.quantised.find(tensor.name);
    FolderTensor planned = planned_floats(tensor);
    std::vector<SafetensorsOutput> outputs = {output_of(tensor, i)};
    if (linear != plan.quantised.end()) {
      outputs = outputs_of(*linear->second, i);
      planned.to = quant::spec_of(*linear->second->layout);
      planned.bytes_out = 0;
      for (const SafetensorsOutput& output : outputs) planned.bytes_out += output.bytes;
    }
    for (SafetensorsOutput& output : outputs) plan.outputs.push_back(std::move(output));
    add(plan.report, std::move(planned));
  }
  plan.report.bytes_in = model.file->file_bytes();
  plan.config = quantization_config(model, plan.linears);
  return plan;
}

/// Runs the model where that is asked for. By the weights' names.
Calibration prepare(const std::string& from, const FolderOptions& options, const std::vector<Linear>& linears,
                    const QuantizeStep& step) {
  if (!options.importance.empty()) return inputs_of(linears, Imatrix::read(options.importance));
  if (options.calibration.empty()) return {};
  return inputs_of(linears, calibrate_on_text(from, options.calibration, options.calibrate, step).calibration);
}

}  // namespace

QuantLayout folder_layout(std::string_view name) {
  if (const auto type = float_type(name)) return {.group = 0, .bits = 0, .scale = *type};
  constexpr const char* possible =
      "expected int1 to int8 as in int4:g128:asym:bf16 or fp8_e4m3, for compressed-tensors, nf4 or fp4, for "
      "bitsandbytes, or f16, bf16, f32 or keep to write floats";
  const quant::BlockType* native =
      quant::looks_like_spec(name) || name == "nf4" || name == "fp4" ? nullptr : quant::find_native_type(name);
  const bool coarse = native != nullptr && native->name.ends_with("_fp8");
  NIBBLE_CHECK((native != nullptr && !coarse) || quant::looks_like_spec(name) || name == "nf4" || name == "fp4",
               "can't quantise a folder to '", name, "': ", possible);
  QuantLayout layout = native != nullptr ? native->format->layout : quant::layout_of_spec(name);
  if (layout.zero_point == ZeroPoint::minimum) layout.zero_point = ZeroPoint::integer;
  if (layout.codebook == books::nf4 || layout.codebook == books::fp4) {
    layout.codebook = layout.codebook == books::nf4 ? books::nf4_float : books::fp4_float;
  }
  if (layout.codebook == books::nf4_float || layout.codebook == books::fp4_float) {
    const bool named = name.find("f16") != std::string_view::npos;
    NIBBLE_CHECK(!named && layout.group >= 32, "can't quantise a folder to '", name,
                 "': bitsandbytes has scales of f32, for groups of g32, g64 or g128");
    layout.scale = DType::f32;
    return layout;
  }
  NIBBLE_CHECK(layout.codebook == 0 || layout.codebook == books::e4m3, "can't quantise a folder to '", name,
               "': ", possible);
  return layout;
}

namespace {

/// Bytes of a tensor that is not quantised, to their place in the file.
void write_floats(const FloatTensor& tensor, const Checkpoint& file, ThreadPool& pool, SafetensorsWriter& writer,
                  size_t index) {
  if (tensor.type.has_value()) writer.write(index, tensor.read(file, pool));
  else writer.write(index, file.bytes(*tensor.part.tensor));
}

void write_files(const FloatModel& model, const NewFolder& folder) {
  for (const TextFile& file : model.files) folder.write(file.name, file.text());
}

/// Of the tensor's, which are not needed again.
void release(const FloatTensor& tensor, const Checkpoint& file) {
  const StoredTensor& stored = *tensor.part.tensor;
  file.file(stored).release(stored.offset, stored.bytes);
}

}  // namespace

FolderReport quantize_folder(const std::string& from, const std::string& to, const FolderOptions& options,
                             const QuantizeStep& step) {
  const Checkpoint file = Checkpoint::open(from);
  NewFolder folder(to);
  FloatModel model = open_floats(file);
  FolderPlan plan = make_plan(model, options);
  const Calibration inputs = prepare(from, options, plan.linears, step);
  const quant::InputStatistics unknown;
  const std::vector<SafetensorsOutput>& outputs = plan.outputs;
  SafetensorsWriter writer(folder.path(), outputs, options.split_bytes);
  ThreadPool pool(options.threads > 0 ? options.threads : default_threads());
  FolderQuantizer quantizer(file, options, pool, plan.report);
  for (size_t o = 0, done = 0; o < outputs.size(); ++done) {
    const FloatTensor& tensor = model.tensors[outputs[o].module];
    const auto linear = plan.quantised.find(tensor.name);
    if (linear == plan.quantised.end()) {
      write_floats(tensor, file, pool, writer, o++);
    } else {
      const auto known = inputs.find(tensor.name);
      const FolderCodes codes = quantizer.run(*linear->second, known != inputs.end() ? *known->second : unknown);
      for (const auto& bytes : bytes_of(*linear->second, outputs_of(*linear->second, outputs[o].module), codes))
        writer.write(o++, bytes);
    }
    release(tensor, file);
    if (step) step(tensor.name, static_cast<int>(done + 1), static_cast<int>(model.tensors.size()));
  }
  plan.report.bytes_out = writer.finish();
  ordered_json config = ordered_json::parse(model.config);
  if (plan.kept) set_dtype(config, *plan.kept);
  config["quantization_config"] = plan.config;
  folder.write("config.json", config.dump(2) + "\n");
  write_files(model, folder);
  folder.finish();
  return plan.report;
}

FolderReport plan_folder(const std::string& from, const FolderOptions& options) {
  const Checkpoint file = Checkpoint::open(from);
  FloatModel model = open_floats(file);
  return make_plan(model, options).report;
}

FolderReport unpack_to_folder(const std::string& from, const std::string& to, const UnpackOptions& options,
                              const QuantizeStep& step) {
  const Checkpoint file = Checkpoint::open(from);
  const FloatModel model = open_floats(file, options.matrices);
  FolderReport report;
  std::vector<SafetensorsOutput> outputs;
  for (const FloatTensor& tensor : model.tensors) {
    outputs.push_back(output_of(tensor, outputs.size()));
    if (tensor.matrix()) ++report.floats[std::string(tensor.type_name())];
    add(report, planned_floats(tensor));
  }
  report.bytes_in = file.file_bytes();
  if (to.empty()) return report;
  NewFolder folder(to);
  SafetensorsWriter writer(folder.path(), std::move(outputs), options.split_bytes);
  ThreadPool pool(options.threads > 0 ? options.threads : default_threads());
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    write_floats(model.tensors[i], file, pool, writer, i);
    release(model.tensors[i], file);
    if (step) step(model.tensors[i].name, static_cast<int>(i + 1), static_cast<int>(model.tensors.size()));
  }
  report.bytes_out = writer.finish();
  ordered_json config = ordered_json::parse(model.config);
  if (options.matrices) set_dtype(config, *options.matrices);
  folder.write("config.json", config.dump(2) + "\n");
  write_files(model, folder);
  folder.finish();
  return report;
}

}  // namespace nibble::models
