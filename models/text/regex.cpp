// SPDX-License-Identifier: Apache-2.0
#include "models/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cstdint>

#include "tensor/check.h"

namespace nibble::models {

namespace {

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

constexpr size_t longest_pattern = 1 << 16;

std::string message(int error) {
  PCRE2_UCHAR text[160];
  if (pcre2_get_error_message(error, text, sizeof(text)) < 0) return "PCRE2 error " + std::to_string(error);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Impl {
  Owned<pcre2_code> code;
  bool jit = false;
};

Regex::Regex(std::string_view pattern) {
  NIBBLE_CHECK(pattern.size() <= longest_pattern, "a pattern of ", pattern.size(), " bytes; at most ", longest_pattern);
  const std::string text = translate_pattern(pattern);
  const Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  NIBBLE_CHECK(context, "out of memory");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto impl = std::make_unique<Impl>();
  impl->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C |
                                     PCRE2_ALLOW_EMPTY_CLASS,
                                 &error, &offset, context.get()));
  NIBBLE_CHECK(impl->code, "pattern '", text.substr(0, 200), "': ", message(error), " at ", offset);
  impl->jit = pcre2_jit_compile(impl->code.get(), PCRE2_JIT_COMPLETE) == 0;
  impl_ = std::move(impl);
}

Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

std::string Regex::quoted(std::string_view text) {
  std::string out;
  for (char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    const bool plain = byte >= 0x80 || (byte >= '0' && byte <= '9') || ((byte | 32) >= 'a' && (byte | 32) <= 'z') ||
                       byte == '_' || byte < 0x20 || byte == ' ';
    if (!plain) out += '\\';
    out += c;
  }
  return out;
}

struct RegexScan::Impl {
  Owned<pcre2_match_context> context{pcre2_match_context_create(nullptr)};
  Owned<pcre2_match_data> data{pcre2_match_data_create(1, nullptr)};
  Owned<pcre2_jit_stack> stack;
};

RegexScan::RegexScan() : impl_(std::make_unique<Impl>()) {
  NIBBLE_CHECK(impl_->context && impl_->data, "out of memory");
  pcre2_set_heap_limit(impl_->context.get(), 256 << 10);  // in KiB
}
RegexScan::~RegexScan() = default;

bool RegexScan::find(const Regex& regex, std::string_view text, size_t from, Match& match) {
  pcre2_match_context* context = impl_->context.get();
  // Honest patterns look at a character of a run a few times; whatever needs more is stopped.
  const size_t steps = 10'000'000 + 16 * text.size();
  pcre2_set_match_limit(context, static_cast<uint32_t>(std::min<size_t>(steps, UINT32_MAX)));
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const pcre2_code* code = regex.impl_->code.get();
  pcre2_match_data* data = impl_->data.get();
  const auto with_jit = [&] {
    return pcre2_jit_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, data, context);
  };
  int found = PCRE2_ERROR_JIT_STACKLIMIT;
  if (regex.impl_->jit) {
    found = with_jit();
    if (found == PCRE2_ERROR_JIT_STACKLIMIT && !impl_->stack) {
      impl_->stack.reset(pcre2_jit_stack_create(64 << 10, 64 << 20, nullptr));
      if (impl_->stack) pcre2_jit_stack_assign(context, nullptr, impl_->stack.get());
      found = with_jit();
    }
  }
  if (found == PCRE2_ERROR_JIT_STACKLIMIT)
    found = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, context);
  if (found == PCRE2_ERROR_NOMATCH) return false;
  NIBBLE_CHECK(found >= 0, "a pattern of the tokenizer on a text of ", text.size(), " bytes: ", message(found));
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data);
  match = {range[0], range[1]};
  NIBBLE_CHECK(match.begin <= match.end && match.begin >= from, "a pattern of the tokenizer sets its match by \\K");
  return true;
}

}  // namespace nibble::models
