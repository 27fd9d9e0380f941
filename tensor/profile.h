// SPDX-License-Identifier: Apache-2.0
// Per-node times of plan runs, as a table and as Chrome trace JSON (chrome://tracing, Perfetto).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

class Profile {
 public:
  struct Event {
    std::string_view node, op, kernel;  ///< owned by the plan
    int worker = 0;
    int64_t begin_ns = 0, end_ns = 0;   ///< steady clock; the kernel's work
    int64_t barrier_ns = 0;             ///< end of the barrier after it
  };
  /// Makes room, so that recording does not allocate.
  void reserve(size_t events);
  void add(const Event& event);  ///< from worker 0 after the region; not thread safe
  const std::vector<Event>& events() const { return events_; }
  void clear() { events_.clear(); }

  /// Sums by kernel and op: calls, total ms, share, barrier ms; the slowest first.
  std::string table() const;
  std::string chrome_trace() const;

 private:
  std::vector<Event> events_;
};

}  // namespace nibble
