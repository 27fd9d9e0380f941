// SPDX-License-Identifier: Apache-2.0
#include "models/weights.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "models/builder.h"
#include "models/config.h"
#include "models/io/coded_matrix.h"
#include "models/weight_loader.h"
#include "quant/codes.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

struct Entry {
  std::vector<WeightPart> parts;  ///< one, or one per expert; only valid while loading
  int experts = 0;                ///< 0: the weight is not one of experts
  TensorDesc part;                ///< of one expert
  std::string where;
  Tensor tensor;
  const Tensor* order = nullptr;

  size_t part_bytes() const { return bytes(part); }
  std::byte* part_data(size_t i) const { return tensor.data + i * part_bytes(); }
};

std::string key_of(std::string_view name, int layer, std::string_view suffix) {
  return message(name, "@", layer, suffix);
}

/// One alternative of Name::paths: "=a.{}.experts.{e}.b#transpose,q".
struct Path {
  bool whole = false;        ///< no suffixes
  std::string stem;          ///< with the layer put in
  std::string_view pieces;

  Path(std::string_view text, int layer) {
    whole = text.starts_with('=');
    if (whole) text.remove_prefix(1);
    const size_t hash = text.find('#');
    if (hash != std::string_view::npos) pieces = text.substr(hash + 1);
    stem = put(text.substr(0, hash), "{}", layer);
  }
  bool per_expert() const { return stem.find("{e}") != std::string::npos; }
  std::string name(std::string_view suffix, int expert) const {
    const std::string_view ending = !whole ? suffix : suffix == ".bias" ? "_bias" : "";
    return put(stem, "{e}", expert) + std::string(ending);
  }

 private:
  static std::string put(std::string_view text, std::string_view mark, int number) {
    const size_t at = text.find(mark);
    if (at == std::string_view::npos) return std::string(text);
    return message(text.substr(0, at), number, text.substr(at + mark.size()));
  }
};

std::vector<std::string_view> alternatives(std::string_view paths) {
  std::vector<std::string_view> result;
  while (true) {
    const size_t bar = paths.find('|');
    result.push_back(paths.substr(0, bar));
    if (bar == std::string_view::npos) return result;
    paths.remove_prefix(bar + 1);
  }
}

/// The tensors that an alternative names: none, one, or one for each expert.
std::vector<const StoredTensor*> find_tensors(const Checkpoint& checkpoint, const Path& path, std::string_view suffix) {
  std::vector<const StoredTensor*> found;
  for (int expert = 0; expert == 0 || path.per_expert(); ++expert) {
    const StoredTensor* tensor = checkpoint.tensor(path.name(suffix, expert));
    if (tensor == nullptr) break;
    found.push_back(tensor);
  }
  return found;
}

/// llama.cpp keeps the factor that NVFP4 and ternary tensors need for a whole tensor in a second one beside it.
void refuse_scale(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  constexpr std::string_view ending = ".weight";
  if (checkpoint.gguf() == nullptr || !tensor.name.ends_with(ending)) return;
  const std::string stem = tensor.name.substr(0, tensor.name.size() - ending.size());
  if (const StoredTensor* scale = checkpoint.tensor(message(stem, ".scale")))
    fail(checkpoint.where(*scale), ": a scale for the whole of ", tensor.name, " is not supported");
}

/// A format that holds the weights of `found` and those of `part`: of coded experts, some may do without zero points.
const QuantFormat& common_format(const QuantFormat* found, const WeightPart& part, const std::string& where) {
  const QuantFormat& mine = part.exact_format();
  if (found == nullptr || found == &mine || part.tensor->coded == nullptr) return mine;
  QuantLayout a = found->layout, b = mine.layout;
  a.zero_point = b.zero_point = ZeroPoint::integer;
  NIBBLE_CHECK(a == b && found->layout.zero_point != ZeroPoint::minimum && mine.layout.zero_point != ZeroPoint::minimum,
               where, ": expected weights like the first expert's, ", found->name, ", found ", mine.name);
  return quant::format_of(a);
}

/// Nothing puts what they meet into another order of columns.
bool needs_file_order(const Entry& entry, std::string_view name) { return entry.experts > 0 || name == "embedding"; }

