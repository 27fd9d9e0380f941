// SPDX-License-Identifier: Apache-2.0
#include "models/config.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>

#include "tensor/check.h"

namespace nibble::models {

namespace {

// Far above any model, low enough that products of two of them can't overflow.
constexpr int64_t max_layers = 4096, max_heads = 4096, max_width = 1 << 20, max_context = 1 << 28,
                  max_experts = 1 << 20;

int read_int(const Metadata& m, std::string_view keys, int64_t high) {
  return static_cast<int>(m.need_int(keys, 1, high));
}

int read_int(const Metadata& m, std::string_view keys, int64_t fallback, int64_t low, int64_t high) {
  return static_cast<int>(m.get_int(keys, fallback, low, high));
}

float read_float(const Metadata& m, std::string_view keys, double fallback, double low, double high) {
  return static_cast<float>(m.get_float(keys, fallback, low, high));
}

/// Where files keep a number of the rope's scaling.
std::string scaling_keys(std::string_view key) {
  std::string keys;
  for (std::string_view place :
       {"rope.scaling.", "rope_scaling.", "rope_parameters.", "rope_parameters.full_attention."})
    keys += message(keys.empty() ? "" : "|", place, key);
  return keys;
}

RopeScaling::Type scaling_type(const Metadata& m) {
  const std::string type = m.get_string("rope.scaling.type|" + scaling_keys("rope_type") + "|rope_scaling.type",
                                        m.has("rope.scale_linear")           ? "linear"
                                        : m.has("rope.scaling.attn_factor") ? "longrope"  // GGUF files of phi3
                                                                             : "none");
  if (type == "none" || type == "default") return RopeScaling::Type::none;
  if (type == "linear") return RopeScaling::Type::linear;
  if (type == "llama3") return RopeScaling::Type::llama3;
  if (type == "yarn") return RopeScaling::Type::yarn;
  if (type == "longrope" || type == "su") return RopeScaling::Type::longrope;
  fail(m.file(), ": rope.scaling.type: expected none, linear, llama3, yarn or longrope, found '", type, "'");
}

std::vector<float> factors(const Metadata& m, std::string_view key) {
  std::vector<float> result;
  const std::string keys = scaling_keys(key);
  const nlohmann::json* list = m.find(keys);
  if (list == nullptr) return result;
  for (const nlohmann::json& item : *list) {
    NIBBLE_CHECK(item.is_number() && item.get<double>() > 0, m.file(), ": key '", key, "': expected positive numbers");
    result.push_back(item.get<float>());
  }
  return result;
}

/// What cosines and sines are multiplied by.
float attention_factor(const Metadata& m, const RopeScaling& s, int context) {
  const bool gguf = m.source() == Metadata::Source::gguf;
  const double given = gguf ? 0 : m.get_float(scaling_keys("attention_factor"), 0, 0, 1e3);
  if (given > 0) return static_cast<float>(given);
  const float written = gguf ? read_float(m, "rope.scaling.attn_factor", 0, 0, 1e3) : 0;
  if (s.type == RopeScaling::Type::yarn) {
    const double scale = m.get_float(scaling_keys("mscale"), 0, 0, 1e3),
                 all = m.get_float(scaling_keys("mscale_all_dim"), 0, 0, 1e3);
    if (!gguf && scale > 0 && all > 0) return yarn_scale(s, scale) / yarn_scale(s, all);
    return yarn_scale(s, 1) * (written > 0 ? written : 1);
  }
  if (s.type != RopeScaling::Type::longrope) return 1;
  if (written > 0) return written;
  const float factor = s.factor > 1 ? s.factor : static_cast<float>(context) / static_cast<float>(s.original_context);
  return factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(static_cast<float>(s.original_context)));
}

RopeScaling read_rope_scaling(const Metadata& m, int context) {
  RopeScaling s;
  s.type = scaling_type(m);
  if (s.type == RopeScaling::Type::none) return s;
  const bool longrope = s.type == RopeScaling::Type::longrope;
  const std::string factor = scaling_keys("factor") + "|rope.scale_linear";
  s.factor = static_cast<float>(longrope ? m.get_float(factor, 1, 1e-3, 1e6) : m.need_float(factor, 1e-3, 1e6));
  s.low_freq_factor = read_float(m, scaling_keys("low_freq_factor"), 1, 1e-3, 1e6);
  s.high_freq_factor = read_float(m, scaling_keys("high_freq_factor"), 4, 1e-3, 1e6);
  NIBBLE_CHECK(s.low_freq_factor < s.high_freq_factor, m.file(), ": rope.scaling.low_freq_factor ", s.low_freq_factor,
               " is not below rope.scaling.high_freq_factor ", s.high_freq_factor);
  s.original_context =
      read_int(m,
               "rope.scaling.original_context_length|" + scaling_keys("original_max_position_embeddings") +
                   "|original_max_position_embeddings",
               context, 1, max_context);
  s.beta_fast = read_float(m, "rope.scaling.yarn_beta_fast|" + scaling_keys("beta_fast"), 32, 1e-3, 1e6);
  s.beta_slow = read_float(m, "rope.scaling.yarn_beta_slow|" + scaling_keys("beta_slow"), 1, 1e-3, 1e6);
  s.truncate = m.get_bool(scaling_keys("truncate"), true);
  s.short_factors = factors(m, "short_factor");
  s.long_factors = factors(m, "long_factor");
  s.attention_factor = attention_factor(m, s, context);
  return s;
}

Act read_act(const Metadata& m, Act fallback) {
  constexpr std::string_view keys = "hidden_activation|hidden_act|activation_function|activation";
  if (!m.has(keys)) return fallback;
  const std::string name = m.need_string(keys);
  if (name == "silu" || name == "swish") return Act::silu;
  if (name == "gelu") return Act::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast" || name == "gelu_tanh")
    return Act::gelu_tanh;
  if (name == "relu") return Act::relu;
  fail(m.file(), ": key '", keys, "': expected silu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast or relu, found '",
       printable(name), "'");
}

/// By layer; `every` > 0: each every-th one where the file does not say.
std::vector<bool> read_full_attention(const Metadata& m, int layers, int every) {
  const nlohmann::json* kinds = m.find("attention.sliding_window_pattern|layer_types|sliding_window_pattern");
  std::vector<bool> full;
  if (kinds != nullptr && kinds->is_array()) {
    NIBBLE_CHECK(kinds->size() == static_cast<size_t>(layers), m.file(), ": layer_types: expected ", layers,
                 " entries, found ", kinds->size());
    for (const nlohmann::json& kind : *kinds)
      full.push_back(kind.is_string() ? kind == "full_attention" : kind == false || kind == 0);
    return full;
  }
  if (kinds != nullptr) every = read_int(m, "attention.sliding_window_pattern|sliding_window_pattern", max_layers);
  const int first_sliding = read_int(m, "max_window_layers", 0, 0, max_layers);
  for (int i = 0; i < layers; ++i) full.push_back(i < first_sliding || (every > 0 && (i + 1) % every == 0));
  return full;
}

Experts read_experts(const Metadata& m, int ffn, bool normalize) {
  Experts e;
  e.count = read_int(m, "expert_count|num_local_experts|num_experts|n_routed_experts", max_experts);
  e.chosen = read_int(m, "expert_used_count|num_experts_per_tok", e.count);
  e.ffn = read_int(m, "expert_feed_forward_length|moe_intermediate_size", ffn, 1, max_width * 8);
  e.normalize = m.get_bool("expert_weights_norm|norm_topk_prob", normalize);
  e.scale = read_float(m, "expert_weights_scale|routed_scaling_factor", 1, 0, 1e6);
  if (e.scale == 0) e.scale = 1;  // what converters write for "none"
  return e;
}

}  // namespace

