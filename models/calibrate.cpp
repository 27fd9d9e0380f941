// SPDX-License-Identifier: Apache-2.0
#include "models/calibrate.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "models/perplexity.h"
#include "tensor/check.h"
#include "tensor/clones.h"
#include "tensor/cpu.h"

namespace nibble::models {

namespace {

struct Sums {
  std::vector<std::string> weights;
  std::vector<double> squares;
  std::vector<float> moments;  ///< upper triangle
  int64_t rows = 0;
};

using Lanes = float __attribute__((vector_size(32)));
constexpr int64_t panel = 16, lanes = 8, tile = 4;

/// out (tile, panel) = the first `tile` columns of a, transposed, times b, for a and b (rows, panel).
NIBBLE_CLONES("avx2", "default")
void multiply_panels(const float* a, const float* b, int64_t rows, float* out) {
  Lanes sums[tile][2] = {};
  for (int64_t r = 0; r < rows; ++r, a += panel, b += panel) {
    Lanes left, right;
    std::memcpy(&left, b, sizeof left);
    std::memcpy(&right, b + lanes, sizeof right);
    for (int64_t i = 0; i < tile; ++i) sums[i][0] += a[i] * left, sums[i][1] += a[i] * right;
  }
  std::memcpy(out, sums, sizeof sums);
}

/// moments (k, k) += xᵀ x for x (rows, k), in squares of panels from the diagonal on: the upper triangle is whole.
void add_moments(std::vector<float>& moments, const float* x, int64_t rows, int64_t k, ThreadPool& pool) {
  const int64_t panels = (k + panel - 1) / panel, size = rows * panel;
  std::vector<float> columns(static_cast<size_t>(panels * size));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < k; ++j)
      columns[static_cast<size_t>(j / panel * size + r * panel + j % panel)] = x[r * k + j];
  pool.for_each(panels, 1, [&](int64_t begin, int64_t end, const Worker&) {
    for (int64_t p = begin; p < end; ++p)
      for (int64_t q = p; q < panels; ++q) {
        float square[panel * panel];
        const float *a = columns.data() + p * size, *b = columns.data() + q * size;
        for (int64_t i = 0; i < panel; i += tile) multiply_panels(a + i, b, rows, square + i * panel);
        for (int64_t i = p * panel; i < std::min(k, (p + 1) * panel); ++i)
          for (int64_t j = q * panel; j < std::min(k, (q + 1) * panel); ++j)
            moments[static_cast<size_t>(i * k + j)] += square[(i % panel) * panel + j % panel];
      }
  });
}

/// What counts of how two different inputs go together: on other text than this they do so less, and errors that one
/// made good for the other stay. Chosen on SmolLM2 from 0.5, 0.7 and 1, confirmed on Gemma 3 (docs/quality.md).
constexpr float shared = 0.7f;

class Collector {
 public:
  Collector(const CalibrateOptions& options, int threads) : options_(options), pool_(threads) {}

  void add(std::span<const std::string> weights, const Tensor& x) {
    const int64_t rows = x.desc.shape[0], k = x.desc.shape[1];
    Sums& sums = sums_[weights.front()];
    if (sums.squares.empty()) {
      sums.weights.assign(weights.begin(), weights.end());
      sums.squares.resize(static_cast<size_t>(k));
      if (k <= options_.feedback_inputs) sums.moments.resize(static_cast<size_t>(k * k));
    }
    const float* data = x.as<float>();
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < k; ++j)
        sums.squares[static_cast<size_t>(j)] += double{data[r * k + j]} * double{data[r * k + j]};
    sums.rows += rows;
    if (!sums.moments.empty()) add_moments(sums.moments, data, rows, k, pool_);
  }

  Calibration finish() {
    std::vector<Sums*> all;
    for (auto& [name, sums] : sums_) all.push_back(&sums);
    std::vector<std::shared_ptr<quant::InputStatistics>> statistics(all.size());
    pool_.for_each(static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end, const Worker&) {
      for (int64_t i = begin; i < end; ++i)
        statistics[static_cast<size_t>(i)] = statistics_of(*all[static_cast<size_t>(i)]);
    });
    Calibration result;
    for (size_t i = 0; i < all.size(); ++i)
      for (const std::string& weight : all[i]->weights) result[weight] = statistics[i];
    return result;
  }

 private:
  static std::shared_ptr<quant::InputStatistics> statistics_of(Sums& sums) {
    auto result = std::make_shared<quant::InputStatistics>();
    const auto k = static_cast<int64_t>(sums.squares.size());
    for (double square : sums.squares)
      result->squares.push_back(static_cast<float>(square / static_cast<double>(sums.rows)));
    if (sums.moments.empty()) return result;
    for (float& moment : sums.moments) moment /= static_cast<float>(sums.rows);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < i; ++j) {
        float& above = sums.moments[static_cast<size_t>(j * k + i)];
        sums.moments[static_cast<size_t>(i * k + j)] = above *= shared;
      }
    auto order = quant::order_moments(sums.moments, k);
    // without a factor the errors of this weight are simply not fed back
    if (quant::factor_feedback(sums.moments, k, 0.01)) {
      result->feedback = std::move(sums.moments);
      result->order = std::move(order);
    }
    return result;
  }

  const CalibrateOptions& options_;
  ThreadPool pool_;
  std::map<std::string, Sums> sums_;
};

}  // namespace

Calibration calibrate(std::shared_ptr<const Model> model, std::span<const int32_t> tokens,
                      const CalibrateOptions& options, const std::function<void(int, int)>& on_chunk) {
  const auto context = static_cast<size_t>(options.context);
  const int most = options.chunks > 0 ? options.chunks : options.feedback_inputs > 0 ? 128 : 32;
  const auto chunks = static_cast<int>(std::min(tokens.size() / context, static_cast<size_t>(most)));
  NIBBLE_CHECK(chunks >= 1, "calibration: the text has ", tokens.size(), " tokens, expected at least ", context);
  const int threads = options.threads > 0 ? options.threads : default_threads();
  Engine engine(std::move(model), {.threads = threads, .context = options.context, .chunk = options.context});
  Collector collector(options, threads);
  engine.set_tap([&](std::span<const std::string> weights, const Tensor& x) { collector.add(weights, x); });
  const int32_t first = first_token(engine.model());
  std::vector<Row> rows;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    rows.clear();
    const size_t begin =
        (tokens.size() - context) * static_cast<size_t>(chunk) / static_cast<size_t>(std::max(1, chunks - 1));
    for (size_t i = 0; i < context; ++i) rows.push_back({tokens[begin + i], static_cast<int32_t>(i), 0, true});
    if (first >= 0) rows.front().token = first;
    engine.run(rows);
    if (on_chunk) on_chunk(chunk + 1, chunks);
  }
  return collector.finish();
}

}  // namespace nibble::models
