// SPDX-License-Identifier: Apache-2.0
#include "models/choose_types.h"

#include <algorithm>

#include "models/allocate.h"
#include "models/sensitivity.h"
#include "quant/fit.h"
#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::models {

namespace {

using quant::BlockType;

/// Of a tensor's rows, evenly spaced.
int64_t sampled(int64_t rows) { return std::min(rows, std::max<int64_t>(96, rows / 64)); }

/// What the products of a tensor's rows lose in a type.
double error_in(const BlockType& type, const SourceTensor& tensor, const quant::InputStatistics& inputs, bool search) {
  const int64_t k = tensor.shape[-1], rows = tensor.shape.elements() / k, count = sampled(rows);
  std::vector<float> values(static_cast<size_t>(k));
  std::vector<std::byte> blocks(static_cast<size_t>(k / type.block_elements) * type.block_bytes);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    tensor.read(i * rows / count, 1, values.data());
    sum += quant::fit_rows(type, values.data(), 1, k, inputs, blocks.data(), search);
  }
  return sum * static_cast<double>(rows) / static_cast<double>(count);
}

/// A tensor whose type is to be chosen.
struct Item {
  const SourceTensor* tensor;
  double sensitivity;
  std::vector<const BlockType*> types;
  std::vector<Choice> choices;
};

void measure_choices(Item& item, const Calibration& calibration, bool search) {
  const auto inputs = statistics_of(*item.tensor, calibration);
  for (const BlockType* type : item.types) {
    const double error = type == item.tensor->exact ? 0 : error_in(*type, *item.tensor, *inputs, search);
    item.choices.push_back({bytes_of_tensor(*type, item.tensor->shape), item.sensitivity * error});
  }
}

uint64_t budget_of(const ModelSource& source, const AutoTypes& automatic) {
  if (!(automatic.bits > 0)) return automatic.bytes;
  int64_t weights = 0;
  for (const SourceTensor& tensor : source.tensors) weights += tensor.shape.elements();
  return static_cast<uint64_t>(automatic.bits / 8 * static_cast<double>(weights));
}

std::vector<Item> find_items(const ModelSource& source, const QuantizeReport& plan, const QuantizeOptions& options,
                             const Sensitivity& sensitivity) {
  std::vector<Item> items;
  for (size_t i = 0; i < source.tensors.size(); ++i) {
    const SourceTensor& tensor = source.tensors[i];
    const auto found = sensitivity.find(tensor.weight);
    const auto matches = [&](const TypeRule& rule) { return rule.matches(tensor.name); };
    const bool fixed = !plan.tensors[i].matrix || std::any_of(options.rules.begin(), options.rules.end(), matches);
    if (fixed || found == sensitivity.end()) continue;
    Item item{&tensor, found->second, {}, {}};
    if (tensor.exact->block_elements > 1) item.types.push_back(tensor.exact);
    for (const BlockType* type : options.automatic->candidates)
      if (tensor.shape[-1] % type->block_elements == 0 && type != tensor.exact) item.types.push_back(type);
    if (!item.types.empty()) items.push_back(std::move(item));
  }
  return items;
}

}  // namespace

std::shared_ptr<const quant::InputStatistics> statistics_of(const SourceTensor& tensor,
                                                            const Calibration& calibration) {
  const auto found = calibration.find(tensor.weight);
  const bool fits = found != calibration.end() && tensor.shape.rank() == 2 &&
                    static_cast<int64_t>(found->second->squares.size()) == tensor.shape[-1];
  if (!fits) return std::make_shared<const quant::InputStatistics>();
  if (tensor.role != SourceTensor::Role::embedding) return found->second;
  return std::make_shared<const quant::InputStatistics>(
      quant::InputStatistics{.squares = found->second->squares, .feedback = {}, .order = {}});
}

uint64_t bytes_of_tensor(const BlockType& type, const Shape& shape) {
  return static_cast<uint64_t>(shape.elements() / type.block_elements) * type.block_bytes;
}

ChosenTypes choose_types(const ModelSource& source, const QuantizeReport& plan, const QuantizeOptions& options,
                         std::shared_ptr<const Model> model, std::span<const int32_t> tokens,
                         const Calibration& calibration, const QuantizeStep& step) {
  const auto sensitivity = measure_sensitivity(std::move(model), tokens, calibration,
                                               {.threads = options.threads, .context = options.calibrate.context},
                                               [&](int group, int groups) {
                                                 if (step) step("measuring sensitivity", group, groups);
                                               });
  std::vector<Item> items = find_items(source, plan, options, sensitivity);
  ThreadPool pool(options.threads > 0 ? options.threads : default_threads());
  pool.for_each(static_cast<int64_t>(items.size()), 1, [&](int64_t begin, int64_t end, const Worker&) {
    for (int64_t i = begin; i < end; ++i) measure_choices(items[static_cast<size_t>(i)], calibration, options.search);
  });
  uint64_t fixed = plan.bytes_out;
  std::vector<std::vector<Choice>> choices;
  for (const Item& item : items) {
    fixed -= bytes_of_tensor(*item.tensor->exact, item.tensor->shape);
    choices.push_back(item.choices);
  }
  uint64_t least = fixed;
  for (const auto& some : choices)
    least += std::min_element(some.begin(), some.end(), [](const Choice& a, const Choice& b) {
               return a.bytes < b.bytes;
             })->bytes;
  const uint64_t budget = budget_of(source, *options.automatic);
  NIBBLE_CHECK(budget >= least, "choosing types: the smallest take ", least, " bytes, expected at most ", budget);
  const std::vector<size_t> chosen = allocate(choices, budget - fixed);
  ChosenTypes out;
  for (size_t i = 0; i < items.size(); ++i) {
    out.types[items[i].tensor->name] = items[i].types[chosen[i]];
    out.divergence += choices[i][chosen[i]].loss;
  }
  return out;
}

}  // namespace nibble::models
