// SPDX-License-Identifier: Apache-2.0
// Hugging Face folders as GGUF files: names from the architectures' own lists, keys from the configuration.
#include <algorithm>
#include <cstring>
#include <memory>

#include "models/config.h"
#include "models/folder_linears.h"
#include "models/model_source.h"
#include "models/text/gguf_keys.h"
#include "models/weight_part.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

using Values = std::vector<std::pair<std::string, GgufValue>>;

/// Architectures that are written, and what GGUF calls them.
struct Kind {
  std::string_view arch, gguf;
  bool reordered = false;  ///< rows of q and k: the two elements of a rotated pair stand side by side
};
constexpr Kind kinds[] = {{"llama", "llama", true}, {"mistral", "llama", true}, {"qwen2", "qwen2"}, {"qwen3", "qwen3"},
                          {"gemma", "gemma"},       {"gemma2", "gemma2"},       {"gemma3", "gemma3"}};

const Kind& find_kind(const Arch& arch, const std::string& path) {
  std::string known;
  for (const Kind& kind : kinds) {
    if (kind.arch == arch.name) return kind;
    known += (known.empty() ? "" : ", ") + std::string(kind.arch);
  }
  fail(path, ": a folder of architecture ", arch.name, " can't be written as GGUF; those that can are ", known);
}

class FolderReader {
 public:
  explicit FolderReader(const Checkpoint& folder)
      : folder_(folder),
        arch_(find_arch(folder.metadata().need_string("model_type"))),
        kind_(find_kind(arch_, folder.path())),
        config_(arch_.config(folder.metadata())) {}

  ModelSource read() {
    for (const Name& name : arch_.names) {
      const bool layered = name.paths.find("{}") != std::string_view::npos;
      for (int layer = layered ? 0 : -1; layer < (layered ? config_.layers : 0); ++layer) add(name, layer);
    }
    NIBBLE_CHECK(config_.experts.count == 0, folder_.path(), ": a folder with experts can't be written as GGUF");
    if (const StoredTensor* embedding = folder_.tensor("model.embed_tokens.weight"))
      config_.vocab = static_cast<int>(embedding->shape[0]);
    add_keys();
    for (auto& value : tokenizer_keys(folder_.path(), config_.vocab)) source_.values.push_back(std::move(value));
    return std::move(source_);
  }

 private:
  /// "blk.{}.attn_q|model.layers.{}.self_attn.q_proj#pieces": the name in GGUF and the alternatives of folders.
  void add(const Name& name, int layer) {
    std::string_view paths = name.paths;
    const bool optional = paths.starts_with('?');
    if (optional) paths.remove_prefix(1);
    const std::string gguf = put_number(paths.substr(0, paths.find('|')), "{}", layer);
    bool found = false;
    for (size_t bar = paths.find('|'); bar != std::string_view::npos && !found;) {
      const size_t begin = bar + 1;
      bar = paths.find('|', begin);
      const std::string_view path = paths.substr(begin, bar == std::string_view::npos ? bar : bar - begin);
      const size_t hash = path.find('#');
      const std::string stem = put_number(path.substr(0, hash), "{}", layer);
      const std::string_view pieces = hash == std::string_view::npos ? "" : path.substr(hash + 1);
      for (const char* suffix : {".weight", ".bias"}) {
        const StoredTensor* tensor = folder_.tensor(stem + suffix);
        if (tensor == nullptr) continue;
        const std::string weight = (layer >= 0 ? message("blk.", layer, ".") : "") + std::string(name.name) + ".weight";
        add_tensor(name.name, gguf + suffix, weight, *tensor, pieces);
        found = found || std::string_view(suffix) == ".weight";
      }
    }
    NIBBLE_CHECK(found || optional, folder_.path(), ": no tensor for ", gguf, " (", name.paths,
                 "): only unquantised folders can be written as GGUF");
  }

  void add_tensor(std::string_view name, std::string gguf, std::string weight, const StoredTensor& tensor,
                  std::string_view pieces) {
    const std::string where = folder_.where(tensor);
    NIBBLE_CHECK(pieces.empty() || pieces == "plus_one", where, ": pieces '", pieces, "' can't be written as GGUF");
    NIBBLE_CHECK(tensor.coded == nullptr, where, ": expected floats, found type ", tensor.type_name(),
                 ": quantised folders can't be written as GGUF");
    const bool reordered = kind_.reordered && (name == "q" || name == "k");
    auto part = std::make_shared<WeightPart>();
    part->tensor = &tensor;
    part->slice = make_slice(tensor.shape, reordered ? "to_pairs" : pieces, 0, config_, where);
    check_part(*part, where);
    SourceTensor out;
    out.name = std::move(gguf);
    out.shape = part->slice.shape();
    out.bytes = tensor.bytes;
    out.release = [&folder = folder_, &tensor] { folder.file(tensor).release(tensor.offset, tensor.bytes); };
    const std::byte* data = folder_.bytes(tensor).data();
    if (part->slice.vector()) {
      out.exact = quant::find_block_type(0);
      out.read = [part, data](int64_t, int64_t, float* to) { read_vector(*part, data, to); };
      out.copy = [part, data](std::span<std::byte> to) {
        read_vector(*part, data, reinterpret_cast<float*>(to.data()));
      };
    } else {
      out.role = name == "embedding" ? SourceTensor::Role::embedding
                 : name == "output"  ? SourceTensor::Role::output
                                     : SourceTensor::Role::matrix;
      out.weight = std::move(weight);
      const bool floats = tensor.type == nullptr;
      out.exact = floats ? quant::find_block_type(0) : tensor.type;
      out.read = [part, data](int64_t row, int64_t rows, float* to) { read_rows(*part, data, row, rows, to); };
      out.copy = [part, data, floats](std::span<std::byte> to) {
        const int64_t rows = part->slice.rows();
        if (floats) return read_rows(*part, data, 0, rows, reinterpret_cast<float*>(to.data()));
        std::byte* at = to.data();
        for_each_run(part->slice, 0, rows, [&](int64_t row, int64_t count) {
          const uint64_t bytes = static_cast<uint64_t>(count) * part->row_bytes();
          std::memcpy(at, data + static_cast<uint64_t>(row) * part->row_bytes(), bytes);
          at += bytes;
        });
      };
    }
    source_.tensors.push_back(std::move(out));
  }

