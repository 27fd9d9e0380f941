// SPDX-License-Identifier: Apache-2.0
#include "quant/fit.h"

#include <algorithm>
#include <cmath>

#include "tensor/check.h"
#include "tensor/dtype.h"

namespace nibble::quant {

namespace {

constexpr int lanes = 8;
constexpr float magic = 0x1.8p23f;  // adding it puts the sum's last place at 1, so the addition rounds

// The same bits with and without AVX2: sums run in lanes whatever the vectors are.
#define NIBBLE_CLONES __attribute__((target_clones("avx2", "default")))

struct Fit {
  float product = 0, square = 0;  ///< sums of h x q and h q²
  float gain() const { return square > 0 ? product * product / square : 0; }  ///< taken off the sum of h x²
  float scale() const { return square > 0 ? product / square : 0; }
};

float sum(const float* lane) {
  float total = 0;
  for (int i = 0; i < lanes; ++i) total += lane[i];
  return total;
}

NIBBLE_CLONES
Fit try_inverse(const float* x, const float* h, int count, float inverse, float low, float high) {
  float products[lanes] = {}, squares[lanes] = {};
  for (int j = 0; j < count; j += lanes)
    for (int i = 0; i < lanes; ++i) {
      const float scaled = x[j + i] * inverse;
      const float clamped = scaled < low ? low : scaled > high ? high : scaled;
      const float q = (clamped + magic) - magic;
      const float hq = h[j + i] * q;
      products[i] += hq * x[j + i];
      squares[i] += hq * q;
    }
  return {sum(products), sum(squares)};
}

/// The scale, rounded to f16, with the least weighted error.
float search_scale(const float* x, const float* h, int count, int bits) {
  const auto half = static_cast<float>(1 << (bits - 1));
  float peak = 0;
  for (int j = 0; j < count; ++j) peak = std::max(peak, std::fabs(x[j]));
  if (peak == 0) return 0;
  // From a step that reaches the peak with room to spare to one that cuts off what is rare; both signs, as code -half
  // has no counterpart.
  constexpr int steps = 24;
  const float widest = 0.75f * half, narrowest = 1.65f * half;
  Fit best;
  for (int i = 0; i <= steps; ++i) {
    const float inverse = (widest + (narrowest - widest) * static_cast<float>(i) / steps) / peak;
    for (const float sign : {1.0f, -1.0f}) {
      const Fit fit = try_inverse(x, h, count, sign * inverse, -half, half - 1);
      if (fit.gain() > best.gain()) best = fit;
    }
  }
  // The best scale for these codes may round some weights otherwise.
  for (int i = 0; i < 3 && best.scale() != 0; ++i) {
    const Fit fit = try_inverse(x, h, count, 1 / best.scale(), -half, half - 1);
    if (!(fit.gain() > best.gain())) break;
    best = fit;
  }
  return f16_to_f32(f32_to_f16(best.scale()));
}

uint8_t code_of(float x, float inverse, int half) {
  const float scaled = std::clamp(x * inverse, static_cast<float>(-half), static_cast<float>(half - 1));
  return static_cast<uint8_t>(static_cast<int>((scaled + magic) - magic) + half);
}

/// y -= factor * u
NIBBLE_CLONES
void subtract(float* y, const float* u, float factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] -= factor * u[i];
}

struct RowFitter {
  const BlockType& type;
  int64_t k;
  const InputStatistics& inputs;
  std::vector<float> importance = std::vector<float>(static_cast<size_t>(k), 1.0f);
  std::vector<float> row = std::vector<float>(static_cast<size_t>(k));

