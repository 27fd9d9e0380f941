// SPDX-License-Identifier: Apache-2.0
#include "apps/terminal.h"

#include <cstdio>
#include <utility>

#include <unistd.h>

namespace nibble::cli {

namespace {
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set from a signal handler");
void on_interrupt(int) { interrupted.store(true, std::memory_order_relaxed); }

void on_lost_page(int) {
  constexpr std::string_view text = "error: a file was cut short while it was read, or its disk failed\n";
  const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
  _exit(written < 0 ? 2 : 1);
}
}  // namespace

Interrupt::Interrupt() {
  interrupted.store(false);
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  // Resets itself, so that a second Ctrl-C always works; calls go on, so that output is not cut short.
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigaction(SIGINT, &action, &previous_);
}
Interrupt::~Interrupt() { sigaction(SIGINT, &previous_, nullptr); }
const std::atomic<bool>* Interrupt::flag() const { return &interrupted; }

void explain_lost_files() {
  struct sigaction action = {};
  action.sa_handler = on_lost_page;
  sigaction(SIGBUS, &action, nullptr);
}

LoadProgress::LoadProgress(std::string path) : path_(std::move(path)), begin_(std::chrono::steady_clock::now()) {}

LoadProgress::~LoadProgress() {
  if (shown_ && isatty(STDERR_FILENO) != 0) std::fputs("\r\033[K", stderr);
}

void LoadProgress::show(uint64_t done, uint64_t total) {
  if (std::chrono::steady_clock::now() - begin_ < std::chrono::seconds(1)) return;
  if (isatty(STDERR_FILENO) != 0) {
    std::fprintf(stderr, "\rloading %s: %3.0f %%", path_.c_str(),
                 total == 0 ? 100.0 : 100.0 * static_cast<double>(done) / static_cast<double>(total));
    std::fflush(stderr);
  } else if (!shown_) {
    std::fprintf(stderr, "loading %s (%s)\n", path_.c_str(), human_bytes(total).c_str());
  }
  shown_ = true;
}

bool put(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

std::string human_bytes(uint64_t bytes) {
  char text[32];
  const auto value = static_cast<double>(bytes);
  if (value >= 0x1p30) std::snprintf(text, sizeof(text), "%.2f GiB", value / 0x1p30);
  else if (value >= 0x1p20) std::snprintf(text, sizeof(text), "%.2f MiB", value / 0x1p20);
  else std::snprintf(text, sizeof(text), "%.2f KiB", value / 0x1p10);
  return text;
}

std::string human_count(uint64_t count) {
  char text[32];
  const auto value = static_cast<double>(count);
  if (value >= 1e9) std::snprintf(text, sizeof(text), "%.2f B", value / 1e9);
  else if (value >= 1e6) std::snprintf(text, sizeof(text), "%.2f M", value / 1e6);
  else std::snprintf(text, sizeof(text), "%.2f K", value / 1e3);
  return text;
}

void print_speed(const models::GenerateResult& r, int64_t context) {
  const auto speed = [](int tokens, double seconds) { return seconds > 0 ? tokens / seconds : 0.0; };
  const char* reason = "";
  switch (r.reason) {
    case models::StopReason::end_token: reason = "the model ended"; break;
    case models::StopReason::stop_string: reason = "a stop text came"; break;
    case models::StopReason::max_tokens: reason = "the token limit was reached"; break;
    case models::StopReason::context_full: reason = "the context is full"; break;
    case models::StopReason::cancelled: reason = "interrupted"; break;
  }
  const int run = r.prompt_tokens - r.reused_tokens;
  std::fprintf(stderr, "prompt:  %d tokens, %.2f s, %.1f tokens/s\n", run, r.prompt_seconds,
               speed(run, r.prompt_seconds));
  std::fprintf(stderr, "answer:  %d tokens, %.2f s, %.1f tokens/s (%s)\n", r.generated_tokens, r.generate_seconds,
               speed(r.generated_tokens, r.generate_seconds), reason);
  if (r.accepted_tokens > 0)
    std::fprintf(stderr, "drafts:  %d of %d guessed tokens came true (--speculate off: no guesses)\n",
                 r.accepted_tokens, r.drafted_tokens);
  if (r.reason == models::StopReason::context_full)
    std::fprintf(stderr, "note: the context of %lld tokens is full; -c makes it larger\n",
                 static_cast<long long>(context));
}

}  // namespace nibble::cli
