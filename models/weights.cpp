// SPDX-License-Identifier: Apache-2.0
#include "models/weights.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <set>
#include <vector>

#include "models/builder.h"
#include "models/config.h"
#include "quant/format.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

struct Entry {
  const GgufTensor* source = nullptr;  // only valid while loading
  std::string where;
  Tensor tensor;
};

std::string key_of(std::string_view name, int layer, std::string_view suffix) {
  return message(name, "@", layer, suffix);
}

std::string with_layer(std::string_view path, int layer) {
  const size_t at = path.find("{}");
  if (at == std::string_view::npos) return std::string(path);
  return message(path.substr(0, at), layer, path.substr(at + 2));
}

std::vector<std::string_view> alternatives(std::string_view paths) {
  std::vector<std::string_view> result;
  while (true) {
    const size_t bar = paths.find('|');
    result.push_back(paths.substr(0, bar));
    if (bar == std::string_view::npos) return result;
    paths.remove_prefix(bar + 1);
  }
}

constexpr size_t align_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

struct Weights::Impl {
  std::map<std::string, Entry> entries;
  Buffer memory;  // everything, one after the other: one mapping, so that huge pages cover small tensors too
  std::vector<float> frequencies;
  Tensor rope_frequencies;
  std::vector<std::string> unused;
  uint64_t packed_bytes = 0;

  void resolve(const Gguf& gguf, const Name& name, int layer, std::set<const GgufTensor*>& used);
  void place();
  void load(const Gguf& gguf, ThreadPool& pool, const Progress& progress);
  void set_frequencies(const Config& config, const std::string& where, const Tensor* factors);
};

void Weights::Impl::resolve(const Gguf& gguf, const Name& name, int layer, std::set<const GgufTensor*>& used) {
  std::string_view paths = name.paths;
  const bool optional = paths.starts_with('?');
  if (optional) paths.remove_prefix(1);
  std::string tried;
  for (std::string_view path : alternatives(paths)) {
    const std::string full = with_layer(path, layer);
    bool found = false;
    for (std::string_view suffix : {".weight", ".bias"}) {
      const GgufTensor* tensor = gguf.tensor(full + std::string(suffix));
      if (tensor == nullptr) continue;
      const std::string where = message(gguf.path(), ": tensor ", tensor->name);
      NIBBLE_CHECK(tensor->shape.rank() == 1 || tensor->shape.rank() == 2, where, ": expected a vector or a matrix, found ",
                   to_string(tensor->shape));
      Entry entry{tensor, where, {}};
      entry.tensor.desc = tensor->shape.rank() == 1 ? TensorDesc{tensor->shape, DType::f32}
                                                    : TensorDesc{tensor->shape, DType::packed, tensor->type->format};
      entries[key_of(name.name, layer, suffix)] = std::move(entry);
      used.insert(tensor);
      found = found || suffix == ".weight";
    }
    if (found) return;
    tried += message(tried.empty() ? "" : " or ", full, ".weight");
  }
  NIBBLE_CHECK(optional, gguf.path(), ": no tensor ", tried);
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

namespace {

/// Counts bytes done by all workers; only the loading thread (worker 0) reports.
class Reporter {
 public:
  Reporter(uint64_t total, const Progress& progress) : total_(total), progress_(progress) {}
  void done(uint64_t bytes, bool loading_thread) {
    const uint64_t sum = done_ += bytes;
    if (!loading_thread || !progress_) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    progress_(sum, total_);
  }
  void finish() {
    if (progress_) progress_(total_, total_);
  }

 private:
  uint64_t total_;
  const Progress& progress_;
  std::atomic<uint64_t> done_ = 0;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

void load_matrix(const Gguf& gguf, const Entry& entry, ThreadPool& pool, Reporter& reporter) {
  const GgufTensor& source = *entry.source;
  const int64_t n = source.shape[0], k = source.shape[1];
  const std::span<const std::byte> blocks = gguf.bytes(source);
  const uint64_t row_bytes = source.bytes / static_cast<uint64_t>(n);
  constexpr uint64_t chunk_bytes = 1 << 20;  // keeps what is mapped but not yet released small
  const int64_t panels = (n + quant::panel_columns - 1) / quant::panel_columns;
  const auto chunk = static_cast<int64_t>(std::max<uint64_t>(1, chunk_bytes / std::max<uint64_t>(1, row_bytes * quant::panel_columns)));
  pool.for_each(panels, chunk, [&](int64_t begin, int64_t end, const Worker& worker) {
    const int64_t row = begin * quant::panel_columns, rows = std::min(end * quant::panel_columns, n) - row;
    const uint64_t offset = static_cast<uint64_t>(row) * row_bytes, size = static_cast<uint64_t>(rows) * row_bytes;
    quant::pack_rows(*source.type, blocks.data() + offset, n, k, row, rows, entry.tensor.data);
    gguf.file(source).release(source.offset + offset, size);
    reporter.done(size, worker.index == 0);
  });
}

}  // namespace

void Weights::Impl::load(const Gguf& gguf, ThreadPool& pool, const Progress& progress) {
  std::vector<const Entry*> order;
  uint64_t total = 0;
  for (auto& [key, entry] : entries) {
    order.push_back(&entry);
    total += entry.source->bytes;
  }
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->source->file, a->source->offset) < std::pair(b->source->file, b->source->offset);
  });
  Reporter reporter(total, progress);
  for (size_t i = 0; i < order.size(); ++i) {
    const GgufTensor& source = *order[i]->source;
    gguf.file(source).check_unchanged();
    if (i + 1 < order.size()) {
      const GgufTensor& next = *order[i + 1]->source;
      gguf.file(next).prefetch(next.offset, next.bytes);
    }
    if (order[i]->tensor.desc.dtype == DType::packed) {
      load_matrix(gguf, *order[i], pool, reporter);
    } else {
      quant::dequantize_blocks(*source.type, gguf.bytes(source).data(), source.shape.elements(), order[i]->tensor.as<float>());
      reporter.done(source.bytes, true);
    }
    // the page that two chunks share is inside neither of them
    gguf.file(source).release(source.offset, source.bytes);
  }
  for (const GgufTensor& tensor : gguf.tensors()) gguf.file(tensor).check_unchanged();
  reporter.finish();
}

