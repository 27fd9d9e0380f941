// SPDX-License-Identifier: Apache-2.0
#include "jit/jit.h"

#include <map>
#include <optional>

#include "jit/experts.h"
#include "jit/float_kernels.h"
#include "jit/gemm_coded.h"
#include "jit/gemm_float.h"
#include "jit/matmul.h"
#include "jit/microkernel.h"
#include "quant/format.h"
#include "tensor/check.h"

namespace nibble::jit {

void register_kernels() {
  register_matmul();
  register_float_kernels();
  register_matmul_experts();
  register_matmul_experts_float();
  register_routing();
}

namespace {

// Every key that the macro-kernel may ask for, over all formats, with a plain store; several formats can share a name,
// which then is the same kernel.
std::map<std::string, GemmKey> keys_of(const MicroKernel& kernel) {
  std::map<std::string, GemmKey> keys;
  const auto add = [&](Source source, int rows, int max_panels, const QuantLayout& w) {
    for (int panels = 1; panels <= max_panels; ++panels) {
      const GemmKey key{kernel.isa, source, static_cast<uint8_t>(rows), static_cast<uint8_t>(panels), w, {}};
      keys.emplace(name(key), key);
    }
  };
  for (const QuantFormat* format : quant::all_formats()) {
    const QuantLayout& w = format->layout;
    if (kernel.rejects(w)) continue;
    const int packed_rows = kernel.packed_isa == kernel.isa ? kernel.packed_rows : 0;  // else another kernel's
    for (int rows = 1; rows <= packed_rows; ++rows) add(Source::packed, rows, kernel.packed_panels, w);
    for (int rows = 1; rows <= kernel.panel_rows; ++rows)
      add(Source::panel, rows, kernel.panel_panels, expanded_layout(kernel.isa, w));
    add(Source::packed, 0, kernel.panel_panels, w);
  }
  return keys;
}

// The key of a name, which may end in an epilogue that the list leaves out; nothing when there is none.
std::optional<GemmKey> find_key(const MicroKernel& kernel, const std::string& kernel_name) {
  const auto keys = keys_of(kernel);
  for (const Epilogue& epilogue : all_epilogues()) {
    const std::string suffix = name(epilogue) + '_' + std::string(name(kernel.isa));
    if (!kernel_name.ends_with(suffix)) continue;
    const auto found =
        keys.find(kernel_name.substr(0, kernel_name.size() - suffix.size()) + '_' + std::string(name(kernel.isa)));
    if (found == keys.end() || (found->second.rows == 0 && epilogue != Epilogue{})) continue;
    GemmKey key = found->second;
    key.epilogue = epilogue;
    return key;
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::string> list_kernels(Isa isa) {
  std::vector<std::string> names;
  for (const MicroKernel* kernel : microkernels()) {
    if (kernel->isa != isa) continue;
    for (const auto& [kernel_name, key] : keys_of(*kernel)) names.push_back(kernel_name);
    const std::string base = message("gemm_i8_", kernel->packed_isa == isa ? 'q' : 'p', "4s_g32_f32_1x16x4"),
                      end = '_' + std::string(name(isa));
    for (const Epilogue& epilogue : all_epilogues()) {
      if (epilogue != Epilogue{}) names.push_back(base + name(epilogue) + end);
    }
  }
  for (const GemmFloatKey& key : gemm_float_keys(isa)) names.push_back(name(key));
  for (const GemmCodedKey& key : gemm_coded_keys(isa)) names.push_back(name(key));
  return names;
}

std::vector<unsigned char> emit_kernel(const std::string& kernel_name) {
  for (const MicroKernel* kernel : microkernels()) {
    const auto key = find_key(*kernel, kernel_name);
    if (!key) continue;
    const auto bytes = gemm_code(*kernel, *key).bytes();
    return {bytes.begin(), bytes.end()};
  }
  for (const Isa isa : all_isas()) {
    for (const GemmFloatKey& key : gemm_float_keys(isa)) {
      if (name(key) != kernel_name) continue;
      const auto bytes = gemm_float(key).bytes();
      return {bytes.begin(), bytes.end()};
    }
    for (const GemmCodedKey& key : gemm_coded_keys(isa)) {
      if (name(key) != kernel_name) continue;
      const auto bytes = gemm_coded(key).bytes();
      return {bytes.begin(), bytes.end()};
    }
  }
  fail("kernel \"", kernel_name, "\": not one of list_kernels()");
}

}  // namespace nibble::jit
