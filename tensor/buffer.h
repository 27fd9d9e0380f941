// SPDX-License-Identifier: Apache-2.0
// The only owners of memory: aligned buffers (huge pages when large) and read-only file maps.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace nibble {

/// Zeroed, 64-byte aligned memory. From 4 MB up it is mapped directly, 2 MB aligned and offered to transparent huge
/// pages, so untouched pages cost nothing and the first thread that touches a page places it. Throws Error when the
/// system refuses.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;  // bytes of the mapping, 0 when allocated
};

/// A regular file mapped read-only. Throws Error naming the file when it is missing, not a regular file or unreadable.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  /// The file behind a descriptor that it takes over; `path` is its name in errors.
  MappedFile(std::string path, int fd);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  /// Copies [offset, offset + out.size()) into `out` without mapping it: large parts that are read once cost no page
  /// faults this way. Throws Error when the file no longer has so many bytes, or cannot be read.
  void read(size_t offset, std::span<std::byte> out) const;
  /// Device, inode, size and times as a text: another file, or the same one written to since, has another. Empty when
  /// it was written to so recently that one more write might leave the same times.
  std::string identity() const;
  /// Lets the pages wholly inside [offset, offset + size) go; they are read again if touched.
  void release(size_t offset, size_t size) const;
  /// Asks for read-ahead of the range.
  void prefetch(size_t offset, size_t size) const;
  /// Throws Error if the file's size on disk is no longer what it was when mapped (a shrunk file would raise SIGBUS).
  void check_unchanged() const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int fd_ = -1;
};

}  // namespace nibble
