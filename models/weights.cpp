// SPDX-License-Identifier: Apache-2.0
#include "models/weights.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "models/builder.h"
#include "models/config.h"
#include "models/io/coded_matrix.h"
#include "models/weight_part.h"
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
  NIBBLE_CHECK(a == b && found->layout.zero_point != ZeroPoint::minimum && mine.layout.zero_point != ZeroPoint::minimum, where,
               ": expected weights like the first expert's, ", found->name, ", found ", mine.name);
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
    NIBBLE_CHECK(tensor->shape.elements() > 0, where, ": expected weights, found the empty shape ", to_string(tensor->shape));
    refuse_scale(checkpoint, *tensor);
    const int64_t slices = slice_count(tensor->shape, path.pieces, config, where);
    for (int64_t i = 0; i < slices; ++i) {
      const std::byte* scales = tensor->scales != nullptr ? checkpoint.bytes(*tensor->scales).data() : nullptr;
      entry.parts.push_back({tensor, make_slice(tensor->shape, path.pieces, i, config, where), scales});
      check_part(entry.parts.back(), where);
    }
    exact = &common_format(exact, entry.parts.back(), where);
    NIBBLE_CHECK(tensor->type == tensors.front()->type && tensor->element == tensors.front()->element, where,
                 ": expected the type of the first expert, ", tensors.front()->type_name(), ", found ", tensor->type_name());
  }
  const Slice& first = entry.parts.front().slice;
  for (const WeightPart& part : entry.parts)
    NIBBLE_CHECK(part.slice.shape() == first.shape(), checkpoint.where(*part.tensor), ": expected the shape of the first expert, ",
                 to_string(first.shape()), ", found ", to_string(part.slice.shape()));
  if (path.per_expert() || has_experts(path.pieces)) entry.experts = static_cast<int>(entry.parts.size());
  const auto ordered = [](const WeightPart& part) { return part.tensor->coded != nullptr && !part.tensor->coded->order.empty(); };
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
    entry.tensor.desc.shape = first.vector() ? Shape{count, first.rows()}
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

/// One part of an entry, in the order of the file.
struct Step {
  const Entry* entry;
  size_t index;

  const WeightPart& part() const { return entry->parts[index]; }
  auto place() const {
    const StoredTensor& t = *part().tensor;
    return std::tuple(t.file, t.offset, part().slice.first, part().slice.runs.empty() ? 0 : part().slice.runs.front().row);
  }
};

/// What a worker takes at a time: panels [begin, end) of a step, all of it when it is a vector.
struct Job {
  size_t step;
  int64_t begin = 0, end = 0;
};

constexpr uint64_t chunk_bytes = 256 << 10;  // what is read stays in the core's L2 until it is packed
// Enough for what becomes of it to fill huge pages: workers that meet in one would both clear it.
constexpr uint64_t job_bytes = 4 << 20;
constexpr size_t jobs_ahead = 8;  // by which maps are asked for before they are read

