// SPDX-License-Identifier: Apache-2.0
// Grok-1 (github.com/xai-org/grok-1): norms before and after attention and experts, capped scores, and two of the
// experts weighted by a softmax over all of them. Folders have the names of either of the two conversions to PyTorch.
#include "models/builder.h"
#include "models/config.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  NIBBLE_CHECK(!m.has("attention.temperature_length|attn_temperature_len|final_logit_softcapping"), m.file(),
               ": key 'attention.temperature_length': Grok 2 is not supported");
  Config c = read_config(m, {.norm_eps = 1e-5, .experts = true});
  const auto number = [&](std::string_view keys, double fallback) {
    return static_cast<float>(m.get_float(keys, fallback, 1e-9, 1e9));
  };
  c.act = Act::gelu_tanh;  // whatever the name of the other GELU says that conversions to PyTorch write
  c.experts.normalize = false;
  c.embedding_scale = number("embedding_scale|embedding_multiplier_scale", 78.38367176906169);
  c.logit_scale = number("logit_scale|output_multiplier_scale", 0.5773502691896257);
  c.attention_scale = number("attention.output_scale|attn_output_multiplier", 0.08838834764831845);
  c.attention_softcap = number("attn_logit_softcapping|max_attn_value", 30);
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.rms_norm(b.attention(b.rms_norm(x, "attn_norm")), "attn_post_norm"));
  return b.add(x, b.rms_norm(b.moe(b.rms_norm(x, "ffn_norm")), "ffn_post_norm"));
}

}  // namespace

Arch grok1_arch() {
  return {
      .name = "grok1",
      .model_types = {"grok", "grok-1", "grok1"},
      .examples = "Grok-1",
      .proof = own_forward_proof,
      .config = config,
      .names =
          {{"embedding", "token_embd|transformer.in_out_embed|model.embed_tokens"},
           {"attn_norm", "blk.{}.attn_norm|transformer.decoder_layer.{}.rms_norm|=model.layers.{}.pre_attn_norm.scale"},
           {"q", "blk.{}.attn_q|transformer.decoder_layer.{}.multi_head_attention.query|model.layers.{}.attn.q_proj"},
           {"k", "blk.{}.attn_k|transformer.decoder_layer.{}.multi_head_attention.key|model.layers.{}.attn.k_proj"},
           {"v", "blk.{}.attn_v|transformer.decoder_layer.{}.multi_head_attention.value|model.layers.{}.attn.v_proj"},
           {"o",
            "blk.{}.attn_output|transformer.decoder_layer.{}.multi_head_attention.linear|model.layers.{}.attn.o_proj"},
           {"attn_post_norm",
            "blk.{}.attn_output_norm|transformer.decoder_layer.{}.rms_norm_1|=model.layers.{}.post_attn_norm.scale"},
           {"ffn_norm", "blk.{}.ffn_norm|transformer.decoder_layer.{}.rms_norm_2|=model.layers.{}.pre_moe_norm.scale"},
           {"router", "blk.{}.ffn_gate_inp|transformer.decoder_layer.{}.router|model.layers.{}.moe_block.gate"},
           {"gate_experts",
            "blk.{}.ffn_gate_exps#experts|blk.{}.ffn_gate.{e}"
            "|transformer.decoder_layer.{}.moe.{e}.linear|model.layers.{}.moe_block.experts.{e}.linear"},
           {"up_experts",
            "blk.{}.ffn_up_exps#experts|blk.{}.ffn_up.{e}"
            "|transformer.decoder_layer.{}.moe.{e}.linear_v|model.layers.{}.moe_block.experts.{e}.linear_v"},
           {"down_experts",
            "blk.{}.ffn_down_exps#experts|blk.{}.ffn_down.{e}"
            "|transformer.decoder_layer.{}.moe.{e}.linear_1|model.layers.{}.moe_block.experts.{e}.linear_1"},
           {"ffn_post_norm",
            "blk.{}.layer_output_norm|transformer.decoder_layer.{}.rms_norm_3|=model.layers.{}.post_moe_norm.scale"},
           {"output_norm", "output_norm|transformer.rms_norm|=model.norm.scale"},
           {"output", "?output|lm_head"}},
      .block = block};
}

}  // namespace nibble::models
