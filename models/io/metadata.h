// SPDX-License-Identifier: Apache-2.0
// Numbers and strings of a model file, by key, the same for GGUF keys and config.json.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::models {

/// Untrusted text made fit for a terminal and an error message: control and invalid bytes become '?', and what is
/// longer than `limit` bytes is cut and ends in "...".
std::string printable(std::string_view text, size_t limit = 80);

/// Keys are tried in turn: "a|b|c". GGUF keys of the architecture are also found without their prefix
/// ("block_count" finds "llama.block_count"), those of config.json also inside objects ("rope_scaling.factor"); null
/// counts as absent. Integers serve where floats are asked for; of a config.json also 4.0 where an integer is. Wrong
/// types, fractions where integers are asked for, and values outside [low, high] throw Error naming the file, the key,
/// what was expected and what was found.
class Metadata {
 public:
  enum class Source { gguf, hugging_face };
  Metadata(Source source, std::string file, std::string prefix, nlohmann::json values);
  ~Metadata();
  Metadata(Metadata&&) noexcept;
  Metadata& operator=(Metadata&&) noexcept;

  Source source() const { return source_; }
  const std::string& file() const { return file_; }
  bool has(std::string_view keys) const;
  int64_t need_int(std::string_view keys, int64_t low, int64_t high) const;
  int64_t get_int(std::string_view keys, int64_t fallback, int64_t low, int64_t high) const;
  double need_float(std::string_view keys, double low, double high) const;
  double get_float(std::string_view keys, double fallback, double low, double high) const;
  bool get_bool(std::string_view keys, bool fallback) const;
  std::string need_string(std::string_view keys) const;
  std::string get_string(std::string_view keys, std::string_view fallback) const;
  /// The raw value of the first key that is there; null when none is. Big arrays (the vocabulary) are not in here.
  const nlohmann::json* find(std::string_view keys) const;
  const nlohmann::json& values() const { return *values_; }
  /// "key=value" in place of what the file says or does not say: a key as find() takes it, and a number, true, false or
  /// a text. Throws Error when there is no '=' or no key.
  void set(std::string_view assignment);
  /// Throws Error for a key that was set and that nobody has asked for since.
  void check_set_keys() const;

 private:
  struct SetKey {
    std::string key;
    const nlohmann::json* value;
    mutable bool read = false;
  };
  Source source_;
  std::string file_, prefix_;
  std::unique_ptr<nlohmann::json> values_;
  std::vector<SetKey> set_;
};

}  // namespace nibble::models
