// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "jit/jit.h"
#include "models/decoder.h"

namespace nibble::test {

/// By two threads, without its tokenizer, for the generated kernels.
inline std::shared_ptr<const models::Model> load_model(const std::string& path, const std::string& quant = {}) {
  jit::register_kernels();
  models::LoadOptions options;
  options.threads = 2;
  options.need_tokenizer = false;
  options.quant = quant;
  return models::Model::load(path, options);
}

}  // namespace nibble::test
