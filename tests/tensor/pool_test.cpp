// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "tensor/check.h"
#include "tensor/parallel.h"

namespace nibble {
namespace {

const int sizes[] = {1, 2, 3, 8};  // 8 is more than some machines have: the crowded path

TEST(Pool, RunsEveryWorkerOnce) {
  for (int size : sizes) {
    ThreadPool pool(size);
    EXPECT_EQ(pool.size(), size);
    std::vector<int> calls(size);
    std::vector<std::thread::id> ids(size);
    pool.run([&](const Worker& w) {
      EXPECT_EQ(w.count, size);
      ++calls[w.index];
      ids[w.index] = std::this_thread::get_id();
    });
    EXPECT_EQ(calls, std::vector<int>(size, 1));
    EXPECT_EQ(ids[0], std::this_thread::get_id());
  }
}

TEST(Pool, RunsManyRegions) {
  for (int size : sizes) {
    ThreadPool pool(size);
    std::vector<int64_t> sums(size);  // plain: run() must order them
    for (int region = 0; region < 2000; ++region) {
      pool.run([&](const Worker& w) { sums[w.index] += region; });
    }
    EXPECT_EQ(sums, std::vector<int64_t>(size, 1999 * 1000));
  }
}

TEST(Pool, WakesParkedWorkers) {
  ThreadPool pool(4);
  std::atomic<int> calls = 0;
  for (int region = 0; region < 20; ++region) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    pool.run([&](const Worker&) { ++calls; });
  }
  EXPECT_EQ(calls, 80);
}

TEST(Pool, BarrierOrdersPhases) {
  for (int size : sizes) {
    ThreadPool pool(size);
    std::vector<int> phase(size);  // plain: the barrier must order them
    std::atomic<int> wrong = 0;
    pool.run([&](const Worker& w) {
      for (int p = 1; p <= 500; ++p) {
        phase[w.index] = p;
        w.barrier();
        for (int other : phase) wrong += other != p;
        w.barrier();
      }
    });
    EXPECT_EQ(wrong, 0) << size << " workers";
  }
}

TEST(Pool, BarrierWaitsForASlowWorker) {
  ThreadPool pool(3);
  int ready = 0;
  std::atomic<int> seen = 0;
  pool.run([&](const Worker& w) {
    if (w.index == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));  // long enough for the others to park
      ready = 1;
    }
    w.barrier();
    seen += ready;
  });
  EXPECT_EQ(seen, 3);
}

TEST(Pool, RethrowsAnExceptionAndStaysUsable) {
  for (int size : sizes) {
    ThreadPool pool(size);
    const int thrower = size - 1;
    try {
      pool.run([&](const Worker& w) {
        if (w.index == thrower) fail("worker ", w.index, " failed");
      });
      ADD_FAILURE() << "no exception from " << size << " workers";
    } catch (const Error& e) {
      EXPECT_EQ(e.what(), "worker " + std::to_string(thrower) + " failed");
    }
    std::atomic<int> calls = 0;
    pool.run([&](const Worker&) { ++calls; });
    EXPECT_EQ(calls, size);
  }
}

TEST(Pool, RefusesNesting) {
  for (int size : {1, 2}) {
    ThreadPool pool(size);
    EXPECT_THROW(pool.run([&](const Worker& w) {
      if (w.index == 0) pool.run([](const Worker&) {});
    }),
                 Error);
  }
}

TEST(Pool, RefusesBadSizes) {
  EXPECT_THROW(ThreadPool(0), Error);
  EXPECT_THROW(ThreadPool(-3), Error);
}

TEST(Pool, ForEachCoversTheRangeOnce) {
  for (int size : sizes) {
    ThreadPool pool(size);
    for (const auto& [count, chunk] : {std::pair{0, 1}, {1, 1}, {7, 3}, {1000, 7}, {5, 100}}) {
      std::vector<int> hits(count);
      pool.for_each(count, chunk, [&](int64_t begin, int64_t end, const Worker&) {
        EXPECT_LT(begin, end);
        for (int64_t i = begin; i < end; ++i) ++hits[i];
      });
      EXPECT_EQ(hits, std::vector<int>(count, 1));
    }
    EXPECT_THROW(pool.for_each(3, 0, [](int64_t, int64_t, const Worker&) {}), Error);
  }
}

TEST(Pool, TwoPoolsShareTheMachine) {
  std::atomic<int> calls = 0;
  auto load = [&] {
    ThreadPool pool(4);
    for (int region = 0; region < 200; ++region) {
      pool.run([&](const Worker& w) {
        ++calls;
        w.barrier();
      });
    }
  };
  std::jthread other(load);
  load();
  other.join();
  EXPECT_EQ(calls, 2 * 200 * 4);
}

}  // namespace
}  // namespace nibble
