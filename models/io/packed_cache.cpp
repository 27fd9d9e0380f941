// SPDX-License-Identifier: Apache-2.0
#include "models/io/packed_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tensor/check.h"

namespace nibble::models {

namespace {

namespace fs = std::filesystem;

constexpr char magic[9] = "nibblepk";
constexpr uint64_t alignment = 64, page = 4096, samples = 64;
constexpr const char *copy_ending = ".packed", *partial_ending = ".partial", *content_ending = ".content";

struct Header {
  char magic[8];
  uint64_t version;
  ContentHash check;
  uint64_t file_bytes, head_bytes;
};
static_assert(sizeof(Header) == 48);

constexpr uint64_t round_up(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }
uint64_t data_offset(uint64_t head_bytes) { return round_up(sizeof(Header) + head_bytes, page); }

void append(std::string& head, uint64_t number) { head.append(reinterpret_cast<const char*>(&number), sizeof number); }
void append(std::string& head, std::string_view text) {
  append(head, text.size());
  head += text;
}

/// Reads a head; every number is checked before it is used.
class HeadReader {
 public:
  explicit HeadReader(std::span<const std::byte> bytes) : rest_(bytes) {}
  uint64_t number() {
    uint64_t value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() {
    const auto bytes = take(number());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> take(uint64_t bytes) {
    NIBBLE_CHECK(bytes <= rest_.size(), "it ends inside its head");
    const auto taken = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return taken;
  }
  std::span<const std::byte> rest_;
};

ContentHash check_of(const Header& header, std::span<const std::byte> file) {
  ContentHash sum = content_hash(file.subspan(sizeof(Header), header.head_bytes), header.file_bytes);
  const uint64_t begin = data_offset(header.head_bytes), data = file.size() - begin;
  for (uint64_t i = 0; i < samples; ++i) {
    const uint64_t size = std::min(page, data);
    // the last one ends with the file
    const ContentHash part = content_hash(file.subspan(begin + (data - size) / (samples - 1) * i, size), i);
    const ContentHash tail = content_hash(file.subspan(file.size() - size, size), i);
    const uint64_t both[] = {sum.low, sum.high, part.low, part.high, tail.low};
    sum = content_hash(std::as_bytes(std::span(both)));
  }
  return sum;
}

/// The header of a file that is a whole copy. Throws Error.
Header checked_header(const MappedFile& file) {
  const auto bytes = file.bytes();
  Header header{};
  NIBBLE_CHECK(bytes.size() >= sizeof header, "it is too short");
  std::memcpy(&header, bytes.data(), sizeof header);
  NIBBLE_CHECK(std::memcmp(header.magic, magic, sizeof header.magic) == 0, "it is not a packed copy");
  NIBBLE_CHECK(header.version == PackedCache::version, "expected version ", PackedCache::version, ", found ",
               header.version);
  NIBBLE_CHECK(header.file_bytes == bytes.size(), "expected ", header.file_bytes, " bytes, found ", bytes.size());
  NIBBLE_CHECK(header.head_bytes <= bytes.size() && data_offset(header.head_bytes) <= bytes.size(),
               "it ends inside its head");
  NIBBLE_CHECK(check_of(header, bytes) == header.check, "it is damaged");
  return header;
}

/// A file that is being written and not found by others yet.
class PartialFile {
 public:
  PartialFile(std::string path, std::string final_path) : path_(std::move(path)), final_(std::move(final_path)) {}
  ~PartialFile() {
    if (fd_ < 0) return;
    if (locked_ && in_place()) unlink(path_.c_str());
    close(fd_);
  }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  /// False when another process is writing it.
  bool lock() {
    while (true) {
      fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
      check(fd_ >= 0, "create");
      if (flock(fd_, LOCK_EX | LOCK_NB) != 0) return false;
      if (in_place()) break;  // else who held the lock until now has renamed or removed it
      close(fd_);
    }
    locked_ = true;
    check(ftruncate(fd_, 0) == 0, "empty");
    return true;
  }
  void reserve(uint64_t bytes) {
    struct statvfs disk {};
    const uint64_t free = fstatvfs(fd_, &disk) == 0 ? static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize : UINT64_MAX;
    NIBBLE_CHECK(bytes <= free, path_, ": ", bytes, " bytes are needed, ", free, " are free");
    check(ftruncate(fd_, static_cast<off_t>(bytes)) == 0, "extend");
    check(fallocate(fd_, 0, 0, static_cast<off_t>(bytes)) == 0 || errno == EOPNOTSUPP, "extend");
  }
  void write(uint64_t offset, const void* data, uint64_t bytes) {
    for (const char* at = static_cast<const char*>(data); bytes > 0;) {
      const ssize_t done = pwrite(fd_, at, std::min<uint64_t>(bytes, 64 << 20), static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      check(done > 0, "write");
      at += done;
      offset += static_cast<uint64_t>(done);
      bytes -= static_cast<uint64_t>(done);
    }
  }
  /// What was written so far, whatever has become of the path.
  MappedFile map() const {
    const int fd = fcntl(fd_, F_DUPFD_CLOEXEC, 0);
    check(fd >= 0, "map");
    return {path_, fd};
  }
  void finish() {
    check(fsync(fd_) == 0, "write");
    NIBBLE_CHECK(in_place(), path_, " was removed while it was written");
    check(rename(path_.c_str(), final_.c_str()) == 0, "rename");
    locked_ = false;
    const int folder = open(fs::path(final_).parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;
    fsync(folder);
    close(folder);
  }

 private:
  bool in_place() const {
    struct stat mine {}, there {};
    return fstat(fd_, &mine) == 0 && stat(path_.c_str(), &there) == 0 && mine.st_dev == there.st_dev &&
           mine.st_ino == there.st_ino;
  }
  void check(bool ok, const char* what) const {
    NIBBLE_CHECK(ok, "cannot ", what, " ", path_, ": ", std::strerror(errno));
  }
  std::string path_, final_;
  int fd_ = -1;
  bool locked_ = false;
};

/// Removes what a writer left behind; false while one is still at it.
bool remove_partial(const std::string& path) {
  try {
    return PartialFile(path, "").lock();
  } catch (const Error&) {
    return false;
  }
}

void write_copy(PartialFile& file, std::string_view key, std::string_view about,
                std::span<const PackedTensor> tensors) {
  std::string head;
  append(head, key);
  append(head, about);
  append(head, tensors.size());
  Header header{};
  header.head_bytes = head.size();
  for (const PackedTensor& tensor : tensors) header.head_bytes += 3 * sizeof(uint64_t) + tensor.name.size();
  uint64_t offset = data_offset(header.head_bytes);
  for (const PackedTensor& tensor : tensors) {
    append(head, std::string_view(tensor.name));
    append(head, offset);
    append(head, tensor.data.size());
    offset = round_up(offset + tensor.data.size(), alignment);
  }
  file.reserve(offset);
  file.write(sizeof header, head.data(), head.size());
  offset = data_offset(header.head_bytes);
  for (const PackedTensor& tensor : tensors) {
    file.write(offset, tensor.data.data(), tensor.data.size());
    offset = round_up(offset + tensor.data.size(), alignment);
  }
  std::memcpy(header.magic, magic, sizeof header.magic);
  header.version = PackedCache::version;
  header.file_bytes = offset;
  header.check = check_of(header, file.map().bytes());
  file.write(0, &header, sizeof header);
  file.finish();
}

std::string read_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

}  // namespace

std::span<const std::byte> PackedCopy::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? std::span<const std::byte>() : it->second;
}

PackedCache::PackedCache(std::string folder, Note note) : folder_(std::move(folder)), note_(std::move(note)) {}

void PackedCache::note(const std::string& text) const {
  if (note_) note_(text);
}

std::string PackedCache::copy_path(std::string_view key) const {
  return (fs::path(folder_) / (content_hash(message("v", version, ";", key)).hex() + copy_ending)).string();
}

std::string PackedCache::content_key(std::span<const MappedFile* const> files, ThreadPool& pool) const {
  const auto identify = [&] {
    std::string all;
    for (const MappedFile* file : files) {
      const std::string one = file->identity();
      if (one.empty()) return one;
      all += message(one, ";");
    }
    return all;
  };
  const std::string identity = identify();
  const fs::path known = fs::path(folder_) / (content_hash(identity).hex() + content_ending);
  // the line ends with the identity, so a cut or foreign file is none
  if (std::string line = identity.empty() ? "" : read_line(known); line.ends_with(message(" ", identity)))
    return line.substr(0, line.size() - identity.size() - 1);
  std::string key;
  for (const MappedFile* file : files) key += message(key.empty() ? "" : ",", content_hash(*file, pool).hex());
  if (identity.empty() || identify() != identity) return key;
  try {
    fs::create_directories(folder_);
    const std::string line = message(key, " ", identity, "\n");
    PartialFile out(message(known.string(), partial_ending), known.string());
    if (out.lock()) {
      out.write(0, line.data(), line.size());
      out.finish();
    }
  } catch (const std::exception& error) {
    note(error.what());
  }
  return key;
}

std::optional<PackedCopy> PackedCache::find(std::string_view key) const {
  const std::string path = copy_path(key);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  try {
    PackedCopy copy;
    copy.file_ = MappedFile(path);
    const Header header = checked_header(copy.file_);
    const auto bytes = copy.file_.bytes();
    HeadReader head(bytes.subspan(sizeof header, header.head_bytes));
    NIBBLE_CHECK(head.text() == key, "it has another key");
    head.text();
    for (uint64_t left = head.number(); left > 0; --left) {
      std::string name = head.text();
      const uint64_t offset = head.number(), size = head.number();
      NIBBLE_CHECK(offset % alignment == 0 && offset <= bytes.size() && size <= bytes.size() - offset, "tensor ", name,
                   " is outside of it");
      copy.tensors_[std::move(name)] = bytes.subspan(offset, size);
    }
    return copy;
  } catch (const std::exception& error) {
    note(message(path, " is not used: ", error.what()));
    return std::nullopt;
  }
}

bool PackedCache::store(std::string_view key, std::string_view about, std::span<const PackedTensor> tensors) const {
  const std::string path = copy_path(key);
  try {
    fs::create_directories(folder_);
    PartialFile file(path + partial_ending, path);
    if (!file.lock()) {
      note(message("another process is writing ", path));
      return false;
    }
    if (PackedCache(folder_).find(key)) return true;
    write_copy(file, key, about, tensors);
    return true;
  } catch (const std::exception& error) {
    note(message("no packed copy was kept: ", error.what()));
    return false;
  }
}

std::vector<PackedCache::Listed> PackedCache::list() const {
  std::vector<Listed> all;
  std::error_code ignored;
  for (const fs::directory_entry& file : fs::directory_iterator(folder_, ignored)) {
    if (file.path().extension() != copy_ending) continue;
    Listed listed{file.path().string(), "", file.file_size(ignored)};
    try {
      const MappedFile map(listed.path);
      HeadReader head(map.bytes().subspan(sizeof(Header), checked_header(map).head_bytes));
      head.text();
      listed.about = head.text();
    } catch (const Error&) {
      listed.about.clear();
    }
    all.push_back(std::move(listed));
  }
  std::sort(all.begin(), all.end(), [](const Listed& a, const Listed& b) { return a.path < b.path; });
  return all;
}

uint64_t PackedCache::clear() const {
  std::vector<fs::path> ours;
  std::error_code ignored;
  for (const fs::directory_entry& file : fs::directory_iterator(folder_, ignored))
    for (const char* ending : {copy_ending, partial_ending, content_ending})
      if (file.path().extension() == ending) ours.push_back(file.path());
  uint64_t freed = 0;
  for (const fs::path& path : ours) {
    const uintmax_t size = fs::file_size(path, ignored);
    if (path.extension() == partial_ending ? remove_partial(path.string()) : fs::remove(path, ignored)) freed += size;
  }
  return freed;
}

std::string default_packed_cache() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/')
    return message(cache, "/nibble/packed");
  const char* home = std::getenv("HOME");
  NIBBLE_CHECK(home != nullptr && *home != '\0',
               "neither XDG_CACHE_HOME nor HOME says where packed weights could be kept");
  return message(home, "/.cache/nibble/packed");
}

}  // namespace nibble::models