/// Reads and packs the steps, in the order of the file, on all workers.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, std::vector<Step> steps, ThreadPool& pool, const Progress& progress)
      : checkpoint_(checkpoint),
        steps_(std::move(steps)),
        pool_(pool),
        buffers_(static_cast<size_t>(pool.size())),
        reporter_(total(), progress) {
    for (size_t i = 0; i < steps_.size(); ++i) {
      const WeightPart& part = steps_[i].part();
      if (i == 0 || part.tensor != steps_[i - 1].part().tensor) ++tensors_;
      tensor_of_.push_back(tensors_ - 1);
      if (part.slice.vector()) {
        jobs_.push_back({i});
        continue;
      }
      const int64_t panels = (part.slice.rows() + quant::panel_columns - 1) / quant::panel_columns;
      const int64_t most = panels_in(part, job_bytes);
      for (int64_t begin = 0; begin < panels; begin += most)
        jobs_.push_back({i, begin, std::min(begin + most, panels)});
    }
    left_ = std::vector<std::atomic<size_t>>(tensors_);
    for (const Job& job : jobs_) ++left_[tensor_of_[job.step]];
  }

  void run() {
    for (size_t i = 0; i < jobs_ahead; ++i) prefetch(i);
    pool_.for_each(static_cast<int64_t>(jobs_.size()), 1, [&](int64_t begin, int64_t, const Worker& worker) {
      if (failed_) return;  // the worker that failed has left; what the others do is of no use
      try {
        run_job(static_cast<size_t>(begin), worker.index);
      } catch (...) {
        failed_ = true;
        throw;
      }
    });
    reporter_.finish();
  }

 private:
  uint64_t total() const {
    uint64_t sum = 0;
    for (const Step& step : steps_) sum += step.part().bytes();
    return sum;
  }

  static int64_t panels_in(const WeightPart& part, uint64_t bytes) {
    const uint64_t panel_bytes = part.row_bytes() * quant::panel_columns;
    return static_cast<int64_t>(std::max<uint64_t>(1, bytes / std::max<uint64_t>(1, panel_bytes)));
  }

  void run_job(size_t index, int worker) {
    prefetch(index + jobs_ahead);
    load(jobs_[index], worker);
    const size_t step = jobs_[index].step;
    if (--left_[tensor_of_[step]] > 0) return;
    const StoredTensor& source = *steps_[step].part().tensor;
    checkpoint_.file(source).release(source.offset, source.bytes);
  }

  /// Of what is read through the map. For the rest the system's own read-ahead is faster (docs/benchmarks.md).
  void prefetch(size_t index) const {
    if (index >= jobs_.size() || reads_rows(jobs_[index])) return;
    if (index > 0 && tensor_of_[jobs_[index - 1].step] == tensor_of_[jobs_[index].step]) return;
    const StoredTensor& source = *steps_[jobs_[index].step].part().tensor;
    checkpoint_.file(source).prefetch(source.offset, source.bytes);
  }

  bool reads_rows(const Job& job) const {
    const WeightPart& part = steps_[job.step].part();
    return !part.slice.vector() && part.contiguous();
  }

  void load(const Job& job, int worker) {
    const Step& step = steps_[job.step];
    const WeightPart& part = step.part();
    if (reads_rows(job)) return load_rows(job, worker);
    checkpoint_.file(*part.tensor).check_unchanged();
    const std::byte* data = checkpoint_.bytes(*part.tensor).data();
    std::byte* out = step.entry->part_data(step.index);
    if (part.slice.vector()) {
      read_vector(part, data, reinterpret_cast<float*>(out));
      return reporter_.done(part.bytes(), worker == 0);
    }
    for_each_chunk(job, [&](int64_t row, int64_t rows) {
      pack_part(part, data, *step.entry->part.format, row, rows, out);
      reporter_.done(static_cast<uint64_t>(rows) * part.row_bytes(), worker == 0);
    });
  }

  /// Rows that stand together in the file are read into the worker's buffer: cheaper than the page faults of a map, and
  /// no page of the file stays mapped.
  void load_rows(const Job& job, int worker) {
    const Step& step = steps_[job.step];
    const WeightPart& part = step.part();
    const StoredTensor& source = *part.tensor;
    Buffer& buffer = buffers_[static_cast<size_t>(worker)];
    for_each_chunk(job, [&](int64_t row, int64_t rows) {
      const size_t size = static_cast<size_t>(rows) * part.row_bytes();
      if (buffer.size() < size) buffer = Buffer(size);
      checkpoint_.file(source).read(source.offset + part.offset(row), {buffer.data(), size});
      pack_contiguous(part, buffer.data(), *step.entry->part.format, row, rows, step.entry->part_data(step.index));
      reporter_.done(size, worker == 0);
    });
  }

  /// Calls visit(row, rows) for parts of the job of about chunk_bytes.
  template <class Visit>
  void for_each_chunk(const Job& job, const Visit& visit) const {
    const WeightPart& part = steps_[job.step].part();
    const int64_t most = panels_in(part, chunk_bytes);
    for (int64_t panel = job.begin; panel < job.end; panel += most) {
      const int64_t row = panel * quant::panel_columns;
      visit(row, std::min(std::min(panel + most, job.end) * quant::panel_columns, part.slice.rows()) - row);
    }
  }

  const Checkpoint& checkpoint_;
  std::vector<Step> steps_;
  ThreadPool& pool_;
  std::vector<Job> jobs_;
  size_t tensors_ = 0;
  std::vector<size_t> tensor_of_;          // by step; a tensor may make several that follow each other
  std::vector<std::atomic<size_t>> left_;  // jobs, by tensor
  std::atomic<bool> failed_ = false;
  std::vector<Buffer> buffers_;
  Reporter reporter_;
};

}  // namespace

void Weights::Impl::load(const Checkpoint& checkpoint, ThreadPool& pool, const Progress& progress) {
  std::vector<Step> steps;
  for (auto& [key, entry] : entries)
    for (size_t i = 0; i < entry.parts.size(); ++i) steps.push_back({&entry, i});
  std::sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.place() < b.place(); });
  Loader(checkpoint, std::move(steps), pool, progress).run();
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
      text += message(" ", part.tensor->file, " ", part.tensor->offset, " ", part.tensor->type_name(), " ", s.first, " ",
                      s.source_rows, " ", s.columns, " ", s.transposed, " ", s.whole_lines, " ", s.add, " ", s.unit_rows);
      if (const StoredTensor* scales = part.tensor->scales.get()) text += message(" ", scales->file, " ", scales->offset);
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
  for (auto& [name, entry] : entries) entry.tensor.data = const_cast<std::byte*>(copy->find(name).data());  // never written to
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

const Tensor& Weights::rope_frequencies(bool long_context) const { return impl_->rope_frequencies[long_context ? 1 : 0]; }
bool Weights::mapped() const { return impl_->copy.has_value(); }
uint64_t Weights::packed_bytes() const { return impl_->packed_bytes; }
const std::vector<std::string>& Weights::unused() const { return impl_->unused; }

Weights::Weights() : impl_(std::make_unique<Impl>()) {}
Weights::~Weights() = default;
Weights::Weights(Weights&&) noexcept = default;
Weights& Weights::operator=(Weights&&) noexcept = default;

}  // namespace nibble::models