void Weights::Impl::set_frequencies(const Config& config, const std::string& where, const Tensor* factors) {
  std::span<const float> values;
  if (factors != nullptr) values = {factors->as<float>(), static_cast<size_t>(factors->desc.shape.elements())};
  try {
    frequencies = models::rope_frequencies(config, values);
  } catch (const Error& error) {
    fail(where, ": ", error.what());
  }
  rope_frequencies.data = reinterpret_cast<std::byte*>(frequencies.data());
}

Weights Weights::load(const Gguf& gguf, const Arch& arch, const Config& config, ThreadPool& pool, const Progress& progress) {
  Weights weights;
  Impl& impl = *weights.impl_;
  std::set<const GgufTensor*> used;
  for (const Name& name : arch.names) {
    if (name.paths.find("{}") == std::string_view::npos) {
      impl.resolve(gguf, name, -1, used);
    } else {
      for (int layer = 0; layer < config.layers; ++layer) impl.resolve(gguf, name, layer, used);
    }
  }
  for (const GgufTensor& tensor : gguf.tensors())
    if (!used.contains(&tensor)) impl.unused.push_back(tensor.name);
  impl.place();
  impl.frequencies.assign(static_cast<size_t>(config.rope_dim / 2), 1.0f);
  impl.rope_frequencies = Tensor({{config.rope_dim / 2}, DType::f32}, impl.frequencies.data());
  Builder::build(arch, config, weights, {.rows = 1, .logit_rows = 1, .sequences = 1, .max_pages = 1, .pages = 1});

  impl.load(gguf, pool, progress);
  impl.set_frequencies(config, weights.where("rope_factors", -1), weights.find("rope_factors", -1));
  return weights;
}

const Tensor* Weights::find(std::string_view name, int layer, std::string_view suffix) const {
  const auto it = impl_->entries.find(key_of(name, layer, suffix));
  return it == impl_->entries.end() ? nullptr : &it->second.tensor;
}

std::string Weights::where(std::string_view name, int layer, std::string_view suffix) const {
  const auto it = impl_->entries.find(key_of(name, layer, suffix));
  return it == impl_->entries.end() ? message("weight ", name, suffix, " of layer ", layer) : it->second.where;
}

const Tensor& Weights::rope_frequencies() const { return impl_->rope_frequencies; }
uint64_t Weights::packed_bytes() const { return impl_->packed_bytes; }
const std::vector<std::string>& Weights::unused() const { return impl_->unused; }

Weights::Weights() : impl_(std::make_unique<Impl>()) {}
Weights::~Weights() = default;
Weights::Weights(Weights&&) noexcept = default;
Weights& Weights::operator=(Weights&&) noexcept = default;

}  // namespace nibble::models
