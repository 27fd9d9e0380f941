// SPDX-License-Identifier: Apache-2.0
#include "tensor/buffer.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "tensor/check.h"

namespace nibble {
namespace {

class TempFile {
 public:
  explicit TempFile(size_t bytes) : path_(testing::TempDir() + "nibble_buffer_" + std::to_string(getpid())) {
    std::ofstream out(path_, std::ios::binary);
    for (size_t i = 0; i < bytes; ++i) out.put(static_cast<char>(i * 31 % 251));
  }
  ~TempFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

bool all_zero(const Buffer& b) {
  return std::all_of(b.data(), b.data() + b.size(), [](std::byte x) { return x == std::byte{0}; });
}

TEST(Buffer, IsZeroedAndAligned) {
  for (size_t bytes : {size_t{1}, size_t{63}, size_t{64}, size_t{100000}, (size_t{4} << 20) - 1, size_t{4} << 20,
                       (size_t{5} << 20) + 3}) {
    Buffer b(bytes);
    ASSERT_EQ(b.size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) % 64, 0u);
    if (bytes >= size_t{4} << 20) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) % (size_t{2} << 20), 0u);
    }
    EXPECT_TRUE(all_zero(b)) << bytes;
    std::fill(b.data(), b.data() + bytes, std::byte{0xff});  // the next one of this size must not see it
  }
}

TEST(Buffer, MovesOwnership) {
  Buffer a(size_t{5} << 20);
  std::byte* data = a.data();
  Buffer b(std::move(a));
  EXPECT_EQ(b.data(), data);
  EXPECT_EQ(a.data(), nullptr);  // NOLINT: a moved-from buffer is empty
  Buffer c(10);
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(c.size(), size_t{5} << 20);
}

TEST(Buffer, EmptyHasNoMemory) {
  EXPECT_EQ(Buffer(0).data(), nullptr);
  EXPECT_EQ(Buffer().size(), 0u);
}

TEST(Buffer, ThrowsWhenRefused) { EXPECT_THROW(Buffer(SIZE_MAX / 2 + 1), Error); }

TEST(MappedFile, ShowsTheBytes) {
  const TempFile file(100000);
  const MappedFile map(file.path());
  ASSERT_EQ(map.bytes().size(), 100000u);
  for (size_t i = 0; i < 100000; ++i) ASSERT_EQ(map.bytes()[i], std::byte(i * 31 % 251)) << i;
  EXPECT_EQ(map.path(), file.path());
}

TEST(MappedFile, ReleasedPagesAreReadAgain) {
  const TempFile file(100000);
  const MappedFile map(file.path());
  map.prefetch(0, 100000);
  map.release(5, 100000);
  map.release(99999, 1);
  map.release(200000, 10);
  map.prefetch(200000, 10);
  for (size_t i = 0; i < 100000; ++i) ASSERT_EQ(map.bytes()[i], std::byte(i * 31 % 251)) << i;
}

TEST(MappedFile, MovesOwnership) {
  const TempFile file(10);
  MappedFile a(file.path());
  MappedFile b;
  b = std::move(a);
  EXPECT_EQ(b.bytes().size(), 10u);
  EXPECT_TRUE(a.bytes().empty());  // NOLINT: a moved-from map is empty
  const MappedFile c(std::move(b));
  EXPECT_EQ(c.bytes()[3], std::byte{93});
}

TEST(MappedFile, NoticesAChangedSize) {
  const TempFile file(10000);
  const MappedFile map(file.path());
  EXPECT_NO_THROW(map.check_unchanged());
  std::filesystem::resize_file(file.path(), 5000);
  EXPECT_THROW(map.check_unchanged(), Error);
}

TEST(MappedFile, EmptyFileHasNoBytes) {
  const TempFile file(0);
  const MappedFile map(file.path());
  EXPECT_TRUE(map.bytes().empty());
  map.release(0, 1);
}

TEST(MappedFile, RefusesWhatIsNotAFile) {
  const TempFile file(1);
  const std::string missing = file.path() + "_missing";
  try {
    MappedFile map(missing);
    FAIL() << "opened a missing file";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(missing), std::string::npos) << e.what();
  }
  EXPECT_THROW(MappedFile(testing::TempDir()), Error);
  const std::string pipe = file.path() + "_pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THROW(MappedFile{pipe}, Error);
  std::filesystem::remove(pipe);
}

}  // namespace
}  // namespace nibble
