// SPDX-License-Identifier: Apache-2.0
#include "tests/support/reference.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace nibble::test {

namespace {
constexpr double pi = 3.14159265358979323846;

double sign(int64_t i, int64_t j) { return __builtin_parityll(static_cast<uint64_t>(i & j)) != 0 ? -1 : 1; }

/// Sum of x[i] sign(i, j) over `size` elements.
float signed_sum(const float* x, int64_t size, int64_t j) {
  if (size == 1) return x[0];
  const int64_t half = size / 2;
  const float a = signed_sum(x, half, j), b = signed_sum(x + half, half, j);
  return (j & half) != 0 ? a - b : a + b;
}
}  // namespace

Doubles matmul(const Floats& x, const Floats& w, int64_t m, int64_t n, int64_t k) {
  Doubles y(static_cast<size_t>(m * n), 0.0);
  for (int64_t row = 0; row < m; row++) {
    for (int64_t column = 0; column < n; column++) {
      double sum = 0;
      for (int64_t i = 0; i < k; i++) sum += double(x[row * k + i]) * double(w[column * k + i]);
      y[row * n + column] = sum;
    }
  }
  return y;
}

double activation(const std::string& name, double x) {
  if (name.empty()) return x;
  if (name == "relu") return x > 0 ? x : 0;
  if (name == "silu") return x / (1 + std::exp(-x));
  if (name == "gelu") return x / 2 * std::erfc(-x / std::sqrt(2.0));
  if (name == "gelu_tanh") return x / (1 + std::exp(-2 * std::sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
  if (name == "tanh") return 1 - 2 / (std::exp(2 * x) + 1);
  throw std::runtime_error("activation " + name);
}

Doubles rms_norm(const Floats& x, int64_t n, const Floats& weight, double eps) {
  Doubles y(x.size());
  for (size_t row = 0; row < x.size(); row += n) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += double(x[row + i]) * x[row + i];
    for (int64_t i = 0; i < n; i++) {
      y[row + i] = x[row + i] / std::sqrt(squares / double(n) + eps) * (weight.empty() ? 1.0 : weight[i]);
    }
  }
  return y;
}

Doubles layer_norm(const Floats& x, int64_t n, const Floats& weight, const Floats& bias, double eps) {
  Doubles y(x.size());
  for (size_t row = 0; row < x.size(); row += n) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; i++) mean += x[row + i] / double(n);
    for (int64_t i = 0; i < n; i++) variance += (x[row + i] - mean) * (x[row + i] - mean) / double(n);
    for (int64_t i = 0; i < n; i++) {
      y[row + i] = (x[row + i] - mean) / std::sqrt(variance + eps) * (weight.empty() ? 1.0 : weight[i]) +
                   (bias.empty() ? 0.0 : bias[i]);
    }
  }
  return y;
}

Doubles softmax(const Floats& x, int64_t n, double scale) {
  Doubles y(x.size());
  for (size_t row = 0; row < x.size(); row += n) {
    const double max = *std::max_element(x.begin() + row, x.begin() + row + n);
    const double top = scale < 0 ? *std::min_element(x.begin() + row, x.begin() + row + n) : max;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += y[row + i] = std::exp((x[row + i] - top) * scale);
    for (int64_t i = 0; i < n; i++) y[row + i] /= sum;
  }
  return y;
}

Doubles rope(const Floats& x, int64_t heads, int64_t head_dim, const Ints& positions, const Floats& inv_freq,
             bool interleaved, double factor, int64_t begin) {
  Doubles y(x.begin(), x.end());
  const int64_t pairs = static_cast<int64_t>(inv_freq.size());
  for (size_t row = 0; row < positions.size(); row++) {
    for (int64_t head = 0; head < heads; head++) {
      const int64_t base = static_cast<int64_t>(row) * heads * head_dim + head * head_dim + begin;
      for (int64_t p = 0; p < pairs; p++) {
        const double angle = float(positions[row]) * inv_freq[p];
        const int64_t a = base + (interleaved ? 2 * p : p), b = base + (interleaved ? 2 * p + 1 : p + pairs);
        y[a] = (x[a] * std::cos(angle) - x[b] * std::sin(angle)) * factor;
        y[b] = (x[a] * std::sin(angle) + x[b] * std::cos(angle)) * factor;
      }
    }
  }
  return y;
}

void as_i8_page(float* row, int64_t size) {
  int64_t block = 1;
  while (size % (2 * block) == 0) block *= 2;
  Floats codes(static_cast<size_t>(size));
  float max = 0;
  for (int64_t i = 0; i < size; i++) {
    codes[i] = signed_sum(row + i / block * block, block, i % block);
    max = std::max(max, std::fabs(codes[i]));
  }
  const float inverse = 127.0f / max;
  for (float& e : codes) e = std::nearbyint(e * inverse);
  for (int64_t i = 0; i < size; i++) {
    double sum = 0;
    for (int64_t j = 0; j < block; j++) sum += sign(i % block, j) * codes[i / block * block + j];
    row[i] = static_cast<float>(sum / static_cast<double>(block) * (max / 127.0f));
  }
}

Doubles attention(const Floats& q, const Floats& k, const Floats& v, const AttentionShape& s) {
  const int64_t dv = s.dv > 0 ? s.dv : s.d;
  Doubles y(s.length * s.heads * dv, 0.0);
  for (int64_t row = 0; row < s.length; row++) {
    const int64_t end = row < s.prefix ? s.prefix : row + 1;
    for (int64_t head = 0; head < s.heads; head++) {
      const int64_t kv = head / (s.heads / s.kv_heads);
      const int64_t first = s.window > 0 ? std::max<int64_t>(0, row - s.window + 1) : 0;
      Doubles score;
      for (int64_t past = first; past < end; past++) {
        double dot = 0;
        for (int64_t c = 0; c < s.d; c++) {
          dot += double(q[(row * s.heads + head) * s.d + c]) * k[(past * s.kv_heads + kv) * s.d + c];
        }
        dot *= s.scale;
        if (s.softcap > 0) dot = s.softcap * std::tanh(dot / s.softcap);
        score.push_back(s.slopes.empty() ? dot : dot + s.slopes[head] * double(past - row));
      }
      double max = *std::max_element(score.begin(), score.end());
      if (!s.sinks.empty()) max = std::max(max, double(s.sinks[head]));
      double sum = s.sinks.empty() ? 0 : std::exp(s.sinks[head] - max);
      for (double& e : score) sum += e = std::exp(e - max);
      for (int64_t past = first; past < end; past++) {
        for (int64_t c = 0; c < dv; c++) {
          y[(row * s.heads + head) * dv + c] += score[past - first] / sum * v[(past * s.kv_heads + kv) * dv + c];
        }
      }
    }
  }
  return y;
}

}  // namespace nibble::test
