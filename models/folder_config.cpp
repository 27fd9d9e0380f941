// SPDX-License-Identifier: Apache-2.0
// config.json of a model that comes from GGUF. What is written is read back and compared with what the file says, so
// that no number is lost; keys are those of transformers' configuration classes.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "models/config.h"
#include "models/gguf_folder.h"
#include "tensor/check.h"

namespace nibble::models {

using nlohmann::ordered_json;
using WeightNames = std::vector<std::string_view>;

/// Weights of which all have a bias or none; `flag` is the key that says so, "" where they always have one.
struct BiasGroup {
  std::string_view flag;
  WeightNames weights;
};

struct FolderConfig;

struct FolderKind {
  std::string_view arch, model_type, model_class;
  std::string_view eps = "rms_norm_eps";
  std::vector<BiasGroup> biases = {};
  bool layer_types = false;  ///< its classes read which layers have the window
  void (*more)(const FolderConfig&, ordered_json&) = nullptr;
};

/// What is known of a model that is written.
struct FolderConfig {
  const Checkpoint& file;
  const Config& config;
  const WeightNames& weights;
  bool has(std::string_view weight) const { return std::find(weights.begin(), weights.end(), weight) != weights.end(); }
};

namespace {

/// The shortest number that reads back as the same float.
double shortest(float value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  double out = 0;
  std::from_chars(text, end, out);
  return out;
}

/// For models that leave the number to its square root.
double whole_or(double number) {
  return std::fabs(number - std::nearbyint(number)) < 1e-4 * number ? std::nearbyint(number) : number;
}

std::string_view act_name(Act act) {
  switch (act) {
    case Act::silu:
      return "silu";
    case Act::gelu:
      return "gelu";
    case Act::gelu_tanh:
      return "gelu_pytorch_tanh";
    case Act::relu:
      return "relu";
  }
  return "";
}

void set_query_scale(const FolderConfig& f, ordered_json& json) {
  const double scale = double{f.config.attention_scale};
  const double scalar = whole_or(1 / (scale * scale));
  json["query_pre_attn_scalar"] = scalar;
  if (scalar == std::nearbyint(scalar)) json["query_pre_attn_scalar"] = static_cast<int64_t>(scalar);
}

void more_gemma(const FolderConfig& f, ordered_json& json) { json["hidden_activation"] = act_name(f.config.act); }

void more_gemma2(const FolderConfig& f, ordered_json& json) {
  more_gemma(f, json);
  set_query_scale(f, json);
  const auto cap = [&](const char* key, float value) {
    json[key] = value > 0 ? ordered_json(shortest(value)) : ordered_json();
  };
  cap("attn_logit_softcapping", f.config.attention_softcap);
  cap("final_logit_softcapping", f.config.logit_softcap);
}

void more_gemma3(const FolderConfig& f, ordered_json& json) {
  more_gemma2(f, json);
  json["rope_local_base_freq"] = shortest(f.config.local_rope_theta);
}

void more_granite(const FolderConfig& f, ordered_json& json) {
  const Config& c = f.config;
  json["embedding_multiplier"] = shortest(c.embedding_scale);
  json["residual_multiplier"] = shortest(c.residual_scale);
  json["attention_multiplier"] =
      shortest(c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(static_cast<float>(c.head_dim)));
  json["logits_scaling"] = shortest(static_cast<float>(f.file.metadata().get_float("logit_scale", 1, 1e-9, 1e9)));
}

void more_smollm3(const FolderConfig& f, ordered_json& json) {
  json["no_rope_layers"] = ordered_json::array();
  for (const bool without : f.config.no_rope) json["no_rope_layers"].push_back(without ? 0 : 1);
}

void more_stablelm(const FolderConfig& f, ordered_json& json) {
  json["use_parallel_residual"] = !f.has("ffn_norm");
  json["qk_layernorm"] = f.has("q_norm");
}

void more_phi3(const FolderConfig& f, ordered_json& json) {
  if (f.config.rope_scaling.original_context > 0)
    json["original_max_position_embeddings"] = f.config.rope_scaling.original_context;
  else
    json["original_max_position_embeddings"] = f.config.context;
}

void more_mixtral(const FolderConfig& f, ordered_json& json) {
  json["num_local_experts"] = f.config.experts.count;
  json["num_experts_per_tok"] = f.config.experts.chosen;
}

void more_experts(const FolderConfig& f, ordered_json& json) {
  const Experts& e = f.config.experts;
  json["num_experts"] = e.count;
  json["num_experts_per_tok"] = e.chosen;
  json["norm_topk_prob"] = e.normalize;
}

void more_qwen3moe(const FolderConfig& f, ordered_json& json) {
  more_experts(f, json);
  json["moe_intermediate_size"] = f.config.experts.ffn;
  json["decoder_sparse_step"] = 1;
  json["mlp_only_layers"] = ordered_json::array();
}

/// Another set of keys for the same numbers.
void more_gpt2(const FolderConfig& f, ordered_json& json) {
  const Config& c = f.config;
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "max_position_embeddings", "hidden_act", "rope_theta", "rope_scaling", "sliding_window"})
    json.erase(key);
  json["n_embd"] = c.width;
  json["n_inner"] = c.ffn;
  json["n_layer"] = c.layers;
  json["n_head"] = c.heads;
  json["n_positions"] = json["n_ctx"] = c.context;
  json["activation_function"] = "gelu_new";
}

