// SPDX-License-Identifier: Apache-2.0
// Uses every installed library: loads the model it is given and runs one token.
#include <cstdio>

#include "jit/jit.h"
#include "models/decoder.h"
#include "tensor/onednn/onednn.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  nibble::jit::register_kernels();
  nibble::register_onednn_kernels();
  const auto model = nibble::models::Model::load(argv[1], {.need_tokenizer = false, .arch = {}, .progress = {}});
  nibble::models::Engine engine(model, {.threads = 1});
  const nibble::models::Row row{1, 0, 0, true};
  const auto logits = engine.run({&row, 1});
  std::printf("%s: %zu logits\n", engine.kernels_line().c_str(), logits.size());
  return logits.size() == static_cast<size_t>(model->config.vocab) ? 0 : 1;
}
