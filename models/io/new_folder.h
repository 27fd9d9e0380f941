// SPDX-License-Identifier: Apache-2.0
// A folder that takes its name when it is whole. Internal to models/.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace nibble::models {

class NewFolder {
 public:
  /// Throws Error when `to` is there and is no empty folder, or nothing can be created beside it.
  explicit NewFolder(std::filesystem::path to);
  /// Deletes everything unless finish() was called.
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  /// Where it is until then.
  std::string path() const { return partial_.string(); }
  /// A new file, to the disk. Throws Error naming it.
  void write(const std::string& name, std::string_view text) const;
  void finish();

 private:
  std::filesystem::path to_, partial_;
  bool done_ = false;
};

}  // namespace nibble::models
