// SPDX-License-Identifier: Apache-2.0
// GPTQ (arXiv 2210.17323) as AutoGPTQ and GPTQModel save it. w = scales[g] * (code - zero[g]), g the group of the
// column.
//
//   qweight  i32 (k * bits / 32, n)        codes along k, lowest bits first; those of 3 bits run over words' ends
//   qzeros   i32 (groups, n * bits / 32)   likewise along n; "gptq" stores zero - 1, "gptq_v2" zero
//   scales   floats (groups, n)
//   g_idx    i32 (k), optional             the group of each column
#include <algorithm>

#include "models/io/schemes/module.h"
#include "models/io/schemes/scale_grid.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr std::string_view format_key = "quantization_config.checkpoint_format|quantization_config.format";
constexpr std::string_view bits_key = "quantization_config.bits", group_key = "quantization_config.group_size";

bool known_width(int64_t bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

void check(const Metadata& config) {
  const int64_t bits = config.need_int(bits_key, 1, 32);
  NIBBLE_CHECK(known_width(bits), config.file(), ": key '", bits_key, "': expected 2, 3, 4 or 8, found ", bits);
  group_size(config, group_key);
  const std::string format = config.get_string(format_key, "gptq");
  NIBBLE_CHECK(format == "gptq" || format == "gptq_v2", config.file(), ": key '", format_key,
               "': expected gptq or gptq_v2, found '", printable(format), "'");
  const std::string words = config.get_string("quantization_config.pack_dtype", "int32");
  NIBBLE_CHECK(words == "int32", config.file(), ": key 'quantization_config.pack_dtype': expected int32, found '",
               printable(words), "'");
}

std::string_view module(const StoredTensor& tensor) {
  constexpr std::string_view suffix = ".qweight";
  std::string_view name = tensor.name;
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : "";
}

/// Where the codes and zero points of one module are.
struct Layout {
  const std::byte* weights;
  const std::byte* zeros;
  int64_t n;
  int64_t k;
  int64_t groups;
  int bits;
  bool minus_one;

  // sums of whole words carry from one zero point to the next, as those who subtracted from whole words borrowed
  unsigned zero(int64_t group, int64_t column) const {
    const std::byte* line = zeros + static_cast<size_t>(group * (n * bits / 32)) * 4;
    const unsigned mask = (1u << bits) - 1;
    if (bits == 3) return (code_at(line, bits, column) + (minus_one ? 1 : 0)) & mask;
    const uint32_t ones = 0xffffffffu / mask;
    const int64_t bit = column * bits;
    return (load_at<uint32_t>(line, bit / 32) + (minus_one ? ones : 0)) >> (bit % 32) & mask;
  }

  void read(int64_t row, int64_t rows, uint8_t* out) const {
    if (bits == 3) return read_threes(row, rows, out);
    const int64_t per_word = 32 / bits, words = k / per_word;
    for (int64_t i = 0; i < words; ++i) {
      const std::byte* line = weights + static_cast<size_t>(i * n + row) * 4;
      for (int64_t c = 0; c < rows; ++c) {
        uint8_t* to = out + c * k + i * per_word;
        const auto word = load_at<uint32_t>(line, c);
        if (bits == 4) {
          const uint64_t eight = spread_nibbles(word);
          std::memcpy(to, &eight, sizeof eight);
        } else if (bits == 8) {
          std::memcpy(to, &word, sizeof word);
        } else {
          for (int s = 0; s < 16; ++s) to[s] = static_cast<uint8_t>(word >> (2 * s) & 3);
        }
      }
    }
  }

  void read_threes(int64_t row, int64_t rows, uint8_t* out) const {
    for (int64_t i = 0; i < k / 32; ++i) {
      for (int64_t c = 0; c < rows; ++c) {
        uint32_t words[3];
        for (int w = 0; w < 3; ++w) words[w] = load_at<uint32_t>(weights, (3 * i + w) * n + row + c);
        for (int s = 0; s < 32; ++s)
          out[c * k + 32 * i + s] = static_cast<uint8_t>(code_at(reinterpret_cast<const std::byte*>(words), 3, s));
      }
    }
  }

  bool symmetric() const {
    const unsigned middle = 1u << (bits - 1);
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t i = 0; i < n; ++i)
        if (zero(g, i) != middle) return false;
    return true;
  }
};

