// SPDX-License-Identifier: Apache-2.0
#include "models/gguf_folder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "models/catalog.h"
#include "models/config.h"
#include "models/folder_linears.h"
#include "models/text/folder_files.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

/// "blk.{}.attn_qkv#q": a tensor and what is taken of it.
struct Path {
  std::string stem;
  std::string_view pieces;
  bool experts() const { return stem.find("{e}") != std::string::npos; }
};

Path path_of(std::string_view text) {
  const size_t hash = text.find('#');
  return {std::string(text.substr(0, hash)), hash == std::string_view::npos ? "" : text.substr(hash + 1)};
}

/// A Name's paths: those in GGUF, and the first in folders; "" where there is none.
struct Paths {
  std::vector<Path> gguf;
  Path folder;
  bool optional = false;
};

Paths paths_of(const Name& name) {
  Paths out;
  std::string_view rest = name.paths;
  if ((out.optional = rest.starts_with('?'))) rest.remove_prefix(1);
  for (bool first = true; !rest.empty(); first = false) {
    const size_t bar = std::min(rest.find('|'), rest.size());
    const std::string_view path = rest.substr(0, bar);
    if (first || path.starts_with("blk."))
      out.gguf.push_back(path_of(path));
    else if (out.folder.stem.empty())
      out.folder = path_of(path);
    rest.remove_prefix(std::min(bar + 1, rest.size()));
  }
  return out;
}

class Unpacker {
 public:
  Unpacker(const Checkpoint& file, std::optional<DType> matrices)
      : file_(file), matrices_(matrices), arch_(arch_of(file.metadata())), config_(arch_.config(file.metadata())) {}

  FloatModel run() {
    const StoredTensor* embedding = file_.tensor("token_embd.weight");
    NIBBLE_CHECK(embedding != nullptr && embedding->shape.rank() == 2, file_.path(), ": no matrix token_embd.weight");
    const int64_t rows = embedding->shape[0];
    NIBBLE_CHECK(rows == config_.vocab || (config_.vocab == 0 && rows <= max_vocab), file_.where(*embedding),
                 ": expected ", config_.vocab == 0 ? max_vocab : config_.vocab, " rows, found ", rows);
    config_.vocab = static_cast<int>(rows);
    const FolderKind& kind = find_folder_kind(arch_, config_, file_.path());
    std::vector<std::string_view> weights, biased;
    for (const Name& name : arch_.names) {
      const Paths paths = paths_of(name);
      if (find(paths, 0, ".weight") != nullptr) weights.push_back(name.name);
      if (find(paths, 0, ".bias") != nullptr) biased.push_back(name.name);
    }
    nlohmann::ordered_json config = folder_config(kind, file_, config_, weights, biased, reordered_);
    for (const Name& name : arch_.names) {
      const bool layered = name.paths.find("{}") != std::string_view::npos;
      for (int layer = 0; layer < (layered ? config_.layers : 1); ++layer) add(name, layer, biased);
    }
    for (const StoredTensor& tensor : file_.tensors())
      NIBBLE_CHECK(used_.contains(tensor.name), file_.where(tensor), ": folders of ", arch_.name,
                   " have no such tensor");
    config["torch_dtype"] = dtype_name();
    FloatModel out{&file_, std::move(tensors_), config.dump(2) + "\n", config_metadata(file_.path(), config), {}};
    for (auto& [name, text] : tokenizer_files(*file_.gguf(), file_.metadata()))
      out.files.push_back({name, [text = std::move(text)] { return text; }});
    return out;
  }

 private:
  const Path* find(const Paths& paths, int layer, std::string_view suffix) const {
    for (const Path& path : paths.gguf)
      if (file_.tensor(put_number(put_number(path.stem, "{}", layer), "{e}", 0) + std::string(suffix)) != nullptr)
        return &path;
    return nullptr;
  }