const BiasGroup attention_bias = {"attention_bias", {"q", "k", "v", "o"}},
                mlp_bias = {"mlp_bias", {"gate", "up", "down"}};

const std::vector<FolderKind>& kinds() {
  static const std::vector<FolderKind> all = {
      {.arch = "llama", .model_type = "llama", .model_class = "LlamaForCausalLM", .biases = {attention_bias, mlp_bias}},
      {.arch = "mistral", .model_type = "mistral", .model_class = "MistralForCausalLM"},
      {.arch = "mixtral", .model_type = "mixtral", .model_class = "MixtralForCausalLM", .more = more_mixtral},
      {.arch = "qwen2",
       .model_type = "qwen2",
       .model_class = "Qwen2ForCausalLM",
       .biases = {{"", {"q", "k", "v"}}},
       .layer_types = true},
      {.arch = "qwen3",
       .model_type = "qwen3",
       .model_class = "Qwen3ForCausalLM",
       .biases = {attention_bias},
       .layer_types = true},
      {.arch = "qwen3moe",
       .model_type = "qwen3_moe",
       .model_class = "Qwen3MoeForCausalLM",
       .biases = {attention_bias},
       .more = more_qwen3moe},
      {.arch = "olmo2", .model_type = "olmo2", .model_class = "Olmo2ForCausalLM", .biases = {attention_bias}},
      {.arch = "olmoe",
       .model_type = "olmoe",
       .model_class = "OlmoeForCausalLM",
       .biases = {attention_bias},
       .more = more_experts},
      {.arch = "gemma",
       .model_type = "gemma",
       .model_class = "GemmaForCausalLM",
       .biases = {attention_bias},
       .more = more_gemma},
      {.arch = "gemma2",
       .model_type = "gemma2",
       .model_class = "Gemma2ForCausalLM",
       .biases = {attention_bias},
       .layer_types = true,
       .more = more_gemma2},
      {.arch = "gemma3",
       .model_type = "gemma3_text",
       .model_class = "Gemma3ForCausalLM",
       .biases = {attention_bias},
       .layer_types = true,
       .more = more_gemma3},
      {.arch = "granite",
       .model_type = "granite",
       .model_class = "GraniteForCausalLM",
       .biases = {attention_bias, mlp_bias},
       .more = more_granite},
      {.arch = "smollm3",
       .model_type = "smollm3",
       .model_class = "SmolLM3ForCausalLM",
       .biases = {attention_bias, mlp_bias},
       .layer_types = true,
       .more = more_smollm3},
      {.arch = "phi3", .model_type = "phi3", .model_class = "Phi3ForCausalLM", .more = more_phi3},
      {.arch = "starcoder2",
       .model_type = "starcoder2",
       .model_class = "Starcoder2ForCausalLM",
       .eps = "norm_epsilon",
       .biases = {{"use_bias", {"q", "k", "v", "o", "up", "down"}}, {"", {"attn_norm", "ffn_norm", "output_norm"}}}},
      {.arch = "stablelm",
       .model_type = "stablelm",
       .model_class = "StableLmForCausalLM",
       .eps = "layer_norm_eps",
       .biases = {{"use_qkv_bias", {"q", "k", "v"}}, {"", {"attn_norm", "ffn_norm", "output_norm"}}},
       .more = more_stablelm},
      {.arch = "gpt2",
       .model_type = "gpt2",
       .model_class = "GPT2LMHeadModel",
       .eps = "layer_norm_epsilon",
       .biases = {{"", {"attn_norm", "q", "k", "v", "o", "ffn_norm", "up", "down", "output_norm"}}},
       .more = more_gpt2},
  };
  return all;
}

