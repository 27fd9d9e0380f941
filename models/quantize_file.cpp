// SPDX-License-Identifier: Apache-2.0
#include "models/quantize_file.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "models/io/checkpoint.h"
#include "models/io/gguf_types.h"
#include "models/io/gguf_writer.h"
#include "quant/fit.h"
#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::models {

namespace {

/// A matrix of the architecture in the file.
struct Use {
  bool embedding = false;
  std::string weight;  ///< its name in the graph
};

/// By the tensor's name in the file.
std::map<std::string, Use> find_uses(const Checkpoint& file, const Arch& arch, int layers) {
  std::map<std::string, Use> uses;
  for (const Name& name : arch.names) {
    const bool layered = name.paths.find("{}") != std::string_view::npos;
    for (int layer = layered ? 0 : -1; layer < (layered ? layers : 0); ++layer) {
      std::string_view paths = name.paths;
      for (bool more = true; more;) {
        const size_t bar = paths.find('|');
        std::string path(paths.substr(0, bar));
        path.erase(0, path.find_first_not_of("?="));
        path.erase(std::min(path.size(), path.find('#')));
        if (const size_t at = path.find("{}"); at != std::string::npos) path.replace(at, 2, std::to_string(layer));
        const std::string weight = (layered ? message("blk.", layer, ".") : "") + std::string(name.name) + ".weight";
        if (file.tensor(path + ".weight") != nullptr)
          uses.try_emplace(path + ".weight", Use{name.name == "embedding" || name.name == "output", weight});
        more = bar != std::string_view::npos;
        if (more) paths.remove_prefix(bar + 1);
      }
    }
  }
  return uses;
}

class FileQuantizer {
 public:
  using StepDone = std::function<void(std::string_view, int, int)>;
  FileQuantizer(const Checkpoint& file, const QuantizeOptions& options, const StepDone& step)
      : file_(file), options_(options), step_(step), pool_(options.threads > 0 ? options.threads : default_threads()) {}

  QuantizeReport write(const std::string& to, const std::map<std::string, Use>& uses, const Calibration& calibration) {
    std::vector<GgufOutput> tensors;
    for (const StoredTensor& tensor : file_.tensors()) {
      const auto use = uses.find(tensor.name);
      const bool matrix = use != uses.end() && tensor.shape.rank() >= 2;
      const quant::BlockType* type = !matrix ? nullptr : use->second.embedding ? options_.embedding : options_.matrices;
      const bool fits = type != nullptr && tensor.shape[-1] % type->block_elements == 0;
      if (matrix) ++(fits ? report_.quantised : report_.kept);
      if (!fits) {
        tensors.push_back(kept(tensor));
        continue;
      }
      const auto statistics = calibration.find(use->second.weight);
      const auto inputs = statistics != calibration.end() ? statistics->second : std::make_shared<quant::InputStatistics>();
      tensors.push_back({tensor.name, tensor.shape, type, [this, &tensor, type, inputs](std::span<std::byte> out) {
                           quantize(tensor, *type, *inputs, out);
                         }});
    }
    total_ = static_cast<int>(tensors.size());
    write_gguf(to, values(), tensors);
    return report_;
  }

 private:
  /// The tensor as it is, or as floats where GGUF has no type for it.
  GgufOutput kept(const StoredTensor& tensor) const {
    const quant::BlockType* type = tensor.type != nullptr ? tensor.type : gguf_plain_type(tensor.element->name);
    const bool floats = type == nullptr;
    return {tensor.name, tensor.shape, floats ? quant::find_block_type(0) : type, [this, &tensor, floats](std::span<std::byte> out) {
              if (floats) return to_floats(tensor, file_.bytes(tensor).data(), tensor.shape.elements(), reinterpret_cast<float*>(out.data()));
              std::memcpy(out.data(), file_.bytes(tensor).data(), out.size());
            }};
  }