/// The weight's parts, checked against each other, and what it will be in memory.
Entry make_entry(const Checkpoint& checkpoint, std::string_view name, const Path& path,
                 const std::vector<const StoredTensor*>& tensors, const Config& config, const QuantizeRule& quantize) {
  Entry entry;
  entry.where = checkpoint.where(*tensors.front());
  const QuantFormat* exact = nullptr;
  for (const StoredTensor* tensor : tensors) {
    const std::string where = checkpoint.where(*tensor);
    NIBBLE_CHECK(tensor->shape.elements() > 0, where, ": expected weights, found the empty shape ",
                 to_string(tensor->shape));
    refuse_scale(checkpoint, *tensor);
    const int64_t slices = slice_count(tensor->shape, path.pieces, config, where);
    for (int64_t i = 0; i < slices; ++i) {
      const std::byte* scales = tensor->scales != nullptr ? checkpoint.bytes(*tensor->scales).data() : nullptr;
      entry.parts.push_back({tensor, make_slice(tensor->shape, path.pieces, i, config, where), scales});
      check_part(entry.parts.back(), where);
    }
    exact = &common_format(exact, entry.parts.back(), where);
    NIBBLE_CHECK(tensor->type == tensors.front()->type && tensor->element == tensors.front()->element, where,
                 ": expected the type of the first expert, ", tensors.front()->type_name(), ", found ",
                 tensor->type_name());
  }
  const Slice& first = entry.parts.front().slice;
  for (const WeightPart& part : entry.parts)
    NIBBLE_CHECK(part.slice.shape() == first.shape(), checkpoint.where(*part.tensor),
                 ": expected the shape of the first expert, ", to_string(first.shape()), ", found ",
                 to_string(part.slice.shape()));
  if (path.per_expert() || has_experts(path.pieces)) entry.experts = static_cast<int>(entry.parts.size());
  const auto ordered = [](const WeightPart& part) {
    return part.tensor->coded != nullptr && !part.tensor->coded->order.empty();
  };
  // floats of 32 bits hold a product of a code and a scale
  if (needs_file_order(entry, name) && std::ranges::any_of(entry.parts, ordered)) exact = &quant::find_format("f32");
  entry.part = {first.shape(), DType::f32};
  if (!first.vector()) {
    entry.part.dtype = DType::packed;
    entry.part.format = &quantize.choose(name, first.columns, *exact);
  }
  entry.tensor.desc = entry.part;
  if (entry.experts > 0) {
    const int64_t count = entry.experts;
    constexpr int64_t panel = quant::panel_columns;
    entry.tensor.desc.shape = first.vector()
                                  ? Shape{count, first.rows()}
                                  : Shape{count * ((first.rows() + panel - 1) / panel * panel), first.columns};
  }
  return entry;
}

constexpr size_t align_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

struct Weights::Impl {
  std::map<std::string, Entry> entries;
  std::optional<PackedCopy> copy;  // what the tensors are in instead of `memory`
  Buffer memory;  // everything, one after the other: one mapping, so that huge pages cover small tensors too
  std::map<std::vector<int32_t>, Tensor> orders;  // each tensor is its key
  std::vector<float> frequencies[2];  // and those for long contexts
  Tensor rope_frequencies[2];
  std::vector<std::string> unused;
  uint64_t packed_bytes = 0;

  void resolve(const Checkpoint& checkpoint, const Name& name, int layer, const Config& config,
               const QuantizeRule& quantize, std::set<const StoredTensor*>& used);
  void set_order(Entry& entry, std::string_view name);
  void place();
  void load(const Checkpoint& checkpoint, ThreadPool& pool, const Progress& progress);
  std::string recipe() const;
  bool map_copy(const PackedCache& cache, const std::string& key);
  void store_copy(const PackedCache& cache, const std::string& key, const std::string& about) const;
  void set_frequencies(const Config& config, const Weights& weights);
};

void Weights::Impl::resolve(const Checkpoint& checkpoint, const Name& name, int layer, const Config& config,
                            const QuantizeRule& quantize, std::set<const StoredTensor*>& used) {
  std::string_view paths = name.paths;
  const bool optional = paths.starts_with('?');
  if (optional) paths.remove_prefix(1);
  std::string tried;
  for (std::string_view text : alternatives(paths)) {
    const Path path(text, layer);
    bool found = false;
    for (std::string_view suffix : {".weight", ".bias"}) {
      const std::vector<const StoredTensor*> tensors = find_tensors(checkpoint, path, suffix);
      if (tensors.empty()) continue;
      Entry& entry = entries[key_of(name.name, layer, suffix)];
      entry = make_entry(checkpoint, name.name, path, tensors, config, quantize);
      set_order(entry, name.name);
      used.insert(tensors.begin(), tensors.end());
      found = found || suffix == ".weight";
    }
    if (found) return;
    tried += message(tried.empty() ? "" : " or ", path.name(".weight", 0));
  }
  NIBBLE_CHECK(optional, checkpoint.path(), ": no tensor ", tried);
}