/// llama.cpp's files have what the frequencies are divided by; the usual numbers that give the same are looked for.
RopeScaling find_llama3(const Config& config, const std::vector<float>& factors, const std::string& where) {
  const float most = *std::max_element(factors.begin(), factors.end());
  const std::vector<float> wanted = rope_frequencies(config, factors);
  for (int original = 1; original <= config.context && original > 0; original *= 2) {
    for (const auto& [low, high] :
         {std::pair(1.0f, 4.0f), std::pair(1.0f, 2.0f), std::pair(1.0f, 8.0f), std::pair(1.0f, 1.5f)}) {
      Config tried = config;
      tried.rope_scaling.type = RopeScaling::Type::llama3;
      tried.rope_scaling.factor = most;
      tried.rope_scaling.low_freq_factor = low;
      tried.rope_scaling.high_freq_factor = high;
      tried.rope_scaling.original_context = original;
      const std::vector<float> got = rope_frequencies(tried, {});
      // both are a few roundings of f32 away from the true one
      const auto same = [](float a, float b) { return std::fabs(a - b) <= 0x1p-21f * b; };
      if (std::equal(got.begin(), got.end(), wanted.begin(), same)) return tried.rope_scaling;
    }
  }
  fail(where, ": expected the factors of llama3's scaling, others can't be written to a folder");
}

std::vector<float> tensor_floats(const Checkpoint& file, std::string_view name) {
  const StoredTensor* tensor = file.tensor(name);
  if (tensor == nullptr) return {};
  NIBBLE_CHECK(tensor->shape.rank() == 1 && tensor->block_elements() == 1, file.where(*tensor),
               ": expected a vector of floats, found ", tensor->type_name(), " ", to_string(tensor->shape));
  std::vector<float> out(static_cast<size_t>(tensor->shape.elements()));
  to_floats(*tensor, file.bytes(*tensor).data(), static_cast<int64_t>(out.size()), out.data());
  return out;
}

/// With the numbers that GGUF has as tensors.
RopeScaling full_scaling(const Checkpoint& file, const Config& config) {
  RopeScaling scaling = config.rope_scaling;
  const std::vector<float> factors = tensor_floats(file, "rope_freqs.weight");
  if (!factors.empty()) {
    const std::string where = file.where(*file.tensor("rope_freqs.weight"));
    NIBBLE_CHECK(scaling.type == RopeScaling::Type::none && static_cast<int>(factors.size()) == config.rope_dim / 2,
                 where, ": expected ", config.rope_dim / 2, " factors and no other scaling of the rope, found ",
                 factors.size());
    return find_llama3(config, factors, where);
  }
  if (scaling.type == RopeScaling::Type::longrope) {
    if (scaling.short_factors.empty()) scaling.short_factors = tensor_floats(file, "rope_factors_short.weight");
    if (scaling.long_factors.empty()) scaling.long_factors = tensor_floats(file, "rope_factors_long.weight");
  }
  return scaling;
}

ordered_json scaling_json(const RopeScaling& s) {
  constexpr std::string_view names[] = {"default", "linear", "llama3", "yarn", "longrope"};
  if (s.type == RopeScaling::Type::none) return {};
  const std::string_view name = names[static_cast<int>(s.type)];
  const auto list = [](const std::vector<float>& numbers) {
    ordered_json out = ordered_json::array();
    for (const float number : numbers) out.push_back(shortest(number));
    return out;
  };
  if (s.type == RopeScaling::Type::longrope)
    return {{"type", name}, {"short_factor", list(s.short_factors)}, {"long_factor", list(s.long_factors)}};
  ordered_json json = {{"rope_type", name}, {"factor", shortest(s.factor)}};
  if (s.type == RopeScaling::Type::linear) return json;
  json["original_max_position_embeddings"] = s.original_context;
  if (s.type == RopeScaling::Type::llama3) {
    json["low_freq_factor"] = shortest(s.low_freq_factor);
    json["high_freq_factor"] = shortest(s.high_freq_factor);
    return json;
  }
  json["beta_fast"] = shortest(s.beta_fast);
  json["beta_slow"] = shortest(s.beta_slow);
  json["attention_factor"] = shortest(s.attention_factor);
  if (!s.truncate) json["truncate"] = false;
  return json;
}