/// The configuration's width, or where modules may differ from it, the one that the shapes tell.
int width(const Module& m, const ModulePart& zeros, int64_t n) {
  const auto bits = static_cast<int>(m.config.need_int(bits_key, 2, 8));
  if (!m.config.has("quantization_config.dynamic") && !m.config.has("quantization_config.extra_config")) return bits;
  const int64_t found = n > 0 ? zeros.dim(1) * 32 / n : 0;
  NIBBLE_CHECK(known_width(found) && zeros.dim(1) * 32 == n * found, zeros.where,
               ": expected zero points of 2, 3, 4 or 8 bits for ", n, " rows, found shape ",
               to_string(zeros.tensor->shape));
  return static_cast<int>(found);
}

std::vector<int32_t> read_groups(const Module& m, int64_t k, int64_t groups) {
  const ModulePart part = m.find(".g_idx", {"i32", "i64"});
  if (!part) return {};
  part.expect({k});
  return group_indices(part, k, groups);
}

/// AutoRound says it otherwise.
bool stores_minus_one(const Metadata& config) {
  if (config.has("quantization_config.packing_format"))
    return config.get_string("quantization_config.packing_format", "") == "auto_round:auto_gptq";
  return config.get_string(format_key, "gptq") == "gptq";
}

CodedMatrix make(const Module& m) {
  const ModulePart weights = m.need(".qweight", {"i32"}), zeros = m.need(".qzeros", {"i32"}),
                   scales = m.need(".scales", float_names);
  scales.expect({-1, -1});
  zeros.expect({-1, -1});
  const int64_t groups = scales.dim(0), n = scales.dim(1);
  weights.expect({-1, n});
  const int bits = width(m, zeros, n);
  const int64_t k = weights.dim(0) * 32 / bits;
  NIBBLE_CHECK(weights.dim(0) > 0 && n > 0 && groups > 0 && k * bits == weights.dim(0) * 32 && n * bits % 32 == 0,
               weights.where, ": expected whole words of ", bits, "-bit codes, found shape ",
               to_string(weights.tensor->shape));
  zeros.expect({groups, n * bits / 32});
  int64_t group = group_size(m.config, group_key);
  if (group < 0) group = k;
  if (m.config.has("quantization_config.dynamic") || m.config.has("quantization_config.extra_config"))
    if ((k + group - 1) / group != groups && k % groups == 0) group = k / groups;
  scales.expect({(k + group - 1) / group, n});

  const Layout layout{weights.data, zeros.data, n, k, groups, bits, stores_minus_one(m.config)};
  CodedMatrix matrix;
  matrix.type = message("gptq", bits);
  matrix.n = n;
  matrix.k = k;
  matrix.bits = bits;
  matrix.zero_point = layout.symmetric() ? ZeroPoint::symmetric : ZeroPoint::integer;
  matrix.scale = float_type(scales);
  matrix.group = group;
  matrix.groups = read_groups(m, k, groups);
  matrix.codes = [layout](int64_t row, int64_t rows, uint8_t* out) { layout.read(row, rows, out); };
  matrix.scales = [layout, scales](int64_t row, int64_t rows, float* out, float* offsets) {
    std::vector<float> line(static_cast<size_t>(rows));
    for (int64_t g = 0; g < layout.groups; ++g) {
      scales.floats(g * layout.n + row, rows, line.data());
      for (int64_t i = 0; i < rows; ++i) {
        out[i * layout.groups + g] = line[static_cast<size_t>(i)];
        offsets[i * layout.groups + g] = static_cast<float>(layout.zero(g, row + i));
      }
    }
  };
  return matrix;
}

}  // namespace

extern const Scheme gptq_scheme = {"gptq", check, module, make};

}  // namespace nibble::models