float yarn_scale(const RopeScaling& s, double strength) {
  return s.factor > 1 ? 0.1f * static_cast<float>(strength) * std::log(s.factor) + 1 : 1.0f;
}

void check_heads(const Metadata& m, const Config& c) {
  NIBBLE_CHECK(c.heads % c.kv_heads == 0, m.file(), ": attention.head_count_kv: expected a divisor of head_count ",
               c.heads, ", found ", c.kv_heads);
  NIBBLE_CHECK(c.rope_dim % 2 == 0 && c.rope_dim <= c.head_dim, m.file(),
               ": rope.dimension_count: expected an even number up to the head size ", c.head_dim, ", found ",
               c.rope_dim);
}

Config read_config(const Metadata& m, const ConfigDefaults& defaults) {
  Config c;
  c.layers = read_int(m, "block_count|num_hidden_layers|n_layer|n_layers|num_layers", max_layers);
  c.width = read_int(m, "embedding_length|hidden_size|n_embd|d_model", max_width);
  c.heads = read_int(m, "attention.head_count|num_attention_heads|n_head|n_heads", max_heads);
  c.kv_heads = read_int(m, "attention.head_count_kv|num_key_value_heads", c.heads, 1, max_heads);
  if (!m.has("attention.key_length|head_dim|kv_channels"))
    NIBBLE_CHECK(c.width % c.heads == 0, m.file(), ": attention.head_count: expected a divisor of embedding_length ",
                 c.width, ", found ", c.heads);
  c.head_dim = read_int(m, "attention.key_length|head_dim|kv_channels", std::max(1, c.width / c.heads), 1, max_width);
  const int value_dim = read_int(m, "attention.value_length", c.head_dim, 1, max_width);
  NIBBLE_CHECK(value_dim == c.head_dim || defaults.value_size, m.file(),
               ": attention.value_length: expected the key length ", c.head_dim, ", found ", value_dim);
  constexpr std::string_view ffn_keys =
      "feed_forward_length|intermediate_size|n_inner|ffn_hidden_size|ffn_dim|inner_hidden_size";
  c.ffn = !m.has(ffn_keys) && defaults.ffn > 0 ? defaults.ffn * c.width : read_int(m, ffn_keys, max_width * 8);
  constexpr std::string_view context_keys =
      "context_length|max_position_embeddings|n_positions|seq_length|max_seq_len|model_max_length|max_sequence_length";
  c.context = !m.has(context_keys) && defaults.context > 0 ? defaults.context : read_int(m, context_keys, max_context);
  c.vocab = read_int(m, "vocab_size|padded_vocab_size", 0, 0, max_vocab);
  c.window = read_int(m, "attention.sliding_window|sliding_window", 0, 0, std::numeric_limits<int>::max());
  if (!m.get_bool("use_sliding_window", true)) c.window = 0;
  const float part = read_float(m, "partial_rotary_factor|rotary_pct|rope_pct|rope_parameters.partial_rotary_factor",
                                double{defaults.rotary_part}, 0, 1);
  c.rope_dim = read_int(m, "rope.dimension_count|rotary_dim", static_cast<int>(part * static_cast<float>(c.head_dim)),
                        0, max_width);
  c.rope_theta = read_float(m, "rope.freq_base|rope_theta|rotary_emb_base|rope_parameters.rope_theta|"
                            "rope_parameters.full_attention.rope_theta", 10000, 1, 1e12);
  c.rope_scaling = read_rope_scaling(m, c.context);
  c.full_attention = read_full_attention(m, c.layers, defaults.full_attention_every);
  c.act = read_act(m, defaults.act);
  c.pairing =
      defaults.reordered_in_gguf && m.source() == Metadata::Source::gguf ? Pairing::interleaved : defaults.pairing;
  constexpr std::string_view eps_keys =
      "attention.layer_norm_rms_epsilon|attention.layer_norm_epsilon|rms_norm_eps|layer_norm_eps|layer_norm_epsilon|"
      "layernorm_epsilon|norm_epsilon|norm_eps";
  c.norm_eps = static_cast<float>(!m.has(eps_keys) && defaults.norm_eps > 0 ? defaults.norm_eps
                                                                            : m.need_float(eps_keys, 1e-12, 1));
  c.parallel_residual = m.get_bool("use_parallel_residual", defaults.parallel_residual);
  c.attention_softcap = read_float(m, "attn_logit_softcapping", 0, 0, 1e6);
  c.logit_softcap = read_float(m, "final_logit_softcapping", 0, 0, 1e6);
  if (defaults.experts) {
    c.experts = read_experts(m, c.ffn, defaults.normalize_experts);
  } else {
    const int64_t experts = m.get_int("expert_count", 0, 0, std::numeric_limits<int>::max());
    NIBBLE_CHECK(experts == 0, m.file(), ": expert_count: expected 0 (no mixture of experts), found ", experts);
  }
  check_heads(m, c);
  return c;
}