  void set(std::string_view key, GgufValue value) {
    source_.values.emplace_back(message(kind_.gguf, ".", key), std::move(value));
  }
  void set(std::string_view key, int number) { set(key, gguf_value(static_cast<uint32_t>(number))); }

  void add_keys() {
    std::string path = folder_.path();
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    source_.values.emplace_back("general.architecture", gguf_value(std::string(kind_.gguf)));
    source_.values.emplace_back("general.type", gguf_value(std::string("model")));
    source_.values.emplace_back("general.name", gguf_value(path.substr(path.find_last_of('/') + 1)));
    set("block_count", config_.layers);
    set("context_length", config_.context);
    set("embedding_length", config_.width);
    set("feed_forward_length", config_.ffn);
    set("vocab_size", config_.vocab);
    set("attention.head_count", config_.heads);
    set("attention.head_count_kv", config_.kv_heads);
    set("attention.key_length", config_.head_dim);
    set("attention.value_length", config_.value_size());
    set("attention.layer_norm_rms_epsilon", gguf_value(config_.norm_eps));
    set("rope.dimension_count", config_.rope_dim);
    set("rope.freq_base", gguf_value(config_.rope_theta));
    if (config_.window > 0) set("attention.sliding_window", config_.window);
    if (config_.local_rope_theta > 0) set("rope.freq_base_swa", gguf_value(config_.local_rope_theta));
    if (config_.attention_softcap > 0) set("attn_logit_softcapping", gguf_value(config_.attention_softcap));
    if (config_.logit_softcap > 0) set("final_logit_softcapping", gguf_value(config_.logit_softcap));
    if (config_.attention_scale > 0) set("attention.scale", gguf_value(config_.attention_scale));
    add_rope_scaling();
  }

  void add_rope_scaling() {
    const RopeScaling& scaling = config_.rope_scaling;
    switch (scaling.type) {
      case RopeScaling::Type::none: return;
      case RopeScaling::Type::llama3: return add_rope_factors();
      case RopeScaling::Type::longrope:
        fail(folder_.path(), ": rope scaling of type longrope can't be written as GGUF");
      case RopeScaling::Type::linear:
      case RopeScaling::Type::yarn: break;
    }
    const bool yarn = scaling.type == RopeScaling::Type::yarn;
    set("rope.scaling.type", gguf_value(std::string(yarn ? "yarn" : "linear")));
    set("rope.scaling.factor", gguf_value(scaling.factor));
    if (!yarn) return;
    set("rope.scaling.original_context_length", scaling.original_context);
    set("rope.scaling.yarn_beta_fast", gguf_value(scaling.beta_fast));
    set("rope.scaling.yarn_beta_slow", gguf_value(scaling.beta_slow));
  }

  /// What the frequencies are divided by, as a tensor.
  void add_rope_factors() {
    Config plain = config_;
    plain.rope_scaling = {};
    std::vector<float> factors = rope_frequencies(plain, {});
    const std::vector<float> scaled = rope_frequencies(config_, {});
    for (size_t i = 0; i < factors.size(); ++i) factors[i] /= scaled[i];
    SourceTensor out;
    out.name = "rope_freqs.weight";
    out.shape = {static_cast<int64_t>(factors.size())};
    out.bytes = factors.size() * sizeof(float);
    out.exact = quant::find_block_type(0);
    out.read = [factors](int64_t, int64_t, float* to) { std::copy(factors.begin(), factors.end(), to); };
    out.copy = [factors](std::span<std::byte> to) { std::memcpy(to.data(), factors.data(), to.size()); };
    out.release = [] {};
    source_.tensors.push_back(std::move(out));
  }

  const Checkpoint& folder_;
  const Arch& arch_;
  const Kind& kind_;
  Config config_;
  ModelSource source_;
};

}  // namespace

ModelSource folder_source(const Checkpoint& folder) { return FolderReader(folder).read(); }

}  // namespace nibble::models
