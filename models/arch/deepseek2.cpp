// SPDX-License-Identifier: Apache-2.0
// DeepSeek-V2 (arXiv 2405.04434) and V3 (2412.19437): the cache keeps a small latent vector, of which keys and values
// are made, and a rotated part of the keys for all heads; leading dense layers; shared experts, others by groups.
#include <cmath>

#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Experts experts(const Metadata& m, Experts e) {
  const bool v3 = m.get_string("model_type", "") == "deepseek_v3";  // transformers writes no scoring_func
  const std::string score = m.get_string("scoring_func", v3 ? "sigmoid" : "softmax");
  e.sigmoid = m.get_int("expert_gating_func", score == "sigmoid" ? 2 : 1, 1, 2) == 2;
  e.group_best = e.sigmoid ? 2 : 1;
  if (m.get_string("topk_method", "") == "greedy") return e;
  e.groups = static_cast<int>(m.get_int("expert_group_count|n_group", 1, 1, e.count));
  e.kept_groups = static_cast<int>(m.get_int("expert_group_used_count|topk_group", e.groups, 1, e.groups));
  return e;
}

Config config(const Metadata& m) {
  Config c = read_config(m, {.pairing = Pairing::interleaved, .experts = true, .value_size = true});
  const bool gguf = m.source() == Metadata::Source::gguf;
  const auto size = [&](std::string_view keys) { return static_cast<int>(m.need_int(keys, 1, 1 << 20)); };
  c.kv_heads = c.heads;
  c.rope_dim = size("rope.dimension_count|qk_rope_head_dim");
  c.head_dim = gguf ? size("attention.key_length_mla|attention.key_length") : size("qk_nope_head_dim") + c.rope_dim;
  c.value_dim = size("attention.value_length_mla|attention.value_length|v_head_dim");
  c.latent = size("attention.kv_lora_rank|kv_lora_rank");
  if (!m.get_bool("rope_interleave", true)) c.pairing = Pairing::halves;
  check_heads(m, c);
  c.experts = experts(m, c.experts);
  // GGUF files have a tenth of mscale_all_dim, and mscale is the same
  const double strength = gguf ? 10 * m.get_float("rope.scaling.yarn_log_multiplier", 0, 0, 1e3)
                               : m.get_float("rope_scaling.mscale_all_dim|rope_parameters.mscale_all_dim", 0, 0, 1e3);
  if (strength == 0 || c.rope_scaling.type != RopeScaling::Type::yarn) return c;
  if (gguf) c.rope_scaling.attention_factor = 1;
  c.attention_scale = std::pow(yarn_scale(c.rope_scaling, strength), 2.0f) / std::sqrt(static_cast<float>(c.head_dim));
  return c;
}

Value block(Builder& b, Value x) {
  const Config& c = b.config();
  const Value n = b.rms_norm(x, "attn_norm"), latent = b.rms_norm(b.linear(n, "latent"), "latent_norm");
  const Value q = b.has("q_a") ? b.linear(b.rms_norm(b.linear(n, "q_a"), "q_a_norm"), "q_b") : b.linear(n, "q");
  const Value rotated = b.rope(b.linear(n, "k_rope"), c.rope_dim);
  x = b.add(x, b.attend_latent(b.rope(q, c.head_dim, c.head_dim - c.rope_dim), latent, rotated));
  return b.add(x, b.moe_or_mlp(b.rms_norm(x, "ffn_norm")));
}

}  // namespace

Arch deepseek2_arch() {
  return {.name = "deepseek2",
          .model_types = {"deepseek2", "deepseek_v2", "deepseek_v3"},
          .examples = "DeepSeek-V2, V2-Lite, V3, R1",
          .config = config,
          .names = change_names(
              qwen2moe_arch().names,
              {{"q", "?blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
               {"q_a", "?blk.{}.attn_q_a|model.layers.{}.self_attn.q_a_proj"},
               {"q_a_norm", "?blk.{}.attn_q_a_norm|model.layers.{}.self_attn.q_a_layernorm"},
               {"q_b", "?blk.{}.attn_q_b|model.layers.{}.self_attn.q_b_proj"},
               {"latent", "blk.{}.attn_kv_a_mqa#before_rope|model.layers.{}.self_attn.kv_a_proj_with_mqa#before_rope"},
               {"k_rope", "blk.{}.attn_kv_a_mqa#rope|model.layers.{}.self_attn.kv_a_proj_with_mqa#rope"},
               {"latent_norm", "blk.{}.attn_kv_a_norm|model.layers.{}.self_attn.kv_a_layernorm"},
               {"k", "blk.{}.attn_k_b#experts|blk.{}.attn_kv_b#latent_k|model.layers.{}.self_attn.kv_b_proj#latent_k"},
               {"v", "blk.{}.attn_v_b#experts|blk.{}.attn_kv_b#latent_v|model.layers.{}.self_attn.kv_b_proj#latent_v"},
               {"router_choice", "?=blk.{}.exp_probs_b.bias|=model.layers.{}.mlp.gate.e_score_correction_bias"},
               {"shared_router", ""},
               {"shared_gate", "?blk.{}.ffn_gate_shexp|model.layers.{}.mlp.shared_experts.gate_proj"},
               {"shared_up", "?blk.{}.ffn_up_shexp|model.layers.{}.mlp.shared_experts.up_proj"},
               {"shared_down", "?blk.{}.ffn_down_shexp|model.layers.{}.mlp.shared_experts.down_proj"}}),
          .block = block};
}

}  // namespace nibble::models