void add_biases(const FolderKind& kind, const FolderConfig& f, const WeightNames& biased, ordered_json& json) {
  const auto in = [](const WeightNames& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  for (const std::string_view name : biased) {
    const bool known =
        std::any_of(kind.biases.begin(), kind.biases.end(), [&](const BiasGroup& g) { return in(g.weights, name); });
    NIBBLE_CHECK(known, f.file.path(), ": '", name, "' has a bias, which ", kind.model_class,
                 " has not: it can't be written to a folder");
  }
  for (const BiasGroup& group : kind.biases) {
    int count = 0, with = 0;
    for (const std::string_view name : group.weights) {
      count += f.has(name) ? 1 : 0;
      with += in(biased, name) ? 1 : 0;
    }
    NIBBLE_CHECK(with == count || (with == 0 && !group.flag.empty()), f.file.path(), ": ", with, " of the weights ",
                 group.weights.front(), ", ...", group.weights.back(), " have a bias; expected ", count, ", as ",
                 kind.model_class, " has");
    if (!group.flag.empty()) json[std::string(group.flag)] = with > 0;
  }
}

void add_ids(const FolderConfig& f, ordered_json& json) {
  for (const auto& [key, name] :
       {std::pair("bos_token_id", "bos"), std::pair("eos_token_id", "eos"), std::pair("pad_token_id", "padding")}) {
    const int64_t id =
        f.file.metadata().get_int(message("tokenizer.ggml.", name, "_token_id"), -1, -1, int64_t{1} << 32);
    json[key] = id >= 0 && id < f.config.vocab ? ordered_json(id) : ordered_json();
  }
}

/// Throws unless the folder's configuration says what the file's does.
void compare(const Config& file, const Config& folder, const std::string& path) {
  const auto same = [&](std::string_view what, auto a, auto b) {
    NIBBLE_CHECK(a == b, path, ": ", what, " can't be written to config.json: expected ", a, ", it would be ", b);
  };
#define NIBBLE_SAME(field) same(#field, file.field, folder.field)
  NIBBLE_SAME(layers);
  NIBBLE_SAME(width);
  NIBBLE_SAME(heads);
  NIBBLE_SAME(kv_heads);
  NIBBLE_SAME(head_dim);
  NIBBLE_SAME(ffn);
  NIBBLE_SAME(vocab);
  NIBBLE_SAME(context);
  NIBBLE_SAME(value_size());
  NIBBLE_SAME(latent);
  NIBBLE_SAME(rope_dim);
  NIBBLE_SAME(window);
  NIBBLE_SAME(rope_theta);
  NIBBLE_SAME(norm_eps);
  NIBBLE_SAME(experts.count);
  NIBBLE_SAME(experts.chosen);
  NIBBLE_SAME(experts.sigmoid);
  NIBBLE_SAME(experts.normalize);
  NIBBLE_SAME(experts.scale);
  NIBBLE_SAME(experts.groups);
  NIBBLE_SAME(experts.kept_groups);
  NIBBLE_SAME(local_rope_theta);
  NIBBLE_SAME(attention_softcap);
  NIBBLE_SAME(logit_softcap);
  NIBBLE_SAME(embedding_scale);
  NIBBLE_SAME(residual_scale);
  NIBBLE_SAME(logit_scale);
  NIBBLE_SAME(alibi_bias);
  NIBBLE_SAME(clip_qkv);
  NIBBLE_SAME(post_norm);
#undef NIBBLE_SAME
  if (file.experts.count > 0) same("experts.ffn", file.experts.ffn, folder.experts.ffn);
  same("the activation", act_name(file.act), act_name(folder.act));
  const auto scale = [](const Config& c) {
    return c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(static_cast<float>(c.head_dim));
  };
  NIBBLE_CHECK(std::fabs(scale(file) - scale(folder)) <= 0x1p-21f * scale(file), path,
               ": the scale of attention can't be written to config.json: expected ", scale(file), ", it would be ",
               scale(folder));
  for (int i = 0; i < file.layers; ++i) {
    const auto flag = [&](const std::vector<bool>& layers) {
      return !layers.empty() && layers[static_cast<size_t>(i)];
    };
    if (file.window > 0)
      same(message("the window of layer ", i), !flag(file.full_attention), !flag(folder.full_attention));
    same(message("whether there is no rope in layer ", i), flag(file.no_rope), flag(folder.no_rope));
  }
  same("the rope's attention factor", file.rope_scaling.attention_factor, folder.rope_scaling.attention_factor);
  NIBBLE_CHECK(file.rope_scaling.short_factors == folder.rope_scaling.short_factors &&
                   file.rope_scaling.long_factors == folder.rope_scaling.long_factors,
               path, ": the factors of longrope can't be written to config.json");
  if (file.rope_dim == 0 || file.rope_scaling.type == RopeScaling::Type::longrope) return;
  const std::vector<float> a = rope_frequencies(file, {}), b = rope_frequencies(folder, {});
  for (size_t i = 0; i < a.size(); ++i) same("a frequency of the rope", a[i], b[i]);
}

/// q's and k's pairs: whether they have to change places. `file` is what the folder must say.
bool check_config(const FolderKind& kind, const Config& file, const ordered_json& json, const std::string& path) {
  const Config folder = find_arch(kind.model_type).config(config_metadata(path, json));
  compare(file, folder, path);
  const bool reordered = file.pairing != folder.pairing;
  NIBBLE_CHECK(!reordered || folder.pairing == Pairing::halves, path,
               ": the order of q and k can't be written to a folder");
  return reordered;
}

}  // namespace

