// SPDX-License-Identifier: Apache-2.0
// Packed copies on disk: found again, never when they are not whole or not of these contents.
#include "models/io/packed_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "jit/jit.h"
#include "models/decoder.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

std::vector<std::byte> random_bytes(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

void write_file(const fs::path& path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

fs::path only_copy(const std::string& folder) {
  fs::path found;
  for (const auto& file : fs::directory_iterator(folder))
    if (file.path().extension() == ".packed") {
      EXPECT_TRUE(found.empty()) << "two copies";
      found = file.path();
    }
  return found;
}

struct Fixture {
  TempDir dir;
  std::vector<std::string> notes;
  PackedCache cache{dir / "cache", [this](const std::string& text) { notes.push_back(text); }};
  std::vector<std::byte> a = random_bytes(1000003, 1), b = random_bytes(64, 2);
  std::vector<PackedTensor> tensors{{"a", a}, {"b", b}, {"none", {}}};

  bool finds(std::string_view key) {
    const auto copy = cache.find(key);
    if (!copy) return false;
    EXPECT_TRUE(std::ranges::equal(copy->find("a"), a));
    EXPECT_TRUE(std::ranges::equal(copy->find("b"), b));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(copy->find("b").data()) % 64, 0u);
    EXPECT_TRUE(copy->find("c").empty());
    return true;
  }
};

TEST(PackedCache, FindsWhatItStoredByItsKeyOnly) {
  Fixture f;
  EXPECT_FALSE(f.finds("key"));
  EXPECT_TRUE(f.cache.list().empty());
  ASSERT_TRUE(f.cache.store("key", "a model", f.tensors));
  EXPECT_TRUE(f.finds("key"));
  EXPECT_FALSE(f.finds("key2"));
  EXPECT_TRUE(f.notes.empty()) << f.notes.front();
  ASSERT_EQ(f.cache.list().size(), 1u);
  EXPECT_EQ(f.cache.list()[0].about, "a model");
  const uint64_t size = f.cache.list()[0].bytes;
  EXPECT_GT(size, f.a.size());
  EXPECT_EQ(f.cache.clear(), size);
  EXPECT_TRUE(f.cache.list().empty());
}

TEST(PackedCache, IgnoresDamagedCopies) {
  Fixture f;
  ASSERT_TRUE(f.cache.store("key", "", f.tensors));
  const fs::path path = only_copy(f.cache.folder());
  const MappedFile map(path);
  const std::vector<std::byte> whole(map.bytes().begin(), map.bytes().end());
  const auto damaged = [&](const char* what, const std::vector<std::byte>& bytes) {
    f.notes.clear();
    fs::remove(path);
    write_file(path, bytes);
    EXPECT_FALSE(f.cache.find("key").has_value()) << what;
    ASSERT_EQ(f.notes.size(), 1u) << what;
    EXPECT_NE(f.notes[0].find(path.filename().string()), std::string::npos);
  };
  for (size_t size : {size_t{0}, size_t{7}, size_t{56}, size_t{100}, size_t{4096}, whole.size() - 1})
    damaged("cut", {whole.begin(), whole.begin() + static_cast<int64_t>(size)});
  for (size_t at = 0; at < 48; ++at) {
    std::vector<std::byte> bytes = whole;
    bytes[at] ^= std::byte{1};
    damaged("header", bytes);
  }
  for (size_t at : {size_t{57}, size_t{90}, whole.size() - 1}) {
    std::vector<std::byte> bytes = whole;
    bytes[at] ^= std::byte{0x80};
    damaged("head or data", bytes);
  }
  std::vector<std::byte> lost = whole;
  std::fill(lost.begin() + 500000, lost.begin() + 600000, std::byte{0});
  damaged("a part that never reached the disk", lost);
  EXPECT_TRUE(f.cache.list()[0].about.empty());
  ASSERT_TRUE(f.cache.store("key", "", f.tensors)) << "a damaged copy is replaced";
  EXPECT_TRUE(f.finds("key"));
}

TEST(PackedCache, WritersAtOnceLeaveOneWholeCopy) {
  Fixture f;
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i)
    writers.emplace_back([&] {
      const PackedCache mine(f.cache.folder());
      for (int round = 0; round < 20; ++round) {
        mine.store("key", "", f.tensors);
        if (round % 5 == 4) mine.clear();
        if (const auto copy = mine.find("key")) { EXPECT_TRUE(std::ranges::equal(copy->find("a"), f.a)); }
      }
    });
  for (std::thread& writer : writers) writer.join();
  ASSERT_TRUE(f.cache.store("key", "", f.tensors));
  EXPECT_TRUE(f.finds("key"));
  only_copy(f.cache.folder());
  for (const auto& file : fs::directory_iterator(f.cache.folder()))
    EXPECT_EQ(file.path().extension(), ".packed") << file.path();
}

TEST(PackedCache, ClearLeavesWhatIsBeingWritten) {
  Fixture f;
  ASSERT_TRUE(f.cache.store("key", "", f.tensors));
  const std::string copy = only_copy(f.cache.folder()), partial = copy + ".partial";
  write_file(partial, f.b);
  const int writer = open(partial.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(writer, LOCK_EX), 0);
  const uint64_t size = fs::file_size(copy);
  EXPECT_EQ(f.cache.clear(), size);
  EXPECT_FALSE(fs::exists(copy));
  EXPECT_TRUE(fs::exists(partial));
  close(writer);
  EXPECT_EQ(f.cache.clear(), f.b.size());
  EXPECT_FALSE(fs::exists(partial));
}

