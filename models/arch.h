// SPDX-License-Identifier: Apache-2.0
// What an architecture is: numbers read from the file, names of weights, and one block as a few readable lines.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "models/io/metadata.h"
#include "tensor/graph.h"

namespace nibble::models {

class Builder;

enum class Pairing : unsigned char { halves, interleaved };  ///< (i, i + r/2) or (2i, 2i + 1)
enum class Act : unsigned char { silu, gelu, gelu_tanh, relu };  ///< gelu is the exact one, by erf

/// Rotary embedding scaling; `type` none leaves the rest unused.
struct RopeScaling {
  enum class Type : unsigned char { none, linear, llama3, yarn, longrope } type = Type::none;
  float factor = 1;
  float low_freq_factor = 1, high_freq_factor = 4;  ///< llama3
  int original_context = 0;                         ///< llama3, yarn, longrope
  float attention_factor = 1;                       ///< yarn, longrope: of cosines and sines
  float beta_fast = 32, beta_slow = 1;              ///< yarn
  bool truncate = true;                             ///< yarn: its ramp begins and ends at whole pairs
  std::vector<float> short_factors, long_factors;   ///< longrope, unless the file has them as tensors
};

/// A mixture of experts in place of the MLP; layers without a weight "router" have the MLP.
struct Experts {
  int count = 0, chosen = 0;            ///< count 0: no mixtures
  int ffn = 0;                          ///< of one expert
  bool sigmoid = false;                 ///< scores; else softmax
  bool normalize = false;               ///< the chosen weights add up to 1, times `scale`
  float scale = 1;
  int groups = 1, kept_groups = 1, group_best = 1;  ///< op choose_experts
  float clamp_limit = 0, clamp_alpha = 1.702f;      ///< gpt-oss's clamped SwiGLU; 0: act(gate) * up
};

/// GLM's prompts (arXiv 2103.10360): the tokens before the first `end` see each other. They have the positions 0, 1,
/// ... and 0; from `end` on tokens have the position of the first `mark` (or else of the first `other_mark`) and 1, 2,
/// ... Config::rope_dim elements of a head are rotated by the first position, as many behind them by the second.
struct PrefixRule {
  int end = -1;  ///< a token; -1: models without a prefix
  int mark = -1, other_mark = -1;
};

/// Sizes and constants of one model.
struct Config {
  int layers = 0, width = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0;
  int context = 0;    ///< positions it was trained for
  int value_dim = 0;  ///< of a value head; 0: head_dim, see value_size()
  int latent = 0;  ///< what the cache keeps for all heads, with rope_dim rotated elements; 0: it keeps keys and values
  int rope_dim = 0;   ///< rotated elements per head; 0 = no rope
  int window = 0;     ///< sliding attention window; 0 = all positions
  float rope_theta = 10000, norm_eps = 1e-5f;
  Pairing pairing = Pairing::halves;
  RopeScaling rope_scaling;
  Act act = Act::silu;                ///< of the MLP
  Experts experts;
  std::vector<bool> full_attention;   ///< by layer: sees all positions in spite of `window`; empty: none does
  std::vector<bool> no_rope;          ///< by layer: without rope; empty: none is
  float local_rope_theta = 0;         ///< base for the layers with the window, never scaled; 0: rope_theta, as for all
  float attention_scale = 0;          ///< of scores; 0: 1 / sqrt(head_dim)
  float attention_softcap = 0, logit_softcap = 0;  ///< 0: none
  float embedding_scale = 1, residual_scale = 1, logit_scale = 1;
  float alibi_bias = 0, alibi_scale = 1;  ///< ALiBi's maximal bias, 0: no ALiBi; the slopes are multiplied by the scale
  float clip_qkv = 0;                 ///< q, k and v are clamped to +- this; 0: not
  bool parallel_residual = false;     ///< attention and MLP read the same x
  bool post_norm = false;             ///< norms stand behind the residual
  PrefixRule prefix;
  bool unit_head = false;             ///< rows of the output matrix are divided by their length
  int value_size() const { return value_dim > 0 ? value_dim : head_dim; }
};

/// A weight's short name and where files keep it. `{}` stands for the layer; `a|b` are alternatives (GGUF name, Hugging
/// Face name); a leading `?` marks it optional. ".weight" and ".bias" are appended; a bias is used if the file has one.
/// `path#pieces` (models/pieces.h) takes a part of the tensor, `=path` is a tensor's whole name (its bias:
/// `path_bias`).
/// `{e}` stands for the expert, where a file has a tensor for each; "#experts" is for those that have one for all.
struct Name {
  std::string_view name;
  std::string_view paths;
};

/// For Arch::proof where transformers has the mathematics, but under another class and other names of weights.
inline constexpr std::string_view same_class_proof = "logits of the class of transformers that computes the same";
/// For Arch::proof where transformers has nothing of the kind.
inline constexpr std::string_view own_forward_proof =
    "logits of a forward pass in numpy, written from the authors' code";

struct Arch {
  std::string_view name;                      ///< "llama": the demo binary is nibble-llama
  std::vector<std::string_view> model_types;  ///< general.architecture (GGUF) and model_type (Hugging Face)
  std::string_view examples;                  ///< for --list and the README: "LLaMA 1-3, TinyLlama, SmolLM2"
  /// What shows that the definition is right; of those here, if empty: logits of Hugging Face transformers.
  std::string_view proof = {};
  std::string_view base = {};                 ///< a variant: the architecture whose files its demo binary also takes
  /// A variant: whether a file of the architecture `base` is one of this; nullptr: none is.
  bool (*claims)(const Metadata&) = nullptr;
  /// Reads and checks the numbers; throws Error naming the key. nullptr: read_config(metadata).
  Config (*config)(const Metadata&) = nullptr;
  std::vector<Name> names;
  Value (*embed)(Builder&) = nullptr;           ///< -> (m, width); nullptr: Builder::embedding()
  Value (*block)(Builder&, Value x) = nullptr;  ///< (m, width) -> (m, width); nullptr: LLaMA's
  Value (*head)(Builder&, Value x) = nullptr;   ///< rows asked for: (r, width) -> (r, vocab); nullptr: LLaMA's
};

// Every definition in models/arch/, for variants to start from.
#define NIBBLE_ARCH(name) Arch name##_arch();
#include "models/arch_list.inc"
#undef NIBBLE_ARCH

/// A list with some entries replaced (those of the same short name), taken away (empty paths) or added at the end.
std::vector<Name> change_names(std::vector<Name> names, const std::vector<Name>& changes);
/// The names of llama_arch(), which many models share, with changes.
std::vector<Name> llama_names(const std::vector<Name>& changes = {});

/// All of them, with config, block and head filled in. References stay valid when others are added.
const std::deque<Arch>& all_archs();
/// One more, of a plugin. Throws Error when it has no name or no weights, or a name or type that is there already. Not
/// while other threads use all_archs() or find_arch().
const Arch& add_arch(Arch arch);
/// By name or model type. Throws Error naming it and the known ones.
const Arch& find_arch(std::string_view name_or_type);

}  // namespace nibble::models
