// SPDX-License-Identifier: Apache-2.0
// What most architectures read from a model file in the same way, and the rotary frequencies that follow from it.
#pragma once

#include <span>
#include <vector>

#include "models/arch.h"

namespace nibble::models {

/// Far above any vocabulary; token ids and sizes of logits are computed in int.
inline constexpr int max_vocab = 1 << 24;

/// What an architecture means where a file does not say. 0: the file must say.
struct ConfigDefaults {
  int ffn = 0;                    ///< times the width
  int context = 0;
  float rotary_part = 1;          ///< of the head, rotated
  int full_attention_every = 0;  ///< each n-th layer sees all positions; 0: all layers have the window, if there is one
  Act act = Act::silu;
  Pairing pairing = Pairing::halves;
  /// Converters to GGUF reorder the rows of q and k, so that the two elements of a pair stand side by side.
  bool reordered_in_gguf = false;
  double norm_eps = 0;
  bool parallel_residual = false;
  bool experts = false;           ///< the architecture has mixtures of experts; else files with experts are refused
  bool normalize_experts = false;
  bool value_size = false;        ///< heads of v may have a size of their own
};

/// Sizes, rope, window and the norm's epsilon under their usual keys, checked against each other; `vocab` is 0 when the
/// file does not say. Throws Error naming the file and the key.
Config read_config(const Metadata& metadata, const ConfigDefaults& defaults = {});

/// YaRN's factor for attention over stretched positions (arXiv 2309.00071, section 3.4), as strong as asked for.
float yarn_scale(const RopeScaling& scaling, double strength);

/// For architectures that change heads or rope_dim afterwards.
void check_heads(const Metadata& metadata, const Config& config);

/// A list of flags by layer; where the file has none, false for each `every`-th layer and true for the others.
std::vector<bool> read_layers(const Metadata& metadata, std::string_view keys, int layers, int every);

/// One per head (arXiv 2108.12409), for Config::alibi_bias.
std::vector<float> alibi_slopes(const Config& config);

/// rope_dim / 2 angular frequencies, scaled, computed in f32 as Hugging Face transformers does. `factors`, when not
/// empty, divide them (llama-3 files store their scaling that way) and replace the scaling of the config.
std::vector<float> rope_frequencies(const Config& config, std::span<const float> factors);

}  // namespace nibble::models