void Weights::Impl::set_order(Entry& entry, std::string_view name) {
  const WeightPart& first = entry.parts.front();
  const CodedMatrix* coded = first.tensor->coded.get();
  if (needs_file_order(entry, name) || first.slice.transposed) return;
  if (coded == nullptr || coded->order.empty()) return;
  const auto [at, added] = orders.try_emplace(coded->order);
  if (added) at->second = Tensor({{coded->k}, DType::i32}, const_cast<int32_t*>(at->first.data()));
  entry.order = &at->second;
}

void Weights::Impl::place() {
  size_t total = 0;
  std::vector<std::pair<Entry*, size_t>> places;
  for (auto& [key, entry] : entries) {
    places.emplace_back(&entry, total);
    const size_t size = bytes(entry.tensor.desc);
    if (entry.tensor.desc.dtype == DType::packed) packed_bytes += size;
    total += align_up(size);
  }
  memory = Buffer(total);
  for (auto& [entry, offset] : places) entry->tensor = Tensor(entry->tensor.desc, memory.data() + offset);
}

void Weights::Impl::load(const Checkpoint& checkpoint, ThreadPool& pool, const Progress& progress) {
  std::vector<PlacedPart> parts;
  for (auto& [key, entry] : entries)
    for (size_t i = 0; i < entry.parts.size(); ++i)
      parts.push_back({&entry.parts[i], entry.part.format, entry.part_data(i)});
  load_parts(checkpoint, std::move(parts), pool, progress);
  for (const StoredTensor& tensor : checkpoint.tensors()) checkpoint.file(tensor).check_unchanged();
  for (auto& [key, entry] : entries) entry.parts.clear();
}

/// Everything that packed bytes depend on, apart from the contents of the files.
std::string Weights::Impl::recipe() const {
  std::string text;
  for (const auto& [key, entry] : entries) {
    text += message(key, " ", to_string(entry.tensor.desc.shape), " ",
                    entry.tensor.desc.format != nullptr ? entry.tensor.desc.format->name : "f32", "\n");
    for (const WeightPart& part : entry.parts) {
      const Slice& s = part.slice;
      text +=
          message(" ", part.tensor->file, " ", part.tensor->offset, " ", part.tensor->type_name(), " ", s.first, " ",
                  s.source_rows, " ", s.columns, " ", s.transposed, " ", s.whole_lines, " ", s.add, " ", s.unit_rows);
      if (const StoredTensor* scales = part.tensor->scales.get())
        text += message(" ", scales->file, " ", scales->offset);
      for (const RowRun& run : s.runs) text += message(" ", run.row, "+", run.count);
      text += '\n';
    }
  }
  return text;
}

bool Weights::Impl::map_copy(const PackedCache& cache, const std::string& key) {
  std::optional<PackedCopy> found = cache.find(key);
  if (!found) return false;
  for (const auto& [name, entry] : entries)
    if (found->find(name).size() != bytes(entry.tensor.desc)) return false;
  copy = std::move(found);
  memory = Buffer();
  for (auto& [name, entry] : entries)
    entry.tensor.data = const_cast<std::byte*>(copy->find(name).data());  // never written to
  return true;
}

void Weights::Impl::store_copy(const PackedCache& cache, const std::string& key, const std::string& about) const {
  std::vector<PackedTensor> tensors;
  for (const auto& [name, entry] : entries) tensors.push_back({name, {entry.tensor.data, bytes(entry.tensor.desc)}});
  cache.store(key, about, tensors);
}

namespace {

/// The files that hold tensors, shard by shard.
std::vector<const MappedFile*> tensor_files(const Checkpoint& checkpoint) {
  std::map<size_t, const MappedFile*> shards;
  for (const StoredTensor& tensor : checkpoint.tensors())
    for (const StoredTensor* one : {&tensor, tensor.scales.get()})
      if (one != nullptr) shards[one->file] = &checkpoint.file(*one);
  std::vector<const MappedFile*> files;
  for (const auto& [index, file] : shards) files.push_back(file);
  return files;
}

}  // namespace

