// SPDX-License-Identifier: Apache-2.0
#include "models/quantize_folder.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "models/folder_form.h"
#include "models/folder_linears.h"
#include "models/gguf_folder.h"
#include "models/io/new_folder.h"
#include "models/weight_part.h"
#include "quant/fit_codes.h"
#include "quant/spec.h"
#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::models {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr uint64_t side_file_limit = uint64_t{1} << 30;

class FolderQuantizer {
 public:
  FolderQuantizer(const Checkpoint& folder, const FolderOptions& options, FolderReport& report)
      : folder_(folder),
        options_(options),
        report_(report),
        pool_(options.threads > 0 ? options.threads : default_threads()) {}

  FolderCodes run(const Linear& linear, const quant::InputStatistics& inputs) {
    const QuantLayout& layout = *linear.layout;
    const int64_t n = linear.weight->shape[0], k = linear.weight->shape[1], groups = k / group_of(layout, k);
    FolderCodes all{std::vector<uint8_t>(static_cast<size_t>(n * k)),
                    std::vector<float>(static_cast<size_t>(n * groups)),
                    std::vector<float>(static_cast<size_t>(n * groups))};
    WeightPart part{linear.weight, make_slice(linear.weight->shape, "", 0, {}, folder_.where(*linear.weight))};
    pool_.for_each(
        n, 16, [&](int64_t begin, int64_t end, const Worker&) { rows(part, layout, inputs, begin, end - begin, all); });
    return all;
  }

 private:
  void rows(const WeightPart& part, const QuantLayout& layout, const quant::InputStatistics& inputs, int64_t row,
            int64_t count, FolderCodes& all) {
    const int64_t k = part.slice.columns, groups = k / group_of(layout, k);
    std::vector<float> values(static_cast<size_t>(count * k));
    read_rows(part, folder_.bytes(*part.tensor).data(), row, count, values.data());
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

  const Checkpoint& folder_;
  const FolderOptions& options_;
  FolderReport& report_;
  ThreadPool pool_;
  std::mutex mutex_;
};

/// Files of text beside the weights, which say nothing about how those are stored.
void copy_side_files(const HfFolder& folder, const NewFolder& to) {
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    const std::string name = entry.path().filename().string(), ending = entry.path().extension().string();
    const bool text =
        ending == ".json" || ending == ".txt" || ending == ".model" || ending == ".jinja" || ending == ".tiktoken";
    if (!text || !entry.is_regular_file() || name == "config.json" || name == "quantize_config.json" ||
        name.ends_with(".index.json"))
      continue;
    if (const auto content = folder.text(name, side_file_limit)) to.write(name, *content);
  }
}

/// What becomes of each tensor, and what they are written as.
struct FolderPlan {
  std::vector<Linear> linears;
  std::map<std::string, const Linear*> quantised;  ///< by the weight's name
  std::vector<SafetensorsOutput> outputs;          ///< module: the index of the tensor
  ordered_json config;
  FolderReport report;
};

