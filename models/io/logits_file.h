// SPDX-License-Identifier: Apache-2.0
// Log-probabilities of the tokens of a text, in the form that llama.cpp's perplexity tool writes. Little endian:
//   "_logits_", i32 context, i32 vocab, i32 chunks, i32 token[chunks][context], and for each scored position of each
//   chunk f32 step, f32 lowest, u16 code[vocab, made even]        log p = step * code + lowest
// Scored are positions context / 2 to context - 2 of a chunk. What is more than 16 below the likeliest is stored as
// that.
#pragma once

#include <cstdint>
#include <fstream>
#include <span>
#include <string>

#include "tensor/buffer.h"

namespace nibble::models {

struct LogitsShape {
  int32_t context = 0, vocab = 0, chunks = 0;
  int first() const { return context / 2; }               ///< scored position of a chunk
  int scored() const { return context - 1 - first(); }    ///< positions of a chunk
  size_t codes() const { return (static_cast<size_t>(vocab) + 1) / 2 * 2; }
  size_t row_bytes() const { return 8 + 2 * codes(); }
};

/// A row of a file; `codes` has LogitsShape::vocab of them.
struct LogProbs {
  float step, lowest;
  const uint16_t* codes;
  float operator[](int64_t token) const { return step * static_cast<float>(codes[token]) + lowest; }
};

/// `log_sum` is the log of the sum of exp(logits). `row` has row_bytes(), aligned to 4.
void encode_log_probs(std::span<const float> logits, double log_sum, std::span<std::byte> row);

/// Throws Error naming the file.
class LogitsWriter {
 public:
  /// `tokens` are those of all chunks.
  LogitsWriter(const std::string& path, const LogitsShape& shape, std::span<const int32_t> tokens);
  /// The rows of the next positions.
  void write(std::span<const std::byte> rows);
  void finish();

 private:
  std::string path_;
  std::ofstream out_;
};

class LogitsFile {
 public:
  /// Throws Error naming the file, what was expected and what was found: a file that is not whole is refused.
  explicit LogitsFile(const std::string& path);
  const LogitsShape& shape() const { return shape_; }
  std::span<const int32_t> tokens(int chunk) const;
  LogProbs row(int chunk, int index) const;
  void release(int chunk) const;  ///< its pages are not needed again

 private:
  const std::byte* rows(int chunk) const;
  MappedFile file_;
  LogitsShape shape_;
};

}  // namespace nibble::models
