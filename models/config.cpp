// SPDX-License-Identifier: Apache-2.0
#include "models/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "tensor/check.h"

namespace nibble::models {

namespace {

// Far above any model, low enough that products of two of them can't overflow.
constexpr int64_t max_layers = 4096, max_heads = 4096, max_width = 1 << 20, max_context = 1 << 28;

int read_int(const Metadata& m, std::string_view keys, int64_t high) {
  return static_cast<int>(m.need_int(keys, 1, high));
}

int read_int(const Metadata& m, std::string_view keys, int64_t fallback, int64_t low, int64_t high) {
  return static_cast<int>(m.get_int(keys, fallback, low, high));
}

float read_float(const Metadata& m, std::string_view keys, double fallback, double low, double high) {
  return static_cast<float>(m.get_float(keys, fallback, low, high));
}

RopeScaling::Type scaling_type(const Metadata& m) {
  const std::string type = m.get_string(
      "rope.scaling.type|rope_scaling.rope_type|rope_scaling.type|rope_parameters.rope_type", m.has("rope.scale_linear") ? "linear" : "none");
  if (type == "none" || type == "default") return RopeScaling::Type::none;
  if (type == "linear") return RopeScaling::Type::linear;
  if (type == "llama3") return RopeScaling::Type::llama3;
  if (type == "yarn") return RopeScaling::Type::yarn;
  fail(m.file(), ": rope.scaling.type: expected none, linear, llama3 or yarn, found '", type, "'");
}

RopeScaling read_rope_scaling(const Metadata& m, int context) {
  RopeScaling s;
  s.type = scaling_type(m);
  if (s.type == RopeScaling::Type::none) return s;
  s.factor = static_cast<float>(m.need_float("rope.scaling.factor|rope.scale_linear|rope_scaling.factor|rope_parameters.factor", 1e-3, 1e6));
  s.low_freq_factor = read_float(m, "rope.scaling.low_freq_factor|rope_scaling.low_freq_factor|rope_parameters.low_freq_factor", 1, 1e-3, 1e6);
  s.high_freq_factor = read_float(m, "rope.scaling.high_freq_factor|rope_scaling.high_freq_factor|rope_parameters.high_freq_factor", 4, 1e-3, 1e6);
  NIBBLE_CHECK(s.low_freq_factor < s.high_freq_factor, m.file(), ": rope.scaling.low_freq_factor ", s.low_freq_factor,
               " is not below rope.scaling.high_freq_factor ", s.high_freq_factor);
  s.original_context = read_int(m, "rope.scaling.original_context_length|rope_scaling.original_max_position_embeddings|"
                                "rope_parameters.original_max_position_embeddings", context, 1, max_context);
  s.beta_fast = read_float(m, "rope.scaling.yarn_beta_fast|rope_scaling.beta_fast|rope_parameters.beta_fast", 32, 1e-3, 1e6);
  s.beta_slow = read_float(m, "rope.scaling.yarn_beta_slow|rope_scaling.beta_slow|rope_parameters.beta_slow", 1, 1e-3, 1e6);
  if (s.type == RopeScaling::Type::yarn) {
    const float temperature = s.factor > 1 ? 0.1f * std::log(s.factor) + 1 : 1.0f;
    s.attention_factor = temperature * read_float(m, "rope.scaling.attn_factor", 1, 1e-3, 1e3);
  }
  return s;
}

void check_heads(const Metadata& m, const Config& c) {
  NIBBLE_CHECK(c.heads % c.kv_heads == 0, m.file(), ": attention.head_count_kv: expected a divisor of head_count ",
               c.heads, ", found ", c.kv_heads);
  NIBBLE_CHECK(c.rope_dim % 2 == 0 && c.rope_dim <= c.head_dim, m.file(),
               ": rope.dimension_count: expected an even number up to the head size ", c.head_dim, ", found ", c.rope_dim);
}

}  // namespace

Config read_config(const Metadata& m) {
  Config c;
  c.layers = read_int(m, "block_count|num_hidden_layers|n_layer", max_layers);
  c.width = read_int(m, "embedding_length|hidden_size|n_embd", max_width);
  c.heads = read_int(m, "attention.head_count|num_attention_heads|n_head", max_heads);
  c.kv_heads = read_int(m, "attention.head_count_kv|num_key_value_heads", c.heads, 1, max_heads);
  if (!m.has("attention.key_length|head_dim"))
    NIBBLE_CHECK(c.width % c.heads == 0, m.file(), ": attention.head_count: expected a divisor of embedding_length ",
                 c.width, ", found ", c.heads);
  c.head_dim = read_int(m, "attention.key_length|head_dim", std::max(1, c.width / c.heads), 1, max_width);
  const int value_dim = read_int(m, "attention.value_length", c.head_dim, 1, max_width);
  NIBBLE_CHECK(value_dim == c.head_dim, m.file(), ": attention.value_length: expected the key length ", c.head_dim,
               ", found ", value_dim);
  c.ffn = read_int(m, "feed_forward_length|intermediate_size|n_inner", max_width * 8);
  c.context = read_int(m, "context_length|max_position_embeddings|n_positions", max_context);
  c.vocab = read_int(m, "vocab_size", 0, 0, max_vocab);
  c.window = read_int(m, "attention.sliding_window|sliding_window", 0, 0, std::numeric_limits<int>::max());
  c.rope_dim = read_int(m, "rope.dimension_count|rotary_dim", c.head_dim, 0, max_width);
  c.rope_theta = read_float(m, "rope.freq_base|rope_theta|rope_parameters.rope_theta", 10000, 1, 1e12);
  c.rope_scaling = read_rope_scaling(m, c.context);
  const int64_t experts = m.get_int("expert_count", 0, 0, std::numeric_limits<int>::max());
  NIBBLE_CHECK(experts == 0, m.file(), ": expert_count: expected 0 (no mixture of experts), found ", experts);
  check_heads(m, c);
  return c;
}

namespace {

// Long wavelengths are stretched by the factor, short ones kept, with a linear blend between (LLaMA 3.1).
float llama3_frequency(const RopeScaling& s, float frequency) {
  const float context = static_cast<float>(s.original_context);
  const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
  if (wavelength > context / s.low_freq_factor) return frequency / s.factor;
  if (wavelength < context / s.high_freq_factor) return frequency;
  const float smooth = (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * frequency / s.factor + smooth * frequency;
}

// The pair whose angle makes `turns` turns over the original context (YaRN, arXiv 2309.00071, section 3.2).
float yarn_pair(const Config& c, float turns) {
  const float context = static_cast<float>(c.rope_scaling.original_context);
  return static_cast<float>(c.rope_dim) * std::log(context / (turns * 2 * std::numbers::pi_v<float>)) /
         (2 * std::log(c.rope_theta));
}

float yarn_frequency(const Config& c, float frequency, int pair) {
  const RopeScaling& s = c.rope_scaling;
  const float low = std::max(std::floor(yarn_pair(c, s.beta_fast)), 0.0f);
  float high = std::min(std::ceil(yarn_pair(c, s.beta_slow)), static_cast<float>(c.rope_dim - 1));
  if (high <= low) high = low + 0.001f;
  const float ramp = std::clamp((static_cast<float>(pair) - low) / (high - low), 0.0f, 1.0f);
  return frequency / s.factor * ramp + frequency * (1 - ramp);
}

}  // namespace

std::vector<float> rope_frequencies(const Config& c, std::span<const float> factors) {
  std::vector<float> result(static_cast<size_t>(c.rope_dim / 2));
  NIBBLE_CHECK(factors.empty() || factors.size() == result.size(), "rope frequency factors: expected ", result.size(),
               ", found ", factors.size());
  for (int i = 0; i < c.rope_dim / 2; ++i) {
    float f = 1.0f / std::pow(c.rope_theta, static_cast<float>(2 * i) / static_cast<float>(c.rope_dim));
    if (!factors.empty()) {
      NIBBLE_CHECK(factors[i] > 0 && std::isfinite(factors[i]), "rope frequency factor ", i,
                   ": expected a positive number, found ", factors[i]);
      f /= factors[i];
    } else {
      switch (c.rope_scaling.type) {
        case RopeScaling::Type::none: break;
        case RopeScaling::Type::linear: f /= c.rope_scaling.factor; break;
        case RopeScaling::Type::llama3: f = llama3_frequency(c.rope_scaling, f); break;
        case RopeScaling::Type::yarn: f = yarn_frequency(c, f, i); break;
      }
    }
    result[i] = f;
  }
  return result;
}

}  // namespace nibble::models