  std::vector<std::pair<std::string, GgufValue>> values() const {
    std::vector<std::pair<std::string, GgufValue>> kept;
    for (const auto& [key, value] : file_.gguf()->values()) {
      // no longer true, or written by the writer
      const bool gone = key.starts_with("split.") || key == "general.file_type" || key == "general.alignment" || key == native_types_key;
      if (!gone) kept.emplace_back(key, value);
    }
    return kept;
  }

  void quantize(const StoredTensor& tensor, const quant::BlockType& type, const quant::InputStatistics& inputs,
                std::span<std::byte> out) {
    const int64_t k = tensor.shape[-1], rows = tensor.shape.elements() / k;
    const auto source_row = static_cast<uint64_t>(k / tensor.block_elements()) * tensor.block_bytes();
    const auto row_bytes = static_cast<size_t>(k / type.block_elements) * type.block_bytes;
    // one input's statistics can't stand for those of several experts
    const quant::InputStatistics none;
    const quant::InputStatistics& used = inputs.squares.size() == static_cast<size_t>(k) && tensor.shape.rank() == 2 ? inputs : none;
    pool_.for_each(rows, 16, [&](int64_t begin, int64_t end, const Worker&) {
      std::vector<float> values(static_cast<size_t>(k)), back(static_cast<size_t>(k));
      double error = 0, squares = 0;
      for (int64_t row = begin; row < end; ++row) {
        to_floats(tensor, file_.bytes(tensor).data() + static_cast<uint64_t>(row) * source_row, k, values.data());
        std::byte* blocks = out.data() + static_cast<size_t>(row) * row_bytes;
        if (type.encode == nullptr) {
          quant::fit_rows(type, values.data(), 1, k, used, blocks);
        } else {
          for (int64_t j = 0; j < k; j += type.block_elements)
            type.encode(values.data() + j, blocks + static_cast<size_t>(j / type.block_elements) * type.block_bytes);
        }
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
    file_.file(tensor).release(tensor.offset, tensor.bytes);
    if (step_) step_(tensor.name, ++done_, report_.quantised);
  }

  const Checkpoint& file_;
  const QuantizeOptions& options_;
  const StepDone& step_;
  ThreadPool pool_;
  std::mutex mutex_;
  QuantizeReport report_;
  int done_ = 0, total_ = 0;
};

}  // namespace

const quant::BlockType& find_quantize_type(std::string_view name) {
  if (const quant::BlockType* type = quant::find_native_type(name)) return *type;
  std::string known;
  for (const quant::BlockType* type : quant::native_block_types()) known += std::string(type->name) + ", ";
  for (const quant::BlockType* type : quant::all_block_types()) {
    if (type->encode == nullptr || type->block_elements == 1) continue;
    if (type->name == name) return *type;
    known += std::string(type->name) + ", ";
  }
  fail("can't quantise to '", name, "': expected one of ", known.substr(0, known.size() - 2));
}

QuantizeReport quantize_file(const std::string& from, const std::string& to, const QuantizeOptions& options,
                             const std::function<void(std::string_view, int, int)>& step) {
  const Checkpoint file = Checkpoint::open(from);
  NIBBLE_CHECK(file.gguf() != nullptr, from, ": expected a GGUF file");
  const Arch& arch = find_arch(file.metadata().need_string("general.architecture"));
  const Config config = arch.config(file.metadata());
  Calibration calibration;
  if (!options.calibration.empty()) {
    LoadOptions load;
    load.threads = options.threads;
    const auto model = Model::load(from, load);
    const std::vector<int32_t> tokens = model->tokenizer->encode(options.calibration, {.parse_special = false});
    calibration = calibrate(model, tokens, options.calibrate, [&](int chunk, int chunks) {
      if (step) step("calibrating", chunk, chunks);
    });
  }
  FileQuantizer quantizer(file, options, step);
  QuantizeReport report = quantizer.write(to, find_uses(file, arch, config.layers), calibration);
  report.bytes_in = file.file_bytes();
  report.bytes_out = Gguf::open(to).file_bytes();
  return report;
}

}  // namespace nibble::models
