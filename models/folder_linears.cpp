// SPDX-License-Identifier: Apache-2.0
#include "models/folder_linears.h"

#include <map>
#include <string_view>

#include "models/config.h"
#include "models/model_source.h"
#include "models/quantize_file.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

/// Every tensor of a path of an architecture: those of all layers and experts.
std::vector<Linear> tensors_of(const FloatModel& model, const Name& name, std::string_view path, int layers) {
  std::vector<Linear> found;
  const std::string stem(path.substr(0, path.find('#')));
  const std::string gguf(name.paths.substr(name.paths.starts_with('?') ? 1 : 0,
                                           name.paths.find_first_of("|#") - (name.paths.starts_with('?') ? 1 : 0)));
  const bool layered = stem.find("{}") != std::string::npos, experts = stem.find("{e}") != std::string::npos;
  for (int layer = 0; layer < (layered ? layers : 1); ++layer) {
    for (int expert = 0; expert == 0 || experts; ++expert) {
      const FloatTensor* tensor =
          find_tensor(model, put_number(put_number(stem, "{}", layer), "{e}", expert) + ".weight");
      if (tensor == nullptr) break;
      const std::string graph = (layered ? message("blk.", layer, ".") : "") + std::string(name.name) + ".weight";
      found.push_back({.weight = tensor,
                       .layout = {},
                       .graph = graph,
                       .gguf = put_number(gguf, "{}", layer) + ".weight",
                       .expert = experts});
    }
  }
  return found;
}

}  // namespace

std::string put_number(std::string_view path, std::string_view mark, int number) {
  const size_t at = path.find(mark);
  if (at == std::string_view::npos) return std::string(path);
  return message(path.substr(0, at), number, path.substr(at + mark.size()));
}

const std::optional<QuantLayout>* find_rule(const FolderOptions& options, std::string_view tensor) {
  for (const auto& [pattern, layout] : options.rules)
    if (TypeRule{pattern}.matches(tensor)) return &layout;
  return nullptr;
}

std::vector<Linear> find_linears(const FloatModel& model, const FolderOptions& options) {
  const Arch& arch = find_arch(model.metadata.need_string("model_type"));
  const Config config = arch.config != nullptr ? arch.config(model.metadata) : read_config(model.metadata);
  std::map<std::string, Linear, std::less<>> linears;
  for (const Name& name : arch.names) {
    if (name.name == "embedding" || stays_exact(name.name)) continue;
    std::string_view paths = name.paths;
    while (!paths.empty()) {
      const size_t bar = paths.find('|');
      const std::string_view path = paths.substr(paths.starts_with('?') ? 1 : 0, bar);
      paths.remove_prefix(bar == std::string_view::npos ? paths.size() : bar + 1);
      const size_t hash = path.find('#');
      const std::string_view pieces = hash == std::string_view::npos ? "" : path.substr(hash + 1);
      const bool other = path.starts_with('=') || pieces.find("transpose") != std::string_view::npos ||
                         pieces.find("unit_head") != std::string_view::npos;
      for (Linear& linear : other ? std::vector<Linear>{} : tensors_of(model, name, path, config.layers)) {
        const FloatTensor* tensor = linear.weight;
        if (tensor->shape.rank() != 2 || !tensor->matrix()) continue;
        if (name.name != "output") linear.layout = options.matrices;
        if (const auto* rule = find_rule(options, tensor->name)) linear.layout = *rule;
        if (linear.layout && linear.layout->bits == 0) linear.layout.reset();
        if (linear.layout && tensor->shape[1] % group_of(*linear.layout, tensor->shape[1]) != 0) linear.layout.reset();
        linears.emplace(tensor->name, std::move(linear));
      }
    }
  }
  std::vector<Linear> out;
  for (auto& [name, linear] : linears) out.push_back(std::move(linear));
  return out;
}

Calibration inputs_of(const std::vector<Linear>& linears, const Calibration& calibration) {
  Calibration out;
  for (const Linear& linear : linears) {
    const auto found = linear.expert ? calibration.end() : calibration.find(linear.graph);
    if (found != calibration.end() && static_cast<int64_t>(found->second->squares.size()) == linear.weight->shape[1])
      out[linear.weight->name] = found->second;
  }
  return out;
}

Calibration inputs_of(const std::vector<Linear>& linears, const Imatrix& imatrix) {
  Calibration out;
  for (const Linear& linear : linears) {
    const auto found = linear.expert ? imatrix.squares.end() : imatrix.squares.find(linear.gguf);
    if (found == imatrix.squares.end()) continue;
    check_imatrix_inputs(linear.gguf, found->second.size(), linear.weight->shape[1]);
    out[linear.weight->name] = std::make_shared<quant::InputStatistics>(
        quant::InputStatistics{.squares = found->second, .feedback = {}, .order = {}});
  }
  NIBBLE_CHECK(!out.empty(), "importance matrix: none of its tensors is one of the model's");
  return out;
}

}  // namespace nibble::models
