// SPDX-License-Identifier: Apache-2.0
// AutoRound (arXiv 2309.05516): tensors packed as GPTQ or AWQ pack them; modules may have widths of their own
// ("extra_config").
#include "models/io/schemes/module.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr std::string_view packing_key = "quantization_config.packing_format|quantization_config.backend";

bool like_awq(const Metadata& config) {
  const std::string packing = config.get_string(packing_key, "auto_round:auto_gptq");
  const bool gptq = packing == "auto_round:auto_gptq" || packing == "auto_round" || packing == "auto_round:gptqmodel";
  NIBBLE_CHECK(gptq || packing == "auto_round:auto_awq", config.file(), ": key '", packing_key,
               "': expected auto_round, auto_round:auto_gptq, auto_round:gptqmodel or auto_round:auto_awq, found '",
               printable(packing), "'");
  return !gptq;
}

void check(const Metadata& config) { (like_awq(config) ? awq_scheme : gptq_scheme).check(config); }
std::string_view module(const StoredTensor& tensor) { return gptq_scheme.module(tensor); }
CodedMatrix make(const Module& m) { return (like_awq(m.config) ? awq_scheme : gptq_scheme).make(m); }

}  // namespace

extern const Scheme auto_round_scheme = {"auto-round", check, module, make};
extern const Scheme intel_auto_round_scheme = {"intel/auto-round", check, module, make};

}  // namespace nibble::models
