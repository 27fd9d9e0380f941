// SPDX-License-Identifier: Apache-2.0
#include "models/weight_loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <tuple>
#include <utility>

#include "quant/codes.h"
#include "quant/panels.h"

namespace nibble::models {

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

/// Where a part begins, in the order of the file.
auto place(const WeightPart& part) {
  return std::tuple(part.tensor->file, part.tensor->offset, part.slice.first,
                    part.slice.runs.empty() ? 0 : part.slice.runs.front().row);
}

/// What a worker takes at a time: panels [begin, end) of a part, all of it when it is a vector.
struct Job {
  size_t part;
  int64_t begin = 0, end = 0;
};

constexpr uint64_t chunk_bytes = 256 << 10;  // what is read stays in the core's L2 until it is packed
// Enough for what becomes of it to fill huge pages: workers that meet in one would both clear it.
constexpr uint64_t job_bytes = 4 << 20;
constexpr size_t jobs_ahead = 8;  // by which maps are asked for before they are read

/// Reads and packs the parts, in the order of the file, on all workers.
class Loader {
 public:
  Loader(const Checkpoint& checkpoint, std::vector<PlacedPart> parts, ThreadPool& pool, const Progress& progress)
      : checkpoint_(checkpoint),
        parts_(std::move(parts)),
        pool_(pool),
        buffers_(static_cast<size_t>(pool.size())),
        reporter_(total(), progress) {
    for (size_t i = 0; i < parts_.size(); ++i) {
      const WeightPart& part = *parts_[i].part;
      if (i == 0 || part.tensor != parts_[i - 1].part->tensor) ++tensors_;
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
    for (const Job& job : jobs_) ++left_[tensor_of_[job.part]];
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
    for (const PlacedPart& placed : parts_) sum += placed.part->bytes();
    return sum;
  }

  static int64_t panels_in(const WeightPart& part, uint64_t bytes) {
    const uint64_t panel_bytes = part.row_bytes() * quant::panel_columns;
    return static_cast<int64_t>(std::max<uint64_t>(1, bytes / std::max<uint64_t>(1, panel_bytes)));
  }

  void run_job(size_t index, int worker) {
    prefetch(index + jobs_ahead);
    load(jobs_[index], worker);
    const size_t at = jobs_[index].part;
    if (--left_[tensor_of_[at]] > 0) return;
    const StoredTensor& source = *parts_[at].part->tensor;
    checkpoint_.file(source).release(source.offset, source.bytes);
  }

  /// Of what is read through the map. For the rest the system's own read-ahead is faster (docs/benchmarks.md).
  void prefetch(size_t index) const {
    if (index >= jobs_.size() || reads_rows(jobs_[index])) return;
    if (index > 0 && tensor_of_[jobs_[index - 1].part] == tensor_of_[jobs_[index].part]) return;
    const StoredTensor& source = *parts_[jobs_[index].part].part->tensor;
    checkpoint_.file(source).prefetch(source.offset, source.bytes);
  }

  bool reads_rows(const Job& job) const {
    const WeightPart& part = *parts_[job.part].part;
    return !part.slice.vector() && part.contiguous();
  }

  void load(const Job& job, int worker) {
    const PlacedPart& placed = parts_[job.part];
    const WeightPart& part = *placed.part;
    if (reads_rows(job)) return load_rows(job, worker);
    checkpoint_.file(*part.tensor).check_unchanged();
    const std::byte* data = checkpoint_.bytes(*part.tensor).data();
    std::byte* out = placed.out;
    if (part.slice.vector()) {
      read_vector(part, data, reinterpret_cast<float*>(out));
      return reporter_.done(part.bytes(), worker == 0);
    }
    for_each_chunk(job, [&](int64_t row, int64_t rows) {
      pack_part(part, data, *placed.format, row, rows, out);
      reporter_.done(static_cast<uint64_t>(rows) * part.row_bytes(), worker == 0);
    });
  }

  /// Rows that stand together in the file are read into the worker's buffer: cheaper than the page faults of a map, and
  /// no page of the file stays mapped.
  void load_rows(const Job& job, int worker) {
    const PlacedPart& placed = parts_[job.part];
    const WeightPart& part = *placed.part;
    const StoredTensor& source = *part.tensor;
    Buffer& buffer = buffers_[static_cast<size_t>(worker)];
    for_each_chunk(job, [&](int64_t row, int64_t rows) {
      const size_t size = static_cast<size_t>(rows) * part.row_bytes();
      if (buffer.size() < size) buffer = Buffer(size);
      checkpoint_.file(source).read(source.offset + part.offset(row), {buffer.data(), size});
      pack_contiguous(part, buffer.data(), *placed.format, row, rows, placed.out);
      reporter_.done(size, worker == 0);
    });
  }

  /// Calls visit(row, rows) for parts of the job of about chunk_bytes.
  template <class Visit>
  void for_each_chunk(const Job& job, const Visit& visit) const {
    const WeightPart& part = *parts_[job.part].part;
    const int64_t most = panels_in(part, chunk_bytes);
    for (int64_t panel = job.begin; panel < job.end; panel += most) {
      const int64_t row = panel * quant::panel_columns;
      visit(row, std::min(std::min(panel + most, job.end) * quant::panel_columns, part.slice.rows()) - row);
    }
  }

  const Checkpoint& checkpoint_;
  std::vector<PlacedPart> parts_;
  ThreadPool& pool_;
  std::vector<Job> jobs_;
  size_t tensors_ = 0;
  std::vector<size_t> tensor_of_;          // by part; a tensor may have several, which follow each other
  std::vector<std::atomic<size_t>> left_;  // jobs, by tensor
  std::atomic<bool> failed_ = false;
  std::vector<Buffer> buffers_;
  Reporter reporter_;
};

}  // namespace

void load_parts(const Checkpoint& checkpoint, std::vector<PlacedPart> parts, ThreadPool& pool,
                const Progress& progress) {
  std::sort(parts.begin(), parts.end(),
            [](const PlacedPart& a, const PlacedPart& b) { return place(*a.part) < place(*b.part); });
  Loader(checkpoint, std::move(parts), pool, progress).run();
}

}  // namespace nibble::models