Metadata config_metadata(const std::string& path, const ordered_json& json) {
  return Metadata(Metadata::Source::hugging_face, path + ", as config.json", "", nlohmann::json::parse(json.dump()));
}

const FolderKind& find_folder_kind(const Arch& arch, const Config& config, const std::string& path) {
  // files of Mistral's models say llama, but transformers' LLaMA has no window
  const std::string_view wanted = arch.name == "llama" && config.window > 0 ? "mistral" : arch.name;
  std::string known;
  for (const FolderKind& kind : kinds()) {
    if (kind.arch == wanted) return kind;
    known += (known.empty() ? "" : ", ") + std::string(kind.arch);
  }
  fail(path, ": a GGUF file of architecture ", arch.name, " can't be written as a folder; those that can are ", known);
}

ordered_json folder_config(const FolderKind& kind, const Checkpoint& file, const Config& config,
                           const WeightNames& weights, const WeightNames& biased, bool& reordered) {
  const FolderConfig f{file, config, weights};
  Config full = config;
  full.rope_scaling = full_scaling(file, config);
  ordered_json json;
  json["architectures"] = {kind.model_class};
  json["model_type"] = kind.model_type;
  json["vocab_size"] = config.vocab;
  json["hidden_size"] = config.width;
  json["intermediate_size"] = config.ffn;
  json["num_hidden_layers"] = config.layers;
  json["num_attention_heads"] = config.heads;
  json["num_key_value_heads"] = config.kv_heads;
  json["head_dim"] = config.head_dim;
  json["max_position_embeddings"] = config.context;
  json[std::string(kind.eps)] = shortest(config.norm_eps);
  json["hidden_act"] = act_name(config.act);
  json["rope_theta"] = shortest(config.rope_theta);
  json["rope_scaling"] = scaling_json(full.rope_scaling);
  if (config.rope_dim > 0 && config.rope_dim != config.head_dim)
    json["partial_rotary_factor"] = static_cast<double>(config.rope_dim) / config.head_dim;
  json["sliding_window"] = config.window > 0 ? ordered_json(config.window) : ordered_json();
  if (kind.layer_types) {
    json["use_sliding_window"] = config.window > 0;
    json["layer_types"] = ordered_json::array();
    for (int i = 0; i < config.layers; ++i) {
      const bool all =
          config.window == 0 || (!config.full_attention.empty() && config.full_attention[static_cast<size_t>(i)]);
      json["layer_types"].push_back(all ? "full_attention" : "sliding_attention");
    }
  }
  add_biases(kind, f, biased, json);
  json["tie_word_embeddings"] = !f.has("output");
  add_ids(f, json);
  const FolderConfig whole{file, full, weights};
  if (kind.more != nullptr) kind.more(whole, json);
  reordered = check_config(kind, full, json, file.path());
  return json;
}

}  // namespace nibble::models
