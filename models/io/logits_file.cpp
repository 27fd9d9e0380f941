// SPDX-License-Identifier: Apache-2.0
#include "models/io/logits_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr char magic[] = "_logits_";
constexpr size_t magic_bytes = 8, header_bytes = magic_bytes + 3 * sizeof(int32_t);
constexpr float deepest = 16;  // below the likeliest

}  // namespace

void encode_log_probs(std::span<const float> logits, double log_sum, std::span<std::byte> row) {
  const auto [low, high] = std::minmax_element(logits.begin(), logits.end());
  const float lowest = std::max(*low, *high - deepest);
  const float step = (*high - lowest) / 65535.0f;
  const float head[2] = {step, static_cast<float>(lowest - log_sum)};
  std::memcpy(row.data(), head, sizeof(head));
  auto* codes = reinterpret_cast<uint16_t*>(row.data() + sizeof(head));
  const float inverse = step > 0 ? 1 / step : 0;
  for (size_t i = 0; i < logits.size(); ++i)
    codes[i] = logits[i] > lowest
                   ? static_cast<uint16_t>(std::min(65535.0f, std::nearbyint(inverse * (logits[i] - lowest))))
                   : 0;
  if (logits.size() % 2 != 0) codes[logits.size()] = 0;
}

LogitsWriter::LogitsWriter(const std::string& path, const LogitsShape& shape, std::span<const int32_t> tokens)
    : path_(path), out_(path, std::ios::binary | std::ios::trunc) {
  NIBBLE_CHECK(out_, path, ": cannot be written");
  out_.write(magic, magic_bytes);
  for (const int32_t number : {shape.context, shape.vocab, shape.chunks})
    out_.write(reinterpret_cast<const char*>(&number), sizeof(number));
  out_.write(reinterpret_cast<const char*>(tokens.data()), static_cast<std::streamsize>(tokens.size_bytes()));
}

void LogitsWriter::write(std::span<const std::byte> rows) {
  out_.write(reinterpret_cast<const char*>(rows.data()), static_cast<std::streamsize>(rows.size()));
  NIBBLE_CHECK(out_, path_, ": cannot be written; is the disk full?");
}

void LogitsWriter::finish() {
  out_.close();
  NIBBLE_CHECK(out_, path_, ": cannot be written; is the disk full?");
}

LogitsFile::LogitsFile(const std::string& path) : file_(path) {
  const std::span<const std::byte> bytes = file_.bytes();
  NIBBLE_CHECK(bytes.size() >= header_bytes && std::memcmp(bytes.data(), magic, magic_bytes) == 0, path,
               ": not a file of log-probabilities: expected it to begin with '", magic, "'");
  int32_t numbers[3];
  std::memcpy(numbers, bytes.data() + magic_bytes, sizeof(numbers));
  shape_ = {.context = numbers[0], .vocab = numbers[1], .chunks = numbers[2]};
  constexpr int32_t most = 1 << 24;
  NIBBLE_CHECK(shape_.context >= 4 && shape_.context <= most && shape_.vocab >= 1 && shape_.vocab <= most &&
                   shape_.chunks >= 1 && shape_.chunks <= most,
               path, ": expected a context of 4, a vocabulary and chunks of 1 to ", most, "; found ", shape_.context,
               ", ", shape_.vocab, " and ", shape_.chunks);
  // at most 2^26 + 2^23 * 2^26
  const uint64_t chunk_bytes = static_cast<uint64_t>(shape_.context) * sizeof(int32_t) +
                               static_cast<uint64_t>(shape_.scored()) * shape_.row_bytes();
  const uint64_t rest = bytes.size() - header_bytes;
  NIBBLE_CHECK(rest % chunk_bytes == 0 && rest / chunk_bytes == static_cast<uint64_t>(shape_.chunks), path, ": ",
               shape_.chunks, " chunks of ", shape_.context, " tokens of a vocabulary of ", shape_.vocab,
               " need another size than the file's ", bytes.size(), " bytes: it is not whole");
}

std::span<const int32_t> LogitsFile::tokens(int chunk) const {
  const auto context = static_cast<size_t>(shape_.context);
  const auto* first = reinterpret_cast<const int32_t*>(file_.bytes().data() + header_bytes);
  return {first + static_cast<size_t>(chunk) * context, context};
}

const std::byte* LogitsFile::rows(int chunk) const {
  const size_t tokens = static_cast<size_t>(shape_.chunks) * static_cast<size_t>(shape_.context) * sizeof(int32_t);
  return file_.bytes().data() + header_bytes + tokens +
         static_cast<size_t>(chunk) * static_cast<size_t>(shape_.scored()) * shape_.row_bytes();
}

LogProbs LogitsFile::row(int chunk, int index) const {
  const std::byte* at = rows(chunk) + static_cast<size_t>(index) * shape_.row_bytes();
  float head[2];
  std::memcpy(head, at, sizeof(head));
  return {head[0], head[1], reinterpret_cast<const uint16_t*>(at + sizeof(head))};
}

void LogitsFile::release(int chunk) const {
  file_.release(static_cast<size_t>(rows(chunk) - file_.bytes().data()),
                static_cast<size_t>(shape_.scored()) * shape_.row_bytes());
}

}  // namespace nibble::models
