// SPDX-License-Identifier: Apache-2.0
// Columns padded to their widest cell, for explain() and profiles.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace nibble {

class TextTable {
 public:
  explicit TextTable(std::vector<std::string> header) { row(std::move(header)); }
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  /// A line under the last row that takes no part in the columns.
  void note(std::string line) { rows_.push_back({std::move(line)}); }
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace nibble
