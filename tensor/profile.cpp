// SPDX-License-Identifier: Apache-2.0
#include "tensor/profile.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

#include "tensor/check.h"
#include "tensor/text_table.h"

namespace nibble {

namespace {

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string complete_event(std::string_view title, const Profile::Event& e, int64_t origin, int64_t begin,
                           int64_t end) {
  return message("{\"name\":", json_string(title), ",\"cat\":", json_string(e.op), ",\"ph\":\"X\",\"pid\":0,\"tid\":",
                 e.worker, ",\"ts\":", fixed(static_cast<double>(begin - origin) / 1e3, 3),
                 ",\"dur\":", fixed(static_cast<double>(end - begin) / 1e3, 3),
                 ",\"args\":{\"kernel\":", json_string(e.kernel), "}}");
}

}  // namespace

void Profile::reserve(size_t events) { events_.reserve(events); }

void Profile::add(const Event& event) { events_.push_back(event); }

std::string Profile::table() const {
  // Worker 0 runs every node, so its events alone are the wall time; the barrier column is its waiting for the others.
  struct Sum {
    int64_t calls = 0, work_ns = 0, barrier_ns = 0;
  };
  std::map<std::pair<std::string_view, std::string_view>, Sum> sums;
  int64_t total = 0;
  for (const Event& e : events_) {
    if (e.worker != 0) continue;
    Sum& sum = sums[{e.op, e.kernel}];
    ++sum.calls;
    sum.work_ns += e.end_ns - e.begin_ns;
    sum.barrier_ns += e.barrier_ns - e.end_ns;
    total += e.barrier_ns - e.begin_ns;
  }
  std::vector<std::pair<std::pair<std::string_view, std::string_view>, Sum>> rows(sums.begin(), sums.end());
  auto wall = [](const auto& row) { return row.second.work_ns + row.second.barrier_ns; };
  std::ranges::stable_sort(rows, [&](const auto& a, const auto& b) { return wall(a) > wall(b); });
  TextTable table({"op", "kernel", "calls", "ms", "share", "barrier ms"});
  for (const auto& row : rows) {
    const double part = total > 0 ? 100.0 * static_cast<double>(wall(row)) / static_cast<double>(total) : 0;
    table.row({std::string(row.first.first), std::string(row.first.second), std::to_string(row.second.calls),
               fixed(static_cast<double>(wall(row)) / 1e6, 3), fixed(part, 1) + "%",
               fixed(static_cast<double>(row.second.barrier_ns) / 1e6, 3)});
  }
  return table.text();
}

std::string Profile::chrome_trace() const {
  int64_t origin = events_.empty() ? 0 : events_.front().begin_ns;
  for (const Event& e : events_) origin = std::min(origin, e.begin_ns);
  std::string out = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  bool first = true;
  for (const Event& e : events_) {
    out += first ? "\n" : ",\n";
    first = false;
    out += complete_event(e.node, e, origin, e.begin_ns, e.end_ns);
    if (e.barrier_ns > e.end_ns) out += ",\n" + complete_event("barrier", e, origin, e.end_ns, e.barrier_ns);
  }
  return out + "\n]}\n";
}

}  // namespace nibble
