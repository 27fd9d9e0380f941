// SPDX-License-Identifier: Apache-2.0
#include "tensor/parallel.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "tensor/check.h"
#include "tensor/cpu_limits.h"

namespace nibble {

namespace {

// Longer than the gap between two nodes of a plan and than a worker that was interrupted stays away, shorter than a
// scheduler's slice: a neighbour that needs the CPU gets it almost at once. Parking is expensive: in a virtual machine
// a parked thread comes back tens of microseconds late. Spinning in vain halves the next spin, six times at most: the
// one waited for may need this very CPU. Yielding then costs nothing on an idle machine, and on a busy one it lets
// others run without the wake-up that parking asks for.
constexpr auto spin_time = std::chrono::nanoseconds(200000);
constexpr int most_halvings = 6;
constexpr int pauses_per_look = 64;  // between looks at the clock: 1 to 4 us
constexpr int yields = 8;

using Counter = std::atomic<uint32_t>;

/// `halvings` is the waiting thread's own, kept from wait to wait; negative when it shall not spin at all.
void wait_until_changed(const Counter& counter, uint32_t old, int& halvings) {
  using Clock = std::chrono::steady_clock;
  for (Clock::time_point end{}; halvings >= 0;) {
    for (int i = 0; i < pauses_per_look; ++i) {
      if (counter.load(std::memory_order_acquire) != old) {
        halvings = 0;
        return;
      }
      _mm_pause();
    }
    const auto now = Clock::now();
    if (end == Clock::time_point{}) end = now + spin_time / (1 << halvings);
    if (now >= end) {
      halvings = std::min(halvings + 1, most_halvings);
      break;
    }
  }
  for (int i = 0; i < yields; ++i) {
    if (counter.load(std::memory_order_acquire) != old) return;
    std::this_thread::yield();
  }
  counter.wait(old, std::memory_order_acquire);
}

void advance(Counter& counter) {
  // A locked instruction: the new value must be visible before notify_all looks whether anyone waits.
  counter.fetch_add(1, std::memory_order_seq_cst);
  counter.notify_all();
}

}  // namespace

class Team {
 public:
  explicit Team(int size) : size_(size), lanes_(static_cast<size_t>(size)) {
    // With more threads than CPUs, spinning only keeps the others from working.
    const bool crowded = size > static_cast<int>(allowed_cpus().size());
    for (Lane& lane : lanes_) lane.halvings = crowded ? -1 : 0;
    try {
      for (int i = 1; i < size; ++i) threads_.emplace_back([this, i] { serve(i); });
    } catch (const std::system_error& e) {
      stop();
      fail("cannot start ", size, " threads: ", e.what());
    }
  }
  ~Team() { stop(); }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }

  void barrier(int index) {
    // Nobody can advance the generation before this thread has arrived, so this read is the current one.
    const uint32_t generation = generation_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size_)) {
      arrived_.store(0, std::memory_order_relaxed);
      advance(generation_);
    } else {
      wait_until_changed(generation_, generation, lanes_[static_cast<size_t>(index)].halvings);
    }
  }

  void run(FunctionRef<void(const Worker&)> body) {
    NIBBLE_CHECK(!running_.exchange(true, std::memory_order_acquire),
                 "the thread pool is in a parallel region already: regions don't nest");
    error_ = nullptr;
    body_ = &body;
    if (size_ > 1) advance(epoch_);
    work(0);
    const std::exception_ptr error = std::exchange(error_, nullptr);
    running_.store(false, std::memory_order_release);
    if (error) std::rethrow_exception(error);
  }

 private:
  struct alignas(64) Lane {
    int halvings = 0;  // of wait_until_changed
  };

  void work(int index) noexcept {
    try {
      (*body_)(Worker{index, size_, this});
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
    if (size_ > 1) barrier(index);
  }

  void serve(int index) {
    for (uint32_t seen = 0;; ++seen) {
      wait_until_changed(epoch_, seen, lanes_[static_cast<size_t>(index)].halvings);
      if (stopping_) return;
      work(index);
    }
  }

  void stop() {
    stopping_ = true;
    advance(epoch_);
    threads_.clear();  // joins
  }

  const int size_;
  // Written by the caller before it advances the epoch, read by the others after they have seen that.
  FunctionRef<void(const Worker&)>* body_ = nullptr;
  bool stopping_ = false;
  std::atomic<bool> running_ = false;
  std::mutex error_mutex_;
  std::exception_ptr error_;
  alignas(64) Counter epoch_ = 0;  // regions begun
  alignas(64) Counter generation_ = 0;
  alignas(64) Counter arrived_ = 0;
  std::vector<Lane> lanes_;
  std::vector<std::jthread> threads_;
};

void Worker::barrier() const {
  if (count > 1) team->barrier(index);
}

ThreadPool::ThreadPool(int threads) {
  NIBBLE_CHECK(threads >= 1 && threads <= 4096, "thread pool: expected 1 to 4096 threads, found ", threads);
  team_ = std::make_unique<Team>(threads);
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::size() const { return team_->size(); }

void ThreadPool::run(FunctionRef<void(const Worker&)> body) { team_->run(body); }

void ThreadPool::for_each(int64_t count, int64_t chunk, FunctionRef<void(int64_t, int64_t, const Worker&)> body) {
  NIBBLE_CHECK(chunk >= 1, "for_each: expected a chunk from 1, found ", chunk);
  std::atomic<int64_t> next = 0;
  run([&](const Worker& worker) {
    for (;;) {
      const int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
      if (begin >= count) return;
      body(begin, std::min(begin + chunk, count), worker);
    }
  });
}

}  // namespace nibble
