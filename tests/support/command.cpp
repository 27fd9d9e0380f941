// SPDX-License-Identifier: Apache-2.0
#include "tests/support/command.h"

#include <array>
#include <cstdio>

#include <sys/wait.h>

#include "tests/support/gguf_writer.h"

namespace nibble::test {

Outcome run_command(const std::string& environment, const std::string& program, const std::string& arguments) {
  TempDir dir;
  // In braces on lines of their own, so that the arguments may hold a here-document.
  const std::string command =
      "{\n" + environment + " " NIBBLE_BINARY_DIR "/" + program + " " + arguments + "\n} 2>" + (dir / "error");
  Outcome outcome;
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return outcome;
  std::array<char, 4096> block;
  for (size_t got = 0; (got = std::fread(block.data(), 1, block.size(), pipe)) > 0;)
    outcome.out.append(block.data(), got);
  const int status = pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  outcome.error = read_file(dir / "error");
  return outcome;
}

}  // namespace nibble::test
