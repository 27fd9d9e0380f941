// SPDX-License-Identifier: Apache-2.0
#include "models/sensitivity.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <vector>

#include "models/perplexity.h"
#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::models {

namespace {

constexpr int stride = 2;  // every second token's prediction is compared

struct Weight {
  std::string name;  ///< "blk.3.q.weight"
  const Tensor* tensor = nullptr;
};
using Group = std::vector<Weight>;

/// Weights of one name and of neighbouring layers; the others stand alone.
std::vector<Group> groups_of(const Model& model, int layer_groups) {
  std::vector<Group> groups;
  const int layers = model.config.layers, parts = std::clamp(layer_groups, 1, std::max(1, layers));
  for (const Name& name : model.arch->names) {
    const auto add = [&](Group& group, int layer, const std::string& full) {
      const Tensor* tensor = model.weights.find(name.name, layer);
      if (tensor != nullptr && tensor->desc.dtype == DType::packed) group.push_back({full, tensor});
    };
    const bool layered = name.paths.find("{}") != std::string_view::npos;
    for (int part = 0; part < (layered ? parts : 1); ++part) {
      Group group;
      if (!layered) add(group, -1, std::string(name.name) + ".weight");
      for (int layer = layers * part / parts; layered && layer < layers * (part + 1) / parts; ++layer)
        add(group, layer, message("blk.", layer, ".", name.name, ".weight"));
      if (!group.empty()) groups.push_back(std::move(group));
    }
  }
  return groups;
}

class Meter {
 public:
  Meter(std::shared_ptr<const Model> model, std::span<const int32_t> tokens, const SensitivityOptions& options,
        int threads)
      : options_(options),
        pool_(threads),
        engine_(std::move(model), {.threads = threads, .context = options.context, .chunk = options.context}),
        tokens_(tokens) {
    const auto context = static_cast<size_t>(options.context);
    chunks_ = static_cast<int>(std::min<size_t>(tokens.size() / context, static_cast<size_t>(options.chunks)));
    NIBBLE_CHECK(chunks_ >= 1, "text to measure with: ", tokens.size(), " tokens, expected at least ", context);
    for (int chunk = 0; chunk < chunks_; ++chunk) {
      const auto logits = run(chunk);
      base_.emplace_back(logits.begin(), logits.end());
    }
  }

  /// Of the predictions as weights are now from those at first, nats per token.
  double divergence() {
    const auto vocab = static_cast<size_t>(engine_.model().config.vocab);
    double sum = 0;
    for (int chunk = 0; chunk < chunks_; ++chunk) {
      const auto logits = run(chunk);
      std::vector<double> rows(logits.size() / vocab);
      pool_.for_each(static_cast<int64_t>(rows.size()), 4, [&](int64_t begin, int64_t end, const Worker&) {
        for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
          rows[i] = divergence_of(std::span(base_[static_cast<size_t>(chunk)]).subspan(i * vocab, vocab),
                                  logits.subspan(i * vocab, vocab));
      });
      for (double row : rows) sum += row / static_cast<double>(rows.size() * static_cast<size_t>(chunks_));
    }
    return sum;
  }

  ThreadPool& pool() { return pool_; }

 private:
  static double divergence_of(std::span<const float> base, std::span<const float> other) {
    const double base_sum = log_sum_exp(base), other_sum = log_sum_exp(other);
    double sum = 0;
    for (size_t i = 0; i < base.size(); ++i) {
      const double log_base = double{base[i]} - base_sum;
      if (log_base > -20) sum += std::exp(log_base) * (log_base - (double{other[i]} - other_sum));
    }
    return sum;
  }

  std::span<const float> run(int chunk) {
    std::vector<Row> rows;
    for (int i = 0; i < options_.context; ++i)
      rows.push_back({tokens_[static_cast<size_t>(chunk * options_.context + i)], i, 0, i % stride == stride - 1});
    if (const int32_t first = first_token(engine_.model()); first >= 0) rows.front().token = first;
    return engine_.run(rows);
  }

