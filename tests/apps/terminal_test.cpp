// SPDX-License-Identifier: Apache-2.0
#include "apps/terminal.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tensor/buffer.h"
#include "tests/support/gguf_writer.h"

namespace nibble {
namespace {

TEST(Terminal, AFileCutShortWhileItIsReadEndsInAMessage) {
  const test::TempDir dir;
  test::write_file(dir / "a", std::string(1 << 20, 'a'));
  const MappedFile file(dir / "a");
  std::filesystem::resize_file(dir / "a", 100);
  EXPECT_EXIT(
      {
        cli::explain_lost_files();
        const volatile std::byte last = file.bytes().back();
        std::exit(last == std::byte{'a'} ? 0 : 3);
      },
      testing::ExitedWithCode(1), "^error: a file was cut short while it was read");
}

}  // namespace
}  // namespace nibble
