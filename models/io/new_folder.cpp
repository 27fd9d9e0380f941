// SPDX-License-Identifier: Apache-2.0
#include "models/io/new_folder.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tensor/check.h"

namespace nibble::models {

namespace fs = std::filesystem;

NewFolder::NewFolder(fs::path to) : to_(std::move(to)) {
  if (!to_.has_filename()) to_ = to_.parent_path();
  partial_ = to_;
  partial_ += ".partial." + std::to_string(getpid());
  NIBBLE_CHECK(!fs::exists(to_) || (fs::is_directory(to_) && fs::is_empty(to_)), to_.string(),
               ": expected a folder that is new or empty");
  std::error_code error;
  NIBBLE_CHECK(fs::create_directory(partial_, error) && !error, partial_.string(),
               ": cannot create it: ", error.message());
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!done_) fs::remove_all(partial_, ignored);
}

void NewFolder::write(const std::string& name, std::string_view text) const {
  const std::string file = (partial_ / name).string();
  std::FILE* out = std::fopen(file.c_str(), "wbx");
  NIBBLE_CHECK(out != nullptr, file, ": cannot create it: ", std::strerror(errno));
  const bool written =
      std::fwrite(text.data(), 1, text.size(), out) == text.size() && std::fflush(out) == 0 && fsync(fileno(out)) == 0;
  const bool closed = std::fclose(out) == 0;
  NIBBLE_CHECK(written && closed, file, ": cannot write it: ", std::strerror(errno));
}

void NewFolder::finish() {
  std::error_code error;
  fs::rename(partial_, to_, error);
  NIBBLE_CHECK(!error, to_.string(), ": cannot rename ", partial_.string(), " to it: ", error.message());
  done_ = true;
}

}  // namespace nibble::models
