// SPDX-License-Identifier: Apache-2.0
#include "apps/bench_table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/terminal.h"
#include "tensor/check.h"

namespace nibble::cli {

namespace {

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (double v : values) sum += v;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

/// Of a sample.
double deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double m = mean(values);
  double sum = 0;
  for (double v : values) sum += (v - m) * (v - m);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

std::string share(const BenchRow& row) { return row.peak > 0 ? fixed(100 * mean(row.speeds()) / row.peak, 1) : ""; }

std::string markdown(const std::vector<BenchRow>& rows) {
  std::vector<std::vector<std::string>> cells = {
      {"model", "size", "params", "backend", "threads", "test", "t/s", "% of peak"}};
  for (const BenchRow& row : rows)
    cells.push_back({printable(row.model), human_bytes(row.model_bytes), human_count(row.parameters), "CPU " + row.isa,
                     std::to_string(row.threads), row.test(),
                     fixed(mean(row.speeds()), 2) + " ± " + fixed(deviation(row.speeds()), 2), share(row)});
  const auto shown = [](const std::string& text) {  // characters, not bytes
    return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
  };
  std::vector<size_t> widths(cells[0].size(), 0);
  for (const auto& line : cells)
    for (size_t c = 0; c < line.size(); ++c) widths[c] = std::max(widths[c], shown(line[c]));
  std::string out;
  for (size_t r = 0; r < cells.size(); ++r) {
    for (size_t c = 0; c < widths.size(); ++c) {
      const std::string pad(widths[c] - shown(cells[r][c]), ' ');
      out.append("| ").append(c == 0 ? cells[r][c] : pad).append(c == 0 ? pad : cells[r][c]).append(" ");
    }
    out += "|\n";
    if (r > 0) continue;
    for (size_t c = 0; c < widths.size(); ++c) out.append("| ").append(widths[c], '-').append(c == 0 ? " " : ":");
    out += "|\n";
  }
  return out;
}

nlohmann::ordered_json record(const BenchRow& row) {
  std::vector<double> nanoseconds;
  for (double s : row.seconds) nanoseconds.push_back(std::round(s * 1e9));
  nlohmann::ordered_json out = {{"model_type", row.model},
                                {"model_size", row.model_bytes},
                                {"model_n_params", row.parameters},
                                {"backends", "CPU " + row.isa},
                                {"n_threads", row.threads},
                                {"n_prompt", row.prompt},
                                {"n_gen", row.generate},
                                {"n_depth", row.depth},
                                {"test", row.test()},
                                {"avg_ns", std::round(mean(nanoseconds))},
                                {"stddev_ns", std::round(deviation(nanoseconds))},
                                {"avg_ts", mean(row.speeds())},
                                {"stddev_ts", deviation(row.speeds())}};
  out["peak_percent"] = row.peak > 0 ? nlohmann::ordered_json(100 * mean(row.speeds()) / row.peak) : nullptr;
  out["samples_ns"] = nanoseconds;
  out["samples_ts"] = row.speeds();
  return out;
}

std::string csv(const std::vector<BenchRow>& rows) {
  std::string out;
  for (const BenchRow& row : rows) {
    nlohmann::ordered_json fields = record(row);
    fields.erase("samples_ns");
    fields.erase("samples_ts");
    std::string names, values;
    for (const auto& [name, value] : fields.items()) {
      names.append(names.empty() ? "" : ",").append(name);
      values.append(values.empty() ? "" : ",");
      if (!value.is_null()) values += value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    }
    if (out.empty()) out = names + "\n";
    out += values + "\n";
  }
  return out;
}

}  // namespace

std::string BenchRow::test() const {
  const std::string length = prompt > 0 ? message("pp", prompt) : message("tg", generate);
  return depth > 0 ? message(length, " @ d", depth) : length;
}

std::vector<double> BenchRow::speeds() const {
  std::vector<double> out;
  for (double s : seconds) out.push_back((prompt + generate) / s);
  return out;
}

std::string bench_table(const std::vector<BenchRow>& rows, BenchFormat format) {
  switch (format) {
    case BenchFormat::markdown: return markdown(rows);
    case BenchFormat::csv: return csv(rows);
    case BenchFormat::json: break;
  }
  auto out = nlohmann::ordered_json::array();
  for (const BenchRow& row : rows) out.push_back(record(row));
  return out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace nibble::cli
