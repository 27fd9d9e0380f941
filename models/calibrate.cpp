// SPDX-License-Identifier: Apache-2.0
#include "models/calibrate.h"

#include <algorithm>
#include <vector>

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

/// y += a[0] x[0] + ... + a[3] x[3]
NIBBLE_CLONES("avx2,fma", "default")
void add_four(float* y, const float* const* x, const float* a, int64_t count) {
  const float *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
  for (int64_t j = 0; j < count; ++j) y[j] += (a[0] * x0[j] + a[1] * x1[j]) + (a[2] * x2[j] + a[3] * x3[j]);
}

void add_moments(Sums& sums, const float* x, int64_t rows, int64_t k, ThreadPool& pool) {
  pool.for_each(k, 16, [&](int64_t begin, int64_t end, const Worker&) {
    const std::vector<float> zeros(static_cast<size_t>(k));
    for (int64_t i = begin; i < end; ++i) {
      float* out = sums.moments.data() + i * k + i;
      for (int64_t r = 0; r < rows; r += 4) {
        const float* four[4];
        float factors[4];
        for (int64_t p = 0; p < 4; ++p) {
          four[p] = r + p < rows ? x + (r + p) * k + i : zeros.data() + i;
          factors[p] = four[p][0];
        }
        add_four(out, four, factors, k - i);
      }
    }
  });
}

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
    if (!sums.moments.empty()) add_moments(sums, data, rows, k, pool_);
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
      for (int64_t j = 0; j < i; ++j)
        sums.moments[static_cast<size_t>(i * k + j)] = sums.moments[static_cast<size_t>(j * k + i)];
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
  std::vector<Row> rows;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    rows.clear();
    const size_t begin =
        (tokens.size() - context) * static_cast<size_t>(chunk) / static_cast<size_t>(std::max(1, chunks - 1));
    for (size_t i = 0; i < context; ++i) rows.push_back({tokens[begin + i], static_cast<int32_t>(i), 0, true});
    engine.run(rows);
    if (on_chunk) on_chunk(chunk + 1, chunks);
  }
  return collector.finish();
}

}  // namespace nibble::models