  void fit(const float* in, int64_t index, std::byte* blocks) {
    const int group = type.block_elements, bits = type.format->layout.bits, half = 1 << (bits - 1);
    uint8_t codes[256];
    std::copy(in, in + k, row.begin());
    for (int64_t begin = 0; begin < k; begin += group, blocks += type.block_bytes) {
      float* x = row.data() + begin;
      const float scale = search_scale(x, importance.data() + begin, group, bits);
      NIBBLE_CHECK(std::isfinite(scale), "quantising to ", type.name, ": weights (", index, ", ", begin, " to ", begin + group,
                   ") need a scale beyond f16");
      const float inverse = scale != 0 ? 1 / scale : 0;
      for (int j = 0; j < group; ++j) {
        codes[j] = code_of(x[j], inverse, half);
        if (inputs.feedback.empty()) continue;
        const int64_t at = begin + j;
        const float* u = inputs.feedback.data() + at * k;
        const float error = x[j] - scale * static_cast<float>(codes[j] - half);
        subtract(row.data() + at + 1, u + at + 1, error / u[at], k - at - 1);
      }
      write_native_block(type, codes, scale, blocks);
    }
  }
};

/// a = L Lᵀ in the lower triangle, in place.
bool cholesky(std::vector<double>& a, int64_t k) {
  for (int64_t j = 0; j < k; ++j) {
    double* row = a.data() + j * k;
    for (int64_t i = 0; i <= j; ++i) {
      const double* other = a.data() + i * k;
      double rest = row[i];
      for (int64_t p = 0; p < i; ++p) rest -= row[p] * other[p];
      if (i < j) {
        row[i] = rest / other[i];
      } else {
        if (!(rest > 0)) return false;
        row[i] = std::sqrt(rest);
      }
    }
  }
  return true;
}

}  // namespace

void fit_rows(const BlockType& type, const float* in, int64_t rows, int64_t k, const InputStatistics& inputs,
              std::byte* blocks) {
  NIBBLE_CHECK(find_native_type(type.name) == &type, "fitting rows: type ", type.name, " is not one of ours");
  NIBBLE_CHECK(k % type.block_elements == 0, "rows of ", k, " weights of type ", type.name, ": expected a multiple of ",
               type.block_elements);
  const auto size = static_cast<size_t>(k);
  NIBBLE_CHECK((inputs.squares.empty() || inputs.squares.size() == size) &&
                   (inputs.feedback.empty() || inputs.feedback.size() == size * size),
               "statistics of ", inputs.squares.size(), " inputs for rows of ", k, " weights");
  RowFitter fitter{.type = type, .k = k, .inputs = inputs};
  if (!inputs.squares.empty()) {
    double mean = 0;
    for (float square : inputs.squares) mean += square / static_cast<double>(k);
    // inputs that never came in the calibration text still count a little
    for (size_t j = 0; j < size; ++j)
      fitter.importance[j] = mean > 0 ? static_cast<float>(inputs.squares[j] / mean + 1e-3) : 1.0f;
  }
  const size_t row_bytes = size / static_cast<size_t>(type.block_elements) * type.block_bytes;
  for (int64_t r = 0; r < rows; ++r, in += k, blocks += row_bytes) {
    for (int64_t j = 0; j < k; ++j)
      NIBBLE_CHECK(std::isfinite(in[j]), "quantising to ", type.name, ": weight (", r, ", ", j, ") is ", in[j]);
    fitter.fit(in, r, blocks);
  }
}

bool factor_feedback(std::vector<float>& moments, int64_t k, double damping) {
  std::vector<double> a(moments.begin(), moments.end());
  double mean = 0;
  for (int64_t j = 0; j < k; ++j) mean += a[j * k + j] / static_cast<double>(k);
  for (int64_t j = 0; j < k; ++j) a[j * k + j] += mean * damping;
  // With P the reversal of the order and P A P = L Lᵀ, A⁻¹ = Uᵀ U for U = P L⁻¹ P, which is upper triangular.
  std::reverse(a.begin(), a.end());
  if (!cholesky(a, k)) return false;
  // inverse of L, row by row, into the lower triangle of b
  std::vector<double> b(a.size());
  for (int64_t j = 0; j < k; ++j) {
    double* out = b.data() + j * k;
    const double* row = a.data() + j * k;
    for (int64_t p = 0; p < j; ++p) {
      const double factor = row[p];
      const double* known = b.data() + p * k;
      for (int64_t i = 0; i <= p; ++i) out[i] -= factor * known[i];
    }
    for (int64_t i = 0; i < j; ++i) out[i] /= row[j];
    out[j] = 1 / row[j];
  }
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < k; ++j)
      moments[static_cast<size_t>(i * k + j)] = j >= i ? static_cast<float>(b[(k - 1 - i) * k + (k - 1 - j)]) : 0.0f;
  return true;
}

}  // namespace nibble::quant