void Weights::Impl::set_frequencies(const Config& config, const Weights& weights) {
  const bool longrope = config.rope_scaling.type == RopeScaling::Type::longrope;
  const std::string_view names[2] = {longrope ? "rope_factors_short" : "rope_factors", "rope_factors_long"};
  const std::vector<float>* written[2] = {&config.rope_scaling.short_factors, &config.rope_scaling.long_factors};
  for (int i = 0; i < (longrope ? 2 : 1); ++i) {
    const Tensor* factors = weights.find(names[i], -1);
    std::span<const float> values = *written[i];
    if (factors != nullptr) values = {factors->as<float>(), static_cast<size_t>(factors->desc.shape.elements())};
    try {
      frequencies[i] = models::rope_frequencies(config, values);
    } catch (const Error& error) {
      fail(weights.where(names[i], -1), ": ", error.what());
    }
    rope_frequencies[i].data = reinterpret_cast<std::byte*>(frequencies[i].data());
  }
}

Weights Weights::load(const Checkpoint& checkpoint, const Arch& arch, const Config& config, ThreadPool& pool,
                      const Progress& progress, const QuantizeRule& quantize, const PackedCache* cache) {
  Weights weights;
  Impl& impl = *weights.impl_;
  std::set<const StoredTensor*> used;
  for (const Name& name : arch.names) {
    if (name.paths.find("{}") == std::string_view::npos) {
      impl.resolve(checkpoint, name, -1, config, quantize, used);
    } else {
      for (int layer = 0; layer < config.layers; ++layer) impl.resolve(checkpoint, name, layer, config, quantize, used);
    }
  }
  for (const StoredTensor& tensor : checkpoint.tensors())
    if (!used.contains(&tensor)) impl.unused.push_back(tensor.name);
  impl.place();
  for (int i = 0; i < 2; ++i) {
    impl.frequencies[i].assign(static_cast<size_t>(config.rope_dim / 2), 1.0f);
    impl.rope_frequencies[i] = Tensor({{config.rope_dim / 2}, DType::f32}, impl.frequencies[i].data());
  }
  Builder::build(arch, config, weights, {.rows = 1, .logit_rows = 1, .sequences = 1, .max_pages = 1, .pages = 1});

  // what codes in several tensors stand for is in the folder's configuration, which no key knows
  const auto coded = [](const StoredTensor& tensor) { return tensor.coded != nullptr; };
  if (std::ranges::any_of(checkpoint.tensors(), coded)) cache = nullptr;
  std::string key;
  if (cache != nullptr)
    key = message(content_hash(impl.recipe()).hex(), ";", cache->content_key(tensor_files(checkpoint), pool));
  if (cache == nullptr || !impl.map_copy(*cache, key)) {
    impl.load(checkpoint, pool, progress);
    if (cache != nullptr) impl.store_copy(*cache, key, checkpoint.path());
  }
  impl.set_frequencies(config, weights);
  return weights;
}

const Tensor* Weights::find(std::string_view name, int layer, std::string_view suffix) const {
  const auto it = impl_->entries.find(key_of(name, layer, suffix));
  return it == impl_->entries.end() ? nullptr : &it->second.tensor;
}

const Tensor* Weights::order(std::string_view name, int layer) const {
  const auto it = impl_->entries.find(key_of(name, layer, ".weight"));
  return it == impl_->entries.end() ? nullptr : it->second.order;
}

int Weights::experts(std::string_view name, int layer) const {
  const auto it = impl_->entries.find(key_of(name, layer, ".weight"));
  return it == impl_->entries.end() ? 0 : it->second.experts;
}

Tensor Weights::expert(std::string_view name, int layer, int expert, std::string_view suffix) const {
  const auto it = impl_->entries.find(key_of(name, layer, suffix));
  NIBBLE_CHECK(it != impl_->entries.end() && expert >= 0 && expert < it->second.experts, where(name, layer, suffix),
               ": there is no expert ", expert);
  return Tensor(it->second.part, it->second.part_data(static_cast<size_t>(expert)));
}

std::string Weights::where(std::string_view name, int layer, std::string_view suffix) const {
  const auto it = impl_->entries.find(key_of(name, layer, suffix));
  return it == impl_->entries.end() ? message("weight ", name, suffix, " of layer ", layer) : it->second.where;
}

const Tensor& Weights::rope_frequencies(bool long_context) const {
  return impl_->rope_frequencies[long_context ? 1 : 0];
}
bool Weights::mapped() const { return impl_->copy.has_value(); }
uint64_t Weights::packed_bytes() const { return impl_->packed_bytes; }
const std::vector<std::string>& Weights::unused() const { return impl_->unused; }

Weights::Weights() : impl_(std::make_unique<Impl>()) {}
Weights::~Weights() = default;
Weights::Weights(Weights&&) noexcept = default;
Weights& Weights::operator=(Weights&&) noexcept = default;

}  // namespace nibble::models
