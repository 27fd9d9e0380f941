// SPDX-License-Identifier: Apache-2.0
// What most architectures read from a model file in the same way, and the rotary frequencies that follow from it.
#pragma once

#include <span>
#include <vector>

#include "models/arch.h"

namespace nibble::models {

/// Far above any vocabulary; token ids and sizes of logits are computed in int.
inline constexpr int max_vocab = 1 << 24;

/// Sizes, rope and window under their usual keys, checked against each other; `norm_eps` and `pairing` are left to the
/// architecture, `vocab` is 0 when the file does not say. Throws Error naming the file and the key.
Config read_config(const Metadata& metadata);

/// rope_dim / 2 angular frequencies, scaled, computed in f32 as Hugging Face transformers does. `factors`, when not
/// empty, divide them (llama-3 files store their scaling that way) and replace the scaling of the config.
std::vector<float> rope_frequencies(const Config& config, std::span<const float> factors);

}  // namespace nibble::models