  const SensitivityOptions& options_;
  ThreadPool pool_;
  Engine engine_;
  std::span<const int32_t> tokens_;
  int chunks_ = 0;
  std::vector<std::vector<float>> base_;
};

/// A matrix of floats that is rounded to four bits as long as this lives.
class Rounded {
 public:
  Rounded(const Weight& weight, const quant::InputStatistics& inputs, ThreadPool& pool) : tensor_(*weight.tensor) {
    const QuantFormat& format = *tensor_.desc.format;
    const int64_t n = tensor_.desc.shape[0], k = tensor_.desc.shape[1];
    before_.assign(tensor_.data, tensor_.data + bytes(tensor_.desc));
    const quant::BlockType& type = *quant::find_block_type(q4_0);
    constexpr int64_t panel = quant::panel_columns;
    std::vector<double> costs(static_cast<size_t>((n + panel - 1) / panel));
    pool.for_each(static_cast<int64_t>(costs.size()), 1, [&](int64_t begin, int64_t end, const Worker&) {
      std::vector<float> values(static_cast<size_t>(panel * k));
      std::vector<std::byte> blocks(static_cast<size_t>(panel * k / type.block_elements) * type.block_bytes);
      for (int64_t p = begin; p < end; ++p) {
        const int64_t row = p * panel, rows = std::min(panel, n - row);
        format.dequantize(format, before_.data(), n, k, row, rows, values.data());
        costs[static_cast<size_t>(p)] = quant::fit_rows(type, values.data(), rows, k, inputs, blocks.data(), false);
        quant::dequantize_blocks(type, blocks.data(), rows * k, values.data());
        quant::quantize_rows(format, values.data(), n, k, row, rows, tensor_.data);
      }
    });
    for (double cost : costs) cost_ += cost;
  }
  Rounded(const Rounded&) = delete;
  ~Rounded() { std::memcpy(tensor_.data, before_.data(), before_.size()); }

  double cost() const { return cost_; }
  static bool can_round(const Weight& weight) {
    return weight.tensor->desc.format->layout.bits == 0 && weight.tensor->desc.shape[1] % 32 == 0;
  }

 private:
  static constexpr uint32_t q4_0 = 2;

  Tensor tensor_;
  std::vector<std::byte> before_;
  double cost_ = 0;
};

}  // namespace

Sensitivity measure_sensitivity(std::shared_ptr<const Model> model, std::span<const int32_t> tokens,
                                const Calibration& calibration, const SensitivityOptions& options,
                                const std::function<void(int, int)>& on_group) {
  NIBBLE_CHECK(!model->weights.mapped(),
               "measuring sensitivity: the weights are mapped from a packed copy, they can't be changed");
  const std::vector<Group> groups = groups_of(*model, options.layer_groups);
  Meter meter(model, tokens, options, options.threads > 0 ? options.threads : default_threads());
  Sensitivity result;
  for (size_t g = 0; g < groups.size(); ++g) {
    double cost = 0, divergence = 0;
    {
      std::vector<std::unique_ptr<Rounded>> rounded;
      for (const Weight& weight : groups[g]) {
        if (!Rounded::can_round(weight)) continue;
        const auto found = calibration.find(weight.name);
        // errors of the embedding and of experts count alike, as they do when quantised
        quant::InputStatistics inputs;
        if (found != calibration.end()) inputs.squares = found->second->squares;
        rounded.push_back(std::make_unique<Rounded>(weight, inputs, meter.pool()));
        cost += rounded.back()->cost();
      }
      if (cost > 0) divergence = meter.divergence();
    }
    for (const Weight& weight : groups[g]) result[weight.name] = cost > 0 ? std::max(0.0, divergence) / cost : 0;
    if (on_group) on_group(static_cast<int>(g) + 1, static_cast<int>(groups.size()));
  }
  return result;
}

}  // namespace nibble::models