FolderPlan make_plan(const Checkpoint& checkpoint, const FolderOptions& options) {
  NIBBLE_CHECK(options.calibration.empty() || options.importance.empty(),
               "both a text and an importance matrix to calibrate with");
  FolderPlan plan;
  plan.linears = find_linears(checkpoint, options);
  for (const Linear& linear : plan.linears) {
    ++(linear.layout ? plan.report.quantised : plan.report.kept);
    if (linear.layout) plan.quantised.emplace(linear.weight->name, &linear);
  }
  for (size_t i = 0; i < checkpoint.tensors().size(); ++i) {
    const StoredTensor& tensor = checkpoint.tensors()[i];
    NIBBLE_CHECK(
        tensor.coded == nullptr && tensor.scales == nullptr && (tensor.type == nullptr || tensor.block_elements() == 1),
        checkpoint.where(tensor), ": expected a folder that is not quantised, found type ", tensor.type_name());
    const auto linear = plan.quantised.find(tensor.name);
    std::vector<SafetensorsOutput> outputs = {
        {tensor.name, upper_type_name(tensor.type_name()), tensor.shape, tensor.bytes, i}};
    FolderTensor planned{
        tensor.name, tensor.shape, std::string(tensor.type_name()), std::string(tensor.type_name()), tensor.bytes, 0};
    if (linear != plan.quantised.end()) {
      outputs = outputs_of(*linear->second, i);
      planned.to = quant::spec_of(*linear->second->layout);
    }
    for (SafetensorsOutput& output : outputs) {
      planned.bytes_out += output.bytes;
      plan.outputs.push_back(std::move(output));
    }
    plan.report.weights += static_cast<double>(tensor.shape.elements());
    plan.report.bytes_in += planned.bytes_in;
    plan.report.bytes_out += planned.bytes_out;
    plan.report.tensors.push_back(std::move(planned));
  }
  plan.config = quantization_config(checkpoint, plan.linears);
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
  constexpr const char* possible =
      "expected int1 to int8 as in int4:g128:asym:bf16 or fp8_e4m3, for compressed-tensors, nf4 or fp4, for "
      "bitsandbytes, or f16, bf16, f32 or keep to write the floats of a GGUF file";
  const quant::BlockType* native =
      quant::looks_like_spec(name) || name == "nf4" || name == "fp4" ? nullptr : quant::find_native_type(name);
  const bool coarse = native != nullptr && native->round_scale != nullptr && !float_weights(native->format->layout);
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

/// Of a folder of floats. `model`: what is run to calibrate, the same model.
FolderReport quantize_floats(const Checkpoint& checkpoint, const std::string& model, NewFolder& folder,
                             const FolderOptions& options, const QuantizeStep& step) {
  FolderPlan plan = make_plan(checkpoint, options);
  FolderReport& report = plan.report;
  const Calibration inputs = prepare(model, options, plan.linears, step);
  const quant::InputStatistics unknown;
  const std::vector<SafetensorsOutput>& outputs = plan.outputs;
  SafetensorsWriter writer(folder.path(), outputs, options.split_bytes);
  FolderQuantizer quantizer(checkpoint, options, report);
  for (size_t o = 0, done = 0; o < outputs.size(); ++done) {
    const StoredTensor& tensor = checkpoint.tensors()[outputs[o].module];
    const auto linear = plan.quantised.find(tensor.name);
    if (linear == plan.quantised.end()) {
      writer.write(o++, checkpoint.bytes(tensor));
    } else {
      const auto known = inputs.find(tensor.name);
      const FolderCodes codes = quantizer.run(*linear->second, known != inputs.end() ? *known->second : unknown);
      for (const auto& bytes : bytes_of(*linear->second, outputs_of(*linear->second, outputs[o].module), codes))
        writer.write(o++, bytes);
    }
    checkpoint.file(tensor).release(tensor.offset, tensor.bytes);
    if (step) step(tensor.name, static_cast<int>(done + 1), static_cast<int>(checkpoint.tensors().size()));
  }
  report.bytes_out = writer.finish();
  report.bytes_in = checkpoint.file_bytes();
  ordered_json whole = ordered_json::parse(checkpoint.folder()->text("config.json", side_file_limit).value());
  whole["quantization_config"] = plan.config;
  folder.write("config.json", whole.dump(2) + "\n");
  copy_side_files(*checkpoint.folder(), folder);
  folder.finish();
  return report;
}

std::vector<SafetensorsOutput> outputs_of(const UnpackedModel& model) {
  std::vector<SafetensorsOutput> outputs;
  for (const UnpackedTensor& tensor : model.tensors)
    outputs.push_back({tensor.name, upper_type_name(name(tensor.type)), tensor.shape, tensor.bytes(), outputs.size()});
  return outputs;
}

void write_files(const UnpackedModel& model, const NewFolder& folder) {
  for (const auto& [name, text] : model.files) folder.write(name, text);
}

/// Everything but finish(). Returns the bytes of the weights' files.
uint64_t write_floats(const Checkpoint& file, const UnpackedModel& model, const NewFolder& folder, int threads,
                      uint64_t split_bytes, const QuantizeStep& step) {
  ThreadPool pool(threads > 0 ? threads : default_threads());
  SafetensorsWriter writer(folder.path(), outputs_of(model), split_bytes);
  const int total = static_cast<int>(model.tensors.size());
  for (int i = 0; i < total; ++i) {
    const UnpackedTensor& tensor = model.tensors[static_cast<size_t>(i)];
    writer.write(static_cast<size_t>(i), tensor.read(file, pool));
    file.file(*tensor.part.tensor).release(tensor.part.tensor->offset, tensor.part.tensor->bytes);
    if (step) step(tensor.name, i + 1, total);
  }
  const uint64_t bytes = writer.finish();
  write_files(model, folder);
  return bytes;
}

FolderReport report_of(const Checkpoint& file, const UnpackedModel& model) {
  FolderReport report;
  for (const UnpackedTensor& tensor : model.tensors) {
    report.tensors.push_back({tensor.name, tensor.shape, std::string(tensor.part.tensor->type_name()),
                              std::string(name(tensor.type)), tensor.part.bytes(), tensor.bytes()});
    report.kept += tensor.shape.rank() == 2 ? 1 : 0;
    report.weights += static_cast<double>(tensor.shape.elements());
    report.bytes_out += tensor.bytes();
  }
  report.bytes_in = file.file_bytes();
  return report;
}

}  // namespace

FolderReport quantize_folder(const std::string& from, const std::string& to, const FolderOptions& options,
                             const QuantizeStep& step) {
  const Checkpoint checkpoint = Checkpoint::open(from);
  NewFolder folder(to);
  if (checkpoint.gguf() == nullptr) return quantize_floats(checkpoint, from, folder, options, step);
  const NewFolder floats(folder.path() + ".floats");
  write_floats(checkpoint, unpack_gguf(checkpoint, std::nullopt), floats, options.threads, 0, step);
  FolderReport report = quantize_floats(Checkpoint::open(floats.path()), from, folder, options, step);
  report.bytes_in = checkpoint.file_bytes();
  return report;
}

FolderReport plan_folder(const std::string& from, const FolderOptions& options) {
  const Checkpoint checkpoint = Checkpoint::open(from);
  if (checkpoint.gguf() == nullptr) return make_plan(checkpoint, options).report;
  // the same folder with holes in place of numbers
  const UnpackedModel model = unpack_gguf(checkpoint, std::nullopt);
  const NewFolder holes(fs::temp_directory_path() / "nibble-plan");
  fs::resize_file(holes.path() + "/model.safetensors", SafetensorsWriter(holes.path(), outputs_of(model), 0).finish());
  write_files(model, holes);
  FolderReport report = make_plan(Checkpoint::open(holes.path()), options).report;
  report.bytes_in = checkpoint.file_bytes();
  return report;
}

FolderReport unpack_to_folder(const std::string& from, const std::string& to, const UnpackOptions& options,
                              const QuantizeStep& step) {
  const Checkpoint checkpoint = Checkpoint::open(from);
  const UnpackedModel model = unpack_gguf(checkpoint, options.matrices);
  FolderReport report = report_of(checkpoint, model);
  if (to.empty()) return report;
  NewFolder folder(to);
  report.bytes_out = write_floats(checkpoint, model, folder, options.threads, options.split_bytes, step);
  folder.finish();
  return report;
}

}  // namespace nibble::models
