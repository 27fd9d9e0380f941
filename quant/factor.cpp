// SPDX-License-Identifier: Apache-2.0
// What feedback needs of the inputs' moments: their order and a factor of their inverse. In blocks, as matrices of
// 4096 inputs do not fit into caches.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "quant/fit.h"
#include "tensor/clones.h"

namespace nibble::quant {

namespace {

using Lanes = double __attribute__((vector_size(32)));
constexpr int64_t lanes = 4, block = 48, tile_rows = 2, tile_columns = 4;

/// c[i][j] -= the dot of a[i] and b[j], `count` long, for one tile; rows of all three are k apart.
NIBBLE_CLONES("avx2", "default")
void subtract_dots(double* c, const double* a, const double* b, int64_t count, int64_t k) {
  Lanes sums[tile_rows][tile_columns] = {};
  int64_t p = 0;
  for (; p + lanes <= count; p += lanes) {
    Lanes x[tile_rows];
    for (int64_t i = 0; i < tile_rows; ++i) std::memcpy(&x[i], a + i * k + p, sizeof x[i]);
    for (int64_t j = 0; j < tile_columns; ++j) {
      Lanes y;
      std::memcpy(&y, b + j * k + p, sizeof y);
      for (int64_t i = 0; i < tile_rows; ++i) sums[i][j] += x[i] * y;
    }
  }
  for (int64_t i = 0; i < tile_rows; ++i)
    for (int64_t j = 0; j < tile_columns; ++j) {
      const Lanes s = sums[i][j];
      double sum = (s[0] + s[1]) + (s[2] + s[3]);
      for (int64_t q = p; q < count; ++q) sum += a[i * k + q] * b[j * k + q];
      c[i * k + j] -= sum;
    }
}

/// The same for any number of rows of a and b.
void subtract_dots(double* c, int64_t rows, int64_t columns, const double* a, const double* b, int64_t count,
                   int64_t k) {
  for (int64_t i = 0; i < rows; i += tile_rows)
    for (int64_t j = 0; j < columns; j += tile_columns) {
      double* out = c + i * k + j;
      if (i + tile_rows <= rows && j + tile_columns <= columns) {
        subtract_dots(out, a + i * k, b + j * k, count, k);
        continue;
      }
      for (int64_t y = i; y < std::min(rows, i + tile_rows); ++y)
        for (int64_t x = j; x < std::min(columns, j + tile_columns); ++x)
          c[y * k + x] -= std::inner_product(a + y * k, a + y * k + count, b + x * k, 0.0);
    }
}

/// Rows x of X for X Lᵀ = B, in place of B: columns `first` to `last`, L lower triangular, earlier columns being done.
void solve(double* x, int64_t rows, const double* lower, int64_t first, int64_t last, int64_t k) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = first; j < last; ++j) {
      double rest = x[i * k + j];
      for (int64_t p = first; p < j; ++p) rest -= x[i * k + p] * lower[j * k + p];
      x[i * k + j] = rest / lower[j * k + j];
    }
}

/// a = L Lᵀ in the lower triangle, in place. False when a is not positive definite.
bool cholesky(std::vector<double>& a, int64_t k) {
  for (int64_t i = 0; i < k; i += block) {
    const int64_t rows = std::min(block, k - i);
    double* mine = a.data() + i * k;
    for (int64_t j = 0; j < i; j += block) {
      subtract_dots(mine + j, rows, block, mine, a.data() + j * k, j, k);
      solve(mine, rows, a.data(), j, j + block, k);
    }
    subtract_dots(mine + i, rows, rows, mine, mine, i, k);
    for (int64_t r = 0; r < rows; ++r) {
      solve(mine + r * k, 1, a.data(), i, i + r, k);
      double& diagonal = mine[r * k + i + r];
      for (int64_t p = i; p < i + r; ++p) diagonal -= mine[r * k + p] * mine[r * k + p];
      if (!(diagonal > 0)) return false;
      diagonal = std::sqrt(diagonal);
    }
  }
  return true;
}

/// The transpose of L⁻¹.
std::vector<double> inverse(const std::vector<double>& lower, int64_t k) {
  std::vector<double> out(lower.size());
  for (int64_t i = 0; i < k; ++i) out[static_cast<size_t>(i * k + i)] = 1;
  for (int64_t i = 0; i < k; i += block) {
    const int64_t rows = std::min(block, k - i);
    double* mine = out.data() + i * k;
    for (int64_t j = i; j < k; j += block) {
      const int64_t columns = std::min(block, k - j);
      subtract_dots(mine + j, rows, columns, mine + i, lower.data() + j * k + i, j - i, k);
      solve(mine, rows, lower.data(), j, j + columns, k);
    }
  }
  return out;
}

}  // namespace

bool factor_feedback(std::vector<float>& moments, int64_t k, double damping) {
  std::vector<double> a(moments.begin(), moments.end());
  double mean = 0;
  for (int64_t j = 0; j < k; ++j) mean += a[j * k + j] / static_cast<double>(k);
  for (int64_t j = 0; j < k; ++j) a[j * k + j] += mean * damping;
  // With P the reversal of the order and P A P = L Lᵀ, A⁻¹ = Uᵀ U for U = P L⁻¹ P, which is upper triangular.
  std::reverse(a.begin(), a.end());
  if (!cholesky(a, k)) return false;
  const std::vector<double> b = inverse(a, k);
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < k; ++j)
      moments[static_cast<size_t>(i * k + j)] = j >= i ? static_cast<float>(b[(k - 1 - j) * k + (k - 1 - i)]) : 0.0f;
  return true;
}

std::vector<int32_t> order_moments(std::vector<float>& moments, int64_t k) {
  std::vector<int32_t> order(static_cast<size_t>(k));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return moments[static_cast<size_t>(a * k + a)] > moments[static_cast<size_t>(b * k + b)];
  });
  const std::vector<float> before = moments;
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < k; ++j)
      moments[static_cast<size_t>(i * k + j)] =
          before[static_cast<size_t>(int64_t{order[static_cast<size_t>(i)]} * k + order[static_cast<size_t>(j)])];
  return order;
}

}  // namespace nibble::quant
