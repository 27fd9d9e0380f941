// SPDX-License-Identifier: Apache-2.0
#include "models/catalog.h"

#include <algorithm>
#include <string_view>

#include "models/io/quantized.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

/// Calls visit(path) for every alternative of a layer's weights.
template <class Visit>
void for_each_layer_path(const Arch& arch, const Visit& visit) {
  for (const Name& name : arch.names) {
    std::string_view paths = name.paths;
    while (!paths.empty()) {
      const size_t bar = std::min(paths.find('|'), paths.size());
      if (paths.substr(0, bar).find("{}") != std::string_view::npos) visit(paths.substr(0, bar));
      paths.remove_prefix(std::min(bar + 1, paths.size()));
    }
  }
}

}  // namespace

Sources sources(const Arch& arch) {
  Sources s;
  bool whole_rows = true;  // packed matrices are read by rows of the weight
  for_each_layer_path(arch, [&](std::string_view path) {
    const bool gguf = path.find("blk.{}") <= 2;  // behind ? and =
    (gguf ? s.gguf : s.folder) = true;
    if (!gguf && path.find("transpose", std::min(path.find('#'), path.size())) != std::string_view::npos)
      whole_rows = false;
  });
  s.gptq = s.folder && whole_rows && reads_quant_method("gptq");
  s.awq = s.folder && whole_rows && reads_quant_method("awq");
  return s;
}

std::string_view architecture_key(const Metadata& metadata) {
  return metadata.source() == Metadata::Source::gguf ? "general.architecture" : "model_type";
}

const Arch& arch_of(const Metadata& metadata) {
  const std::string_view key = architecture_key(metadata);
  const std::string type = metadata.need_string(key);
  const Arch* found = nullptr;
  try {
    found = &find_arch(type);
  } catch (const Error& error) {
    fail(metadata.file(), ": ", key, ": ", error.what());
  }
  for (const Arch& variant : all_archs())
    if (variant.claims != nullptr && variant.base == found->name && variant.claims(metadata)) found = &variant;
  return *found;
}

}  // namespace nibble::models
