// SPDX-License-Identifier: Apache-2.0
// Errors. The library throws nibble::Error and never prints, aborts or exits.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace nibble {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Joins its arguments with operator<<: message("expected ", 3, ", found ", n).
template <class... Args>
std::string message(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

template <class... Args>
[[noreturn]] void fail(const Args&... args) {
  throw Error(message(args...));
}

}  // namespace nibble

/// Throws nibble::Error with the remaining arguments joined when `condition` is false.
#define NIBBLE_CHECK(condition, ...)              \
  do {                                            \
    if (!(condition)) ::nibble::fail(__VA_ARGS__); \
  } while (false)

/// The same in debug builds; nothing in release builds.
#ifdef NDEBUG
#define NIBBLE_DCHECK(condition, ...) static_cast<void>(0)
#else
#define NIBBLE_DCHECK(condition, ...) NIBBLE_CHECK(condition, __VA_ARGS__)
#endif
