// SPDX-License-Identifier: Apache-2.0
#include "jit/code.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <utility>

#include "tensor/check.h"

namespace nibble::jit {

namespace {

size_t page_rounded(size_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

void dump(const std::string& name, std::span<const unsigned char> bytes) {
  const char* dir = std::getenv("NIBBLE_JIT_DUMP");
  if (!dir || !*dir) return;
  const std::string path = std::string(dir) + "/" + name + ".bin";
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  out.close();
  NIBBLE_CHECK(out.good(), "NIBBLE_JIT_DUMP: cannot write ", path);
}

// perf reads /tmp/perf-<pid>.map to put names to addresses outside any file.
void note_for_perf(const std::string& name, const void* data, size_t size) {
  const char* wanted = std::getenv("NIBBLE_PERF_MAP");
  if (!wanted || std::strcmp(wanted, "1") != 0) return;
  static std::mutex lock;
  const std::lock_guard guard(lock);
  std::ofstream out("/tmp/perf-" + std::to_string(getpid()) + ".map", std::ios::app);
  out << std::hex << reinterpret_cast<size_t>(data) << ' ' << size << ' ' << name << '\n';
}

}  // namespace

Code::Code(std::string name, std::span<const unsigned char> bytes) : name_(std::move(name)), size_(bytes.size()) {
  dump(name_, bytes);
  void* pages = mmap(nullptr, page_rounded(size_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  NIBBLE_CHECK(pages != MAP_FAILED, name_, ": the system gives no memory for ", size_, " bytes of code");
  std::memcpy(pages, bytes.data(), size_);
  if (mprotect(pages, page_rounded(size_), PROT_READ | PROT_EXEC) != 0) {
    munmap(pages, page_rounded(size_));
    fail(name_, ": the system refuses executable memory (mprotect)");
  }
  data_ = static_cast<unsigned char*>(pages);
  note_for_perf(name_, data_, size_);
}

Code::~Code() {
  if (data_) munmap(data_, page_rounded(size_));
}

Code::Code(Code&& other) noexcept
    : name_(std::move(other.name_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Code& Code::operator=(Code&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace nibble::jit