  void add(const Name& name, int layer, const std::vector<std::string_view>& biased) {
    const Paths paths = paths_of(name);
    const Path* gguf = find(paths, layer, ".weight");
    if (gguf == nullptr) {
      NIBBLE_CHECK(paths.optional, file_.path(), ": no tensor ", put_number(paths.gguf.front().stem, "{}", layer),
                   ".weight");
      return;
    }
    if (name.name.starts_with("rope_factors")) {  // config.json says it
      used_.insert(gguf->stem + ".weight");
      return;
    }
    const std::string from = put_number(gguf->stem, "{}", layer), to = put_number(paths.folder.stem, "{}", layer);
    const bool has_bias = file_.tensor(put_number(from, "{e}", 0) + ".bias") != nullptr;
    NIBBLE_CHECK(has_bias == (std::find(biased.begin(), biased.end(), name.name) != biased.end()), file_.path(),
                 ": tensor ", from, ".bias: expected all layers to have it, or none");
    for (const char* suffix : {".weight", ".bias"}) {
      if (*(suffix + 1) == 'b' && !has_bias) continue;
      if (!paths.folder.experts()) {
        add_tensor(name, from + suffix, {to + suffix, paths.folder.pieces}, gguf->pieces, 0);
        continue;
      }
      for (int e = 0; e < experts_of(from + suffix, *gguf); ++e)
        add_tensor(name, put_number(from, "{e}", e) + suffix, {put_number(to, "{e}", e) + suffix, paths.folder.pieces},
                   gguf->pieces, e);
    }
  }

  /// How many modules of the folder a tensor of the file is, or a row of tensors.
  int experts_of(const std::string& from, const Path& gguf) const {
    if (gguf.experts()) return config_.experts.count;
    const StoredTensor* tensor = file_.tensor(from);
    const std::string where = file_.where(*tensor);
    NIBBLE_CHECK(gguf.pieces == "experts", where, ": pieces '", gguf.pieces, "' can't be written to a folder");
    return static_cast<int>(slice_count(tensor->shape, gguf.pieces, config_, where));
  }

  void add_tensor(const Name& name, const std::string& from, const Path& to, std::string_view pieces, int expert) {
    const StoredTensor* tensor = file_.tensor(from);
    NIBBLE_CHECK(tensor != nullptr, file_.path(), ": no tensor ", from);
    const std::string where = file_.where(*tensor);
    used_.insert(from);
    if (!written_.insert(to.stem).second) return;  // pieces of one tensor
    NIBBLE_CHECK(!to.stem.empty() && to.stem.find('=') == std::string::npos && from.find('=') == std::string::npos,
                 where, ": folders of ", arch_.name, " have no such tensor");
    FloatTensor out;
    out.name = to.stem;
    out.part.tensor = tensor;
    const bool q_or_k = reordered_ && (name.name == "q" || name.name == "k");
    std::string_view taken = pieces == "experts" ? pieces : "";
    // the pieces of both sides must be the same, but for what is undone here
    std::string_view expected = to.pieces;
    const bool plus_one = expected == "plus_one", transpose = expected.starts_with("transpose");
    if (plus_one) expected = "";
    if (transpose) expected.remove_prefix(std::min(expected.size(), std::string_view("transpose,").size()));
    NIBBLE_CHECK(expected == (taken.empty() ? pieces : "") && !(q_or_k && !pieces.empty()), where, ": pieces '", pieces,
                 "' of a GGUF file are '", to.pieces, "' of folders of ", arch_.name, ", which can't be written");
    if (q_or_k) taken = "to_halves";
    out.part.slice = make_slice(tensor->shape, taken, expert, config_, where);
    check_part(out.part, where);
    const Slice& slice = out.part.slice;
    if (plus_one) {
      NIBBLE_CHECK(slice.vector(), where, ": expected a vector, found ", to_string(tensor->shape));
      out.part.slice.add = -1;
    }
    out.transposed = transpose && !slice.vector();
    out.shape = out.transposed ? Shape{slice.columns, slice.rows()} : slice.shape();
    const DType kept = float_type(tensor->type_name()).value_or(DType::f32);
    out.type = slice.vector() ? (plus_one ? DType::f32 : kept) : matrices_.value_or(kept);
    tensors_.push_back(std::move(out));
  }

  /// What the model computes in elsewhere: the type of the matrices, f32 where they have several.
  std::string_view dtype_name() const {
    std::optional<DType> type;
    for (const FloatTensor& tensor : tensors_) {
      if (tensor.shape.rank() < 2) continue;
      type = type.value_or(*tensor.type) == *tensor.type ? *tensor.type : DType::f32;
    }
    return torch_name(type.value_or(DType::f32));
  }

  const Checkpoint& file_;
  const std::optional<DType> matrices_;
  const Arch& arch_;
  Config config_;
  bool reordered_ = false;
  std::set<std::string, std::less<>> used_, written_;
  std::vector<FloatTensor> tensors_;
};

}  // namespace

FloatModel unpack_gguf(const Checkpoint& file, std::optional<DType> matrices) {
  NIBBLE_CHECK(file.gguf() != nullptr, file.path(), ": expected a GGUF file");
  return Unpacker(file, matrices).run();
}

}  // namespace nibble::models
