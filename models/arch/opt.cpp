// SPDX-License-Identifier: Apache-2.0
// OPT (arXiv 2205.01068): learned positions (the first two rows are for padding), ReLU; the 350M kind has norms after
// the residual and embeddings narrower than the model. There are no GGUF files but those with these names.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.rotary_part = 0, .act = Act::relu, .norm_eps = 1e-5});
  c.post_norm = !m.get_bool("do_layer_norm_before", true);
  return c;
}

Value embed(Builder& b) {
  Value x = b.embedding();
  if (b.has("embedding_projection")) x = b.linear(x, "embedding_projection");
  return b.add(x, b.position_embedding());
}

Value block(Builder& b, Value x) {
  if (b.config().post_norm) {
    x = b.layer_norm(b.add(x, b.attention(x)), "attn_norm");
    return b.layer_norm(b.add(x, b.mlp(x, b.config().act)), "ffn_norm");
  }
  x = b.add(x, b.attention(b.layer_norm(x, "attn_norm")));
  return b.add(x, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act));
}

Value head(Builder& b, Value x) {
  if (b.has("output_norm")) x = b.layer_norm(x, "output_norm");
  if (b.has("output_projection")) x = b.linear(x, "output_projection");
  return b.logits(x);
}

}  // namespace

Arch opt_arch() {
  return {.name = "opt",
          .model_types = {"opt"},
          .examples = "OPT 125M to 66B",
          .config = config,
          .names = {{"embedding", "token_embd|model.decoder.embed_tokens"},
                    {"position_embedding", "position_embd#after_two|model.decoder.embed_positions#after_two"},
                    {"embedding_projection", "?token_embd_proj|model.decoder.project_in"},
                    {"attn_norm", "blk.{}.attn_norm|model.decoder.layers.{}.self_attn_layer_norm"},
                    {"q", "blk.{}.attn_q|model.decoder.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.decoder.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.decoder.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.decoder.layers.{}.self_attn.out_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.decoder.layers.{}.final_layer_norm"},
                    {"up", "blk.{}.ffn_up|model.decoder.layers.{}.fc1"},
                    {"down", "blk.{}.ffn_down|model.decoder.layers.{}.fc2"},
                    {"output_norm", "?output_norm|model.decoder.final_layer_norm"},
                    {"output_projection", "?output_proj|model.decoder.project_out"},
                    {"output", "?output|lm_head"}},
          .embed = embed,
          .block = block,
          .head = head};
}

}  // namespace nibble::models
