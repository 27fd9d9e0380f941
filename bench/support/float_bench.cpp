// SPDX-License-Identifier: Apache-2.0
#include "bench/support/float_bench.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "quant/format.h"

namespace nibble::bench {

namespace {

[[gnu::target("avx2,fma"), gnu::noinline]] void multiply_add(int64_t loops) {
  __m256 sum[12];
  for (__m256& s : sum) s = _mm256_setzero_ps();
  const __m256 x = _mm256_setzero_ps();
  for (int64_t i = 0; i < loops; ++i) {
    for (__m256& s : sum) asm volatile("vfmadd231ps %1, %1, %0" : "+x"(s) : "x"(x));
  }
  for (const __m256& s : sum) asm volatile("" : : "x"(s));
}

double measure() {
  constexpr int64_t loops = 200000;
  double best = 0;
  for (int run = 0; run < 40; ++run) {
    const auto start = std::chrono::steady_clock::now();
    multiply_add(loops);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(loops) * 12 * 16 / seconds);
  }
  return best;
}

float noise(uint64_t i) {
  i = (i + 1) * 0x9e3779b97f4a7c15u;
  i = (i ^ (i >> 30)) * 0xbf58476d1ce4e5b9u;
  return static_cast<float>(static_cast<double>(i >> 11) * 0x1p-52 - 1);
}

}  // namespace

double fma_peak() {
  static const double peak = measure();
  return peak;
}

Tensor Inputs::add(const TensorDesc& desc) {
  memory_.emplace_back(std::max<size_t>(bytes(desc), 1));
  all.push_back(Tensor(desc, memory_.back().data()));
  return all.back();
}

Tensor Inputs::floats(const Shape& shape) {
  const Tensor t = add({shape, DType::f32});
  for (int64_t i = 0; i < shape.elements(); ++i) t.as<float>()[i] = noise(static_cast<uint64_t>(i));
  return t;
}

Tensor Inputs::f16(const Shape& shape) {
  const Tensor t = add({shape, DType::f16});
  for (int64_t i = 0; i < shape.elements(); ++i) t.as<uint16_t>()[i] = f32_to_f16(noise(static_cast<uint64_t>(i)));
  return t;
}

Tensor Inputs::codes(const Shape& shape) {
  const Tensor t = add({shape, DType::i8});
  // Four such bytes are a float between 0.0007 and 0.05.
  for (int64_t i = 0; i < shape.elements(); ++i) t.as<int8_t>()[i] = static_cast<int8_t>(0x3a + i % 3);
  return t;
}

Tensor Inputs::ints(const std::vector<int32_t>& values) {
  const Tensor t = add({Shape{static_cast<int64_t>(values.size())}, DType::i32});
  std::memcpy(t.data, values.data(), values.size() * sizeof(int32_t));
  return t;
}

Tensor Inputs::packed(const std::string& format, int64_t n, int64_t k) {
  const QuantFormat& f = quant::find_format(format);
  const Tensor t = add({Shape{n, k}, DType::packed, &f});
  std::vector<float> panel(static_cast<size_t>(16 * k));
  for (size_t i = 0; i < panel.size(); ++i) panel[i] = noise(i);
  for (int64_t row = 0; row < n; row += 16)
    quant::quantize_rows(f, panel.data(), n, k, row, std::min<int64_t>(16, n - row), t.data);
  return t;
}

std::string best_kernel(std::string_view op) {
  std::string best;
  Isa isa = Isa::generic;
  for (const Kernel& kernel : kernels_for(op)) {
    if (!supported(kernel.isa) || kernel.isa <= isa) continue;
    best = kernel.name;
    isa = kernel.isa;
  }
  return best;
}

}  // namespace nibble::bench
