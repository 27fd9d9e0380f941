// SPDX-License-Identifier: Apache-2.0
// nibble kernels: what the emitters make, by name.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "apps/command.h"
#include "apps/terminal.h"
#include "jit/jit.h"
#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::cli {

namespace {

struct KernelFlags {
  std::string isa, emit, disassemble, output;
};

void write_code(const std::string& path, const std::vector<unsigned char>& code) {
  std::FILE* out = std::fopen(path.c_str(), "wb");
  NIBBLE_CHECK(out != nullptr, "cannot write ", path, ": ", std::strerror(errno));
  const bool written = std::fwrite(code.data(), 1, code.size(), out) == code.size();
  const bool closed = std::fclose(out) == 0;
  NIBBLE_CHECK(written && closed, "cannot write ", path, ": ", std::strerror(errno));
}

int list(const std::string& only) {
  for (Isa isa : all_isas()) {
    if (!only.empty() && only != name(isa)) continue;
    for (const std::string& kernel : jit::list_kernels(isa)) std::printf("%s\n", kernel.c_str());
  }
  return 0;
}

int emit(const KernelFlags& flags) {
  const std::vector<unsigned char> code = jit::emit_kernel(flags.emit);
  const std::string path = flags.output.empty() ? flags.emit + ".bin" : flags.output;
  write_code(path, code);
  std::printf("%s: %zu bytes\n", path.c_str(), code.size());
  return 0;
}

/// A file that goes away with this object.
struct ScratchFile {
  std::string path = std::filesystem::temp_directory_path() / "nibble-kernel-XXXXXX";
  ScratchFile() {
    const int fd = mkstemp(path.data());
    NIBBLE_CHECK(fd >= 0, "cannot make the temporary file ", path, ": ", std::strerror(errno));
    close(fd);
  }
  ~ScratchFile() { unlink(path.c_str()); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
};

int disassemble(const KernelFlags& flags) {
  ScratchFile file;
  write_code(file.path, jit::emit_kernel(flags.disassemble));
  std::fflush(stdout);
  std::string program = "objdump", all = "-D", raw = "--no-show-raw-insn", format = "-bbinary",
              machine = "-mi386:x86-64", syntax = "-Mintel", path = file.path;
  char* const arguments[] = {program.data(), all.data(),    raw.data(),  format.data(),
                             machine.data(), syntax.data(), path.data(), nullptr};
  pid_t child = 0;
  const int failed = posix_spawnp(&child, "objdump", nullptr, nullptr, arguments, environ);
  NIBBLE_CHECK(failed == 0, "objdump is not here (Debian: binutils). Use --emit ", flags.disassemble,
               " -o k.bin and disassemble k.bin as raw x86-64 code elsewhere");
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  NIBBLE_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "objdump failed");
  return 0;
}

}  // namespace

Action setup_kernels(CLI::App& app) {
  auto flags = std::make_shared<KernelFlags>();
  app.add_option("--isa", flags->isa, "List those of one instruction set only")->type_name("ISA");
  CLI::Option* emitted =
      app.add_option("--emit", flags->emit, "Write the machine code of this kernel")->type_name("NAME");
  app.add_option("-o,--output", flags->output, "Where --emit writes (default: NAME.bin)")
      ->type_name("FILE")
      ->needs(emitted);
  app.add_option("--disassemble", flags->disassemble, "Show the instructions of this kernel (by objdump)")
      ->type_name("NAME")
      ->excludes(emitted);
  app.footer("Without flags it lists the kernels, by name.\n\nExample:\n  nibble kernels --isa avx2");
  return [flags] {
    if (!flags->isa.empty()) parse_isa(flags->isa);
    if (!flags->emit.empty()) return emit(*flags);
    if (!flags->disassemble.empty()) return disassemble(*flags);
    return list(flags->isa);
  };
}

}  // namespace nibble::cli
