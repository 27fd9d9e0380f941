// SPDX-License-Identifier: Apache-2.0
#include "jit/code_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "jit/generator.h"
#include "tensor/check.h"

namespace nibble::jit {
namespace {

struct Key {
  int32_t value;
};
struct OtherKey {
  int32_t value;
};

struct Args {
  int64_t a = 0;
  int64_t* out = nullptr;
};

// *out = a + `add`, with every callee-saved register and the frame used.
class AddEmitter : public Generator {
 public:
  explicit AddEmitter(int add_value) : Generator(Isa::avx2) {
    prologue(256);
    mov(rbx, arg(rdi, &Args::a));
    add(rbx, add_value);
    for (const Xbyak::Reg64& r : {rbp, r12, r13, r14, r15}) {
      if (r != rbp) xor_(r, r);
    }
    mov(ptr[rsp], rbx);
    vpbroadcastq(ymm0, ptr[rsp]);
    vmovdqa(ptr[rsp + 32], ymm0);
    mov(rax, ptr[rsp + 56]);
    mov(rdx, arg(rdi, &Args::out));
    mov(ptr[rdx], rax);
    epilogue();
  }
};

int64_t call(const Code& code, int64_t a) {
  int64_t out = 0;
  code(Args{a, &out});
  return out;
}

TEST(CodeCache, EmitsOncePerKey) {
  if (!supported(Isa::avx2)) GTEST_SKIP() << "avx2 is not supported";
  CodeCache cache;
  std::atomic<int> emissions = 0;
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int value = 0; value < 16; ++value) {
        const Code& code = cache.get(Key{value}, [&] {
          ++emissions;
          return AddEmitter(value).finish("add");
        });
        if (call(code, 100) != 100 + value) ++wrong;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(emissions, 16);
  EXPECT_EQ(wrong, 0);
}

TEST(CodeCache, TellsKeyTypesApart) {
  CodeCache cache;
  const Code& a = cache.get(Key{1}, [] { return AddEmitter(1).finish("a"); });
  const Code& b = cache.get(OtherKey{1}, [] { return AddEmitter(2).finish("b"); });
  EXPECT_EQ(a.name(), "a");
  EXPECT_EQ(b.name(), "b");
}

TEST(CodeCache, RethrowsAStoredError) {
  CodeCache cache;
  std::atomic<int> emissions = 0;
  std::atomic<int> errors = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      try {
        cache.get(Key{1}, [&]() -> Code {
          ++emissions;
          fail("no such kernel");
        });
      } catch (const Error& e) {
        if (std::string(e.what()) == "no such kernel") ++errors;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(emissions, 1);
  EXPECT_EQ(errors, 8);
  EXPECT_NO_THROW(cache.get(Key{2}, [] { return AddEmitter(2).finish("add"); }));
}

TEST(Generator, NamesTheCodeInErrors) {
  struct Bad : Generator {
    Bad() : Generator(Isa::avx2) { jmp("nowhere"); }
  };
  try {
    Bad().finish("bad_kernel");
    FAIL() << "an undefined label must be reported";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("bad_kernel"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace nibble::jit
