// SPDX-License-Identifier: Apache-2.0
// The operations again, as plain loops in double over contiguous row-major data. Shares no code with the library.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nibble::test {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Ints = std::vector<int32_t>;

/// x (m, k) times w (n, k) transposed -> (m, n)
Doubles matmul(const Floats& x, const Floats& w, int64_t m, int64_t n, int64_t k);
/// "silu", "gelu", "gelu_tanh", "relu", "tanh", "" (identity)
double activation(const std::string& name, double x);
/// Rows of n; weight and bias may be empty.
Doubles rms_norm(const Floats& x, int64_t n, const Floats& weight, double eps);
Doubles layer_norm(const Floats& x, int64_t n, const Floats& weight, const Floats& bias, double eps);
Doubles softmax(const Floats& x, int64_t n, double scale);
/// x (m, heads * head_dim); the angle of pair i at position p is float(p) * inv_freq[i]. Rotates from element `begin`
/// on.
Doubles rope(const Floats& x, int64_t heads, int64_t head_dim, const Ints& positions, const Floats& inv_freq,
             bool interleaved, double factor = 1, int64_t begin = 0);

/// One whole sequence, row = position: q (length, heads * d), k and v (length, kv_heads * d), not paged and not
/// rounded.
struct AttentionShape {
  int64_t length, heads, kv_heads, d;
  double scale;
  int64_t window = 0;
  double softcap = 0;
  int64_t dv = 0;           ///< v is (length, kv_heads * dv), the result (length, heads * dv); 0: d
  Floats slopes = {}, sinks = {};  ///< per head, or empty
  int64_t prefix = 0;       ///< the first positions see each other
};
/// What i8 pages hold of a row of keys or values: rotated, rounded to codes, and rotated back (in double). The rotation
/// is a matrix of signs, summed by halves.
void as_i8_page(float* row, int64_t size);
Doubles attention(const Floats& q, const Floats& k, const Floats& v, const AttentionShape& shape);

}  // namespace nibble::test
