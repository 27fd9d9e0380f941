// SPDX-License-Identifier: Apache-2.0
// What people see and press: progress, numbers, Ctrl-C. Internal to apps/.
#pragma once

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <string>
#include <string_view>

#include "models/generate.h"
#include "models/io/metadata.h"

namespace nibble::cli {

using models::printable;

/// While alive, the first Ctrl-C sets the flag; the next one ends the process as usual. One at a time.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  const std::atomic<bool>* flag() const;

 private:
  struct sigaction previous_ = {};
};
constexpr int interrupted_exit_code = 130;

/// From now on a mapped file that is cut short while it is read ends the process with a message and code 1, where the
/// system would only say "Bus error".
void explain_lost_files();

/// Loading progress on stderr, once loading has taken longer than a second.
class LoadProgress {
 public:
  explicit LoadProgress(std::string path);
  ~LoadProgress();
  LoadProgress(const LoadProgress&) = delete;
  LoadProgress& operator=(const LoadProgress&) = delete;
  void show(uint64_t done, uint64_t total);

 private:
  std::string path_;
  std::chrono::steady_clock::time_point begin_;
  bool shown_ = false;
};

/// Writes to stdout at once. Returns false when nobody reads any more.
bool put(std::string_view text);
std::string human_bytes(uint64_t bytes);  ///< "1.10 GiB"
std::string human_count(uint64_t count);  ///< "134.52 M"
/// Speeds and the reason to stop, one line on stderr.
void print_speed(const models::GenerateResult& result, int64_t context);

}  // namespace nibble::cli