std::vector<bool> read_layers(const Metadata& m, std::string_view keys, int layers, int every) {
  std::vector<bool> result;
  const nlohmann::json* list = m.find(keys);
  for (int i = 0; list == nullptr && i < layers; ++i) result.push_back((i + 1) % every != 0);
  if (list == nullptr) return result;
  NIBBLE_CHECK(list->is_array() && list->size() == static_cast<size_t>(layers), m.file(), ": key '", keys,
               "': expected a list of ", layers, " flags");
  for (const nlohmann::json& item : *list) result.push_back(item != 0 && item != false);
  return result;
}

std::vector<float> alibi_slopes(const Config& c) {
  const int power = static_cast<int>(std::bit_floor(static_cast<unsigned>(c.heads)));
  std::vector<float> slopes;
  for (int i = 1; i <= power; ++i)
    slopes.push_back(c.alibi_scale * std::exp2(-c.alibi_bias * static_cast<float>(i) / static_cast<float>(power)));
  // the heads beyond a power of two take every other slope of twice as many heads
  for (int i = 1; power + (i + 1) / 2 <= c.heads; i += 2)
    slopes.push_back(c.alibi_scale * std::exp2(-c.alibi_bias * static_cast<float>(i) / static_cast<float>(2 * power)));
  return slopes;
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
  const float first = yarn_pair(c, s.beta_fast), last = yarn_pair(c, s.beta_slow);
  const float low = std::max(s.truncate ? std::floor(first) : first, 0.0f);
  float high = std::min(s.truncate ? std::ceil(last) : last, static_cast<float>(c.rope_dim - 1));
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
        case RopeScaling::Type::longrope: break;  // factors only
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
