// SPDX-License-Identifier: Apache-2.0
#include "models/io/quantized.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>

#include "models/io/schemes/module.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr const Scheme* schemes[] = {&gptq_scheme,
                                     &awq_scheme,
                                     &auto_round_scheme,
                                     &intel_auto_round_scheme,
                                     &compressed_tensors_scheme,
                                     &fp8_scheme,
                                     &fbgemm_fp8_scheme,
                                     &bitsandbytes_scheme,
                                     &hqq_scheme};

const Scheme& scheme_of(const Metadata& config) {
  const std::string method = config.get_string("quantization_config.quant_method", "gptq");
  std::string known;
  for (const Scheme* scheme : schemes) {
    if (scheme->method == method) return *scheme;
    known += message(known.empty() ? "" : ", ", scheme->method);
  }
  fail(config.file(), ": key 'quantization_config.quant_method': expected one of ", known, "; found '",
       printable(method), "'");
}

/// The module's weight, or else its tensor of codes, stands for the whole.
StoredTensor joined(const Module& module, const StoredTensor& mark, const Scheme& scheme) {
  auto matrix = std::make_shared<CodedMatrix>(scheme.make(module));
  settle(*matrix);
  const StoredTensor* weight = module.folder.tensor(module.name + ".weight");
  const StoredTensor& codes = weight != nullptr ? *weight : mark;
  matrix->where = message(module.folder.file(codes).path(), ": tensor ", printable(codes.name));
  StoredTensor tensor;
  tensor.name = module.name + ".weight";
  tensor.shape = {matrix->n, matrix->k};
  tensor.coded = std::move(matrix);
  tensor.file = codes.file;
  tensor.offset = codes.offset;
  tensor.bytes = codes.bytes;
  return tensor;
}

}  // namespace

bool reads_quant_method(std::string_view method) {
  return std::any_of(std::begin(schemes), std::end(schemes),
                     [&](const Scheme* scheme) { return scheme->method == method; });
}

std::vector<StoredTensor> join_quantized(const HfFolder& folder, const Metadata& config) {
  if (config.has("quantization"))
    fail(config.file(), ": key 'quantization': weights quantised by MLX are not supported");
  // MXFP4 is joined by split_mxfp4.h
  if (!config.has("quantization_config") || config.get_string("quantization_config.quant_method", "gptq") == "mxfp4")
    return folder.tensors();
  const Scheme& scheme = scheme_of(config);
  scheme.check(config);
  std::map<std::string, const StoredTensor*, std::less<>> modules;
  for (const StoredTensor& tensor : folder.tensors())
    if (const std::string_view name = scheme.module(tensor); !name.empty()) modules.emplace(name, &tensor);
  std::vector<StoredTensor> tensors;
  for (const auto& [name, codes] : modules) {
    tensors.push_back(joined({folder, config, name}, *codes, scheme));
    const bool own = codes->name == tensors.back().name || codes->name.starts_with(tensors.back().name + ".");
    NIBBLE_CHECK(own || folder.tensor(tensors.back().name) == nullptr, folder.file(*codes).path(), ": tensor ",
                 printable(codes->name), ": the module also has a plain weight");
  }
  for (const StoredTensor& tensor : folder.tensors()) {
    std::string_view stem = tensor.name;
    bool part = false;  // of a module's weight: module.scales, module.weight.absmax
    for (size_t dot; !part && (dot = stem.rfind('.')) != std::string_view::npos; part = modules.contains(stem))
      stem = stem.substr(0, dot);
    if (!part || tensor.name == std::string(stem) + ".bias") tensors.push_back(tensor);
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  return tensors;
}

}  // namespace nibble::models
