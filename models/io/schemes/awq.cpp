// SPDX-License-Identifier: Apache-2.0
// AWQ (arXiv 2306.00978) as AutoAWQ saves it. w = scales[g] * (code - zero[g]), four bits, eight codes a word.
//
//   version "gemm"   qweight i32 (k, n / 8)   qzeros i32 (groups, n / 8)   scales (groups, n)
//                    along n; the word's nibbles, lowest first, are columns 0 2 4 6 1 3 5 7
//   version "gemv"   qweight i32 (n, k / 8)   qzeros i32 (n, w)            scales (n, 8 w)
//                    along k, in order; w words have room for the groups and are padded with zeros
#include <algorithm>

#include "models/io/schemes/module.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr std::string_view bits_key = "quantization_config.bits|quantization_config.w_bit";
constexpr std::string_view group_key = "quantization_config.group_size|quantization_config.q_group_size";
constexpr std::string_view version_key = "quantization_config.version|quantization_config.format";

bool gemv(const Metadata& config) {
  std::string version = config.get_string(version_key, "gemm");
  for (char& c : version) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c);
  NIBBLE_CHECK(version == "gemm" || version == "gemv", config.file(), ": key '", version_key,
               "': expected gemm or gemv, found '", printable(version), "'");
  return version == "gemv";
}

void check(const Metadata& config) {
  const int64_t bits = config.get_int(bits_key, 4, 1, 32);
  NIBBLE_CHECK(bits == 4, config.file(), ": key '", bits_key, "': expected 4, found ", bits);
  group_size(config, group_key);
  gemv(config);
}

std::string_view module(const StoredTensor& tensor) {
  constexpr std::string_view suffix = ".qweight";
  std::string_view name = tensor.name;
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : "";
}

/// The nibble of a word that holds column `column` of eight.
constexpr int nibble_of[8] = {0, 4, 1, 5, 2, 6, 3, 7};

struct Sizes {
  int64_t n, k, groups;
};

void gemm_codes(const std::byte* weights, const Sizes& s, int64_t row, int64_t rows, uint8_t* out) {
  const int64_t first = row / 8, last = (row + rows + 7) / 8;
  for (int64_t j = 0; j < s.k; ++j) {
    for (int64_t w = first; w < last; ++w) {
      const uint64_t eight = spread_nibbles(load_at<uint32_t>(weights, j * (s.n / 8) + w));
      const int64_t begin = std::max(row, 8 * w), end = std::min(row + rows, 8 * w + 8);
      for (int64_t i = begin; i < end; ++i)
        out[(i - row) * s.k + j] = static_cast<uint8_t>(eight >> (8 * nibble_of[i % 8]));
    }
  }
}

void make_gemm(CodedMatrix& matrix, const ModulePart& weights, const ModulePart& zeros, const ModulePart& scales,
               const Sizes& s) {
  weights.expect({s.k, s.n / 8});
  zeros.expect({s.groups, s.n / 8});
  scales.expect({s.groups, s.n});
  matrix.codes = [data = weights.data, s](int64_t row, int64_t rows, uint8_t* out) {
    gemm_codes(data, s, row, rows, out);
  };
  matrix.scales = [zeros = zeros.data, scales, s](int64_t row, int64_t rows, float* out, float* offsets) {
    std::vector<float> line(static_cast<size_t>(rows));
    for (int64_t g = 0; g < s.groups; ++g) {
      scales.floats(g * s.n + row, rows, line.data());
      for (int64_t i = 0; i < rows; ++i) {
        const auto word = load_at<uint32_t>(zeros, g * (s.n / 8) + (row + i) / 8);
        out[i * s.groups + g] = line[static_cast<size_t>(i)];
        offsets[i * s.groups + g] = static_cast<float>(word >> (4 * nibble_of[(row + i) % 8]) & 15);
      }
    }
  };
}

void make_gemv(CodedMatrix& matrix, const ModulePart& weights, const ModulePart& zeros, const ModulePart& scales,
               const Sizes& s) {
  weights.expect({s.n, s.k / 8});
  zeros.expect({s.n, -1});
  const int64_t words = zeros.dim(1);
  NIBBLE_CHECK(words * 8 >= s.groups, zeros.where, ": expected zero points for ", s.groups, " groups, found shape ",
               to_string(zeros.tensor->shape));
  scales.expect({s.n, words * 8});
  matrix.codes = [data = weights.data, s](int64_t row, int64_t rows, uint8_t* out) {
    for (int64_t w = row * (s.k / 8); w < (row + rows) * (s.k / 8); ++w, out += 8) {
      const uint64_t eight = spread_nibbles(load_at<uint32_t>(data, w));
      std::memcpy(out, &eight, sizeof eight);
    }
  };
  matrix.scales = [zeros = zeros.data, scales, s, words](int64_t row, int64_t rows, float* out, float* offsets) {
    std::vector<float> line(static_cast<size_t>(words * 8));
    for (int64_t i = row; i < row + rows; ++i, out += s.groups) {
      scales.floats(i * words * 8, words * 8, line.data());
      std::copy_n(line.begin(), s.groups, out);
      // zeros fill a row up; what has a scale is a group that a larger group_size would leave out
      const auto other = std::find_if(line.begin() + s.groups, line.end(), [](float scale) { return scale != 0; });
      NIBBLE_CHECK(other == line.end(), scales.where, ": row ", i, ": expected scales of ", s.groups,
                   " groups and zeros behind them, found ", *other, " at ", other - line.begin(), "; is ", group_key,
                   " too large?");
      for (int64_t g = 0; g < s.groups; ++g) *offsets++ = static_cast<float>(code_at(zeros + i * words * 4, 4, g));
    }
  };
}

CodedMatrix make(const Module& m) {
  const ModulePart weights = m.need(".qweight", {"i32"}), zeros = m.need(".qzeros", {"i32"}),
                   scales = m.need(".scales", float_names);
  for (const ModulePart* part : {&weights, &zeros, &scales}) part->expect({-1, -1});
  const bool rows_first = gemv(m.config);
  Sizes s{};
  s.n = rows_first ? weights.dim(0) : weights.dim(1) * 8;
  s.k = rows_first ? weights.dim(1) * 8 : weights.dim(0);
  NIBBLE_CHECK(s.n > 0 && s.k > 0, weights.where, ": expected codes, found shape ", to_string(weights.tensor->shape));
  int64_t group = group_size(m.config, group_key);
  if (group < 0) group = s.k;
  s.groups = (s.k + group - 1) / group;
  CodedMatrix matrix;
  matrix.type = "awq4";
  matrix.n = s.n;
  matrix.k = s.k;
  matrix.bits = 4;
  matrix.zero_point = ZeroPoint::integer;
  matrix.scale = float_type(scales);
  matrix.group = group;
  if (rows_first) make_gemv(matrix, weights, zeros, scales, s);
  else make_gemm(matrix, weights, zeros, scales, s);
  return matrix;
}

}  // namespace

extern const Scheme awq_scheme = {"awq", check, module, make};

}  // namespace nibble::models