TEST(PackedCache, PartsRemovedUnderAWriterHarmNobody) {
  Fixture f;
  std::atomic<bool> done = false;
  std::thread remover([&] {
    std::error_code ignored;
    while (!done)
      for (const auto& file : fs::directory_iterator(f.cache.folder(), ignored))
        if (file.path().extension() == ".partial") fs::remove(file.path(), ignored);
  });
  std::vector<std::thread> writers;
  for (int i = 0; i < 2; ++i)
    writers.emplace_back([&] {
      const PackedCache mine(f.cache.folder());
      for (int round = 0; round < 20; ++round) {
        mine.store("key", "", f.tensors);
        if (const auto copy = mine.find("key")) { EXPECT_TRUE(std::ranges::equal(copy->find("a"), f.a)); }
        mine.clear();
      }
    });
  for (std::thread& writer : writers) writer.join();
  done = true;
  remover.join();
  ASSERT_TRUE(f.cache.store("key", "", f.tensors));
  EXPECT_TRUE(f.finds("key"));
}

TEST(PackedCache, CannotStoreIsANote) {
  Fixture f;
  write_file(f.dir / "file", f.b);
  std::string note;
  const PackedCache cache(f.dir / "file", [&](const std::string& text) { note = text; });
  EXPECT_FALSE(cache.store("key", "", f.tensors));
  EXPECT_FALSE(note.empty());
  EXPECT_FALSE(cache.find("key").has_value());
}

TEST(PackedCache, ContentKeysFollowTheContents) {
  Fixture f;
  ThreadPool one(1), two(2);
  const auto key = [&](const std::string& name, ThreadPool& pool) {
    const MappedFile file(f.dir / name);
    const MappedFile* files[] = {&file};
    return f.cache.content_key(files, pool);
  };
  write_file(f.dir / "first", f.a);
  write_file(f.dir / "same", f.a);
  const std::string first = key("first", one);
  EXPECT_EQ(key("same", two), first);
  std::vector<std::byte> other = f.a;
  other[777777] ^= std::byte{4};
  write_file(f.dir / "first", other);  // just written: the times alone are not trusted
  EXPECT_NE(key("first", two), first);
  // a file whose times are old is read once, and again when they change
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(1);
  fs::last_write_time(f.dir / "same", old);
  EXPECT_EQ(key("same", two), first);
  EXPECT_EQ(key("same", two), first);
  write_file(f.dir / "same", other);
  EXPECT_EQ(key("same", two), key("first", two));
}

std::vector<float> logits(const std::string& path, const LoadOptions& options, bool* mapped) {
  const auto model = Model::load(path, options);
  *mapped = model->weights.mapped();
  Engine engine(model, {.threads = 2, .context = 32});
  std::vector<Row> rows;
  for (int i = 0; i < 5; ++i) rows.push_back({3 + i, i, 0, true});
  const auto result = engine.run(rows);
  return {result.begin(), result.end()};
}

TEST(PackedCache, ModelsGiveTheSameBits) {
  jit::register_kernels();
  for (const char* quant : {"", "q4", "q8"}) {
    const TempDir dir;
    fs::copy(NIBBLE_TEST_DATA "/folders/llama-f32", dir / "model");
    LoadOptions options;
    options.threads = 2;
    options.need_tokenizer = false;
    options.quant = quant;
    bool mapped = false;
    const std::vector<float> want = logits(dir / "model", options, &mapped);
    std::vector<std::string> notes;
    options.packed_cache = dir / "cache";
    options.note = [&](const std::string& text) { notes.push_back(text); };
    for (const bool again : {false, true}) {
      EXPECT_EQ(logits(dir / "model", options, &mapped), want) << quant;
      EXPECT_EQ(mapped, again) << quant;
    }
    options.quant = "bf16";
    logits(dir / "model", options, &mapped);
    EXPECT_FALSE(mapped) << "other settings are another copy";
    // other weights under the same names
    options.quant = quant;
    std::string shard = test::read_file(dir / "model/model.safetensors");
    for (size_t i = shard.size() - 4000; i < shard.size(); ++i) shard[i] = static_cast<char>(shard[i] ^ (i % 4 == 0));
    test::write_file(dir / "model/model.safetensors", shard);
    const std::vector<float> changed = logits(dir / "model", options, &mapped);
    EXPECT_FALSE(mapped) << quant;
    options.packed_cache.clear();
    EXPECT_EQ(changed, logits(dir / "model", options, &mapped));
    EXPECT_TRUE(notes.empty()) << notes.front();
  }
}

TEST(ContentHash, SeesEveryBitAndTheLength) {
  const std::vector<std::byte> bytes = random_bytes(200, 3);
  const ContentHash whole = content_hash(bytes);
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::vector<std::byte> changed = bytes;
    changed[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    const ContentHash hash = content_hash(changed);
    ASSERT_NE(hash.low, whole.low) << bit;
    ASSERT_NE(hash.high, whole.high) << bit;
  }
  const std::vector<std::byte> zeros(130);
  EXPECT_NE(content_hash(std::span(zeros).first(128)), content_hash(zeros));
  EXPECT_NE(content_hash(std::span(zeros).first(0)), content_hash(std::span(zeros).first(1)));
  EXPECT_EQ(content_hash("").hex().size(), 32u);
}

}  // namespace
}  // namespace nibble::models
