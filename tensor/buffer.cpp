// SPDX-License-Identifier: Apache-2.0
#include "tensor/buffer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>

#include "tensor/check.h"

namespace nibble {

namespace {

constexpr size_t alignment = 64;
constexpr size_t huge_page = size_t{2} << 20;
constexpr size_t map_from = 2 * huge_page;  // below, alignment to a huge page would waste too much

size_t page_bytes() {
  static const auto bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

constexpr size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

/// A private mapping of `size` bytes that starts at a multiple of huge_page; nullptr when refused.
std::byte* map_aligned(size_t size) {
  const size_t total = size + huge_page;
  void* raw = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* base = static_cast<std::byte*>(raw);
  const size_t head = round_up(reinterpret_cast<uintptr_t>(base), huge_page) - reinterpret_cast<uintptr_t>(base);
  if (head > 0) munmap(base, head);
  if (total - head > size) munmap(base + head + size, total - head - size);
  madvise(base + head, size, MADV_HUGEPAGE);  // a hint: refusal changes nothing
  return base + head;
}

}  // namespace

Buffer::Buffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  NIBBLE_CHECK(bytes <= SIZE_MAX / 2, "cannot allocate ", bytes, " bytes");
  if (bytes >= map_from) {
    mapped_ = round_up(bytes, page_bytes());
    data_ = map_aligned(mapped_);
  } else {
    data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, round_up(bytes, alignment)));
    if (data_) std::memset(data_, 0, bytes);
  }
  NIBBLE_CHECK(data_, "cannot allocate ", bytes, " bytes");
}

Buffer::~Buffer() {
  if (mapped_ > 0) {
    munmap(data_, mapped_);
  } else {
    std::free(data_);
  }
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  Buffer taken(std::move(other));
  std::swap(data_, taken.data_);
  std::swap(size_, taken.size_);
  std::swap(mapped_, taken.mapped_);
  return *this;
}

namespace {
int open_to_read(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // O_NONBLOCK: opening a pipe must not hang
  NIBBLE_CHECK(fd >= 0, "cannot open ", path, ": ", std::strerror(errno));
  return fd;
}
}  // namespace

MappedFile::MappedFile(const std::string& path) : MappedFile(path, open_to_read(path)) {}

MappedFile::MappedFile(std::string path, int fd) : path_(std::move(path)) {
  struct stat status {};
  const bool known = fstat(fd, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    close(fd);
    fail(path_, known ? ": expected a regular file" : ": cannot read its size");
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ > 0) {
    void* raw = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (raw == MAP_FAILED) {
      const int error = errno;
      close(fd);
      fail("cannot map ", path_, ": ", std::strerror(error));
    }
    data_ = static_cast<const std::byte*>(raw);
  }
  fd_ = fd;
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<std::byte*>(data_), size_);
  if (fd_ >= 0) close(fd_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      fd_(std::exchange(other.fd_, -1)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  MappedFile taken(std::move(other));
  std::swap(path_, taken.path_);
  std::swap(data_, taken.data_);
  std::swap(size_, taken.size_);
  std::swap(fd_, taken.fd_);
  return *this;
}

void MappedFile::read(size_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got = pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    NIBBLE_CHECK(got >= 0, "cannot read ", path_, " at byte ", offset, ": ", std::strerror(errno));
    NIBBLE_CHECK(got > 0, path_, " ends at byte ", offset, ": expected ", out.size(), " more bytes");
    offset += static_cast<size_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
}

std::string MappedFile::identity() const {
  struct stat status {};
  if (fd_ < 0 || fstat(fd_, &status) != 0) return "";
  constexpr time_t settled = 2;  // seconds; coarser than the clock of any usual file system
  if (time(nullptr) < std::max(status.st_mtim.tv_sec, status.st_ctim.tv_sec) + settled) return "";
  const auto text = [](const timespec& t) { return message(t.tv_sec, ".", t.tv_nsec); };
  return message(status.st_dev, ":", status.st_ino, ":", status.st_size, ":", text(status.st_mtim), ":",
                 text(status.st_ctim));
}

void MappedFile::release(size_t offset, size_t size) const {
  const size_t end = offset < size_ ? offset + std::min(size, size_ - offset) : 0;
  const size_t first = round_up(std::min(offset, size_), page_bytes());
  // The last page of the file belongs to the range when the range reaches the end.
  const size_t last = end == size_ ? end : end / page_bytes() * page_bytes();
  if (first < last) madvise(const_cast<std::byte*>(data_) + first, last - first, MADV_DONTNEED);
}

void MappedFile::prefetch(size_t offset, size_t size) const {
  if (offset >= size_ || size == 0) return;
  const size_t first = offset / page_bytes() * page_bytes();
  const size_t last = offset + std::min(size, size_ - offset);
  madvise(const_cast<std::byte*>(data_) + first, last - first, MADV_WILLNEED);
}

void MappedFile::check_unchanged() const {
  if (fd_ < 0) return;
  struct stat status {};
  NIBBLE_CHECK(fstat(fd_, &status) == 0, path_, ": cannot read its size");
  NIBBLE_CHECK(static_cast<size_t>(status.st_size) == size_, path_, " changed while in use: expected ", size_,
               " bytes, found ", status.st_size);
}

}  // namespace nibble
