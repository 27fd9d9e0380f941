// SPDX-License-Identifier: Apache-2.0
#include "models/generate.h"

#include <algorithm>
#include <array>
#include <chrono>

#include "tensor/check.h"

namespace nibble::models {

namespace {

class Clock {
 public:
  /// Seconds since the last call.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

/// Bytes of tokens in, whole characters out; holds back what may become a stop string.
class Output {
 public:
  Output(const std::vector<std::string>& stop, const std::function<bool(std::string_view)>& on_text)
      : stop_(stop), on_text_(on_text) {}

  enum class State { open, stopped, cancelled };

  State push(std::string_view bytes) {
    held_ += characters_.push(bytes);
    return release(false);
  }
  State finish() {
    held_ += characters_.flush();
    return release(true);
  }
  std::string text;

 private:
  State release(bool all) {
    size_t found = std::string::npos;
    for (const std::string& stop : stop_)
      if (!stop.empty()) found = std::min(found, held_.find(stop));
    if (found != std::string::npos) {
      held_.resize(found);
      return emit(found) ? State::stopped : State::cancelled;
    }
    return emit(all ? held_.size() : held_.size() - possible_stop()) ? State::open : State::cancelled;
  }
  /// Bytes at the end of held_ that begin a stop string.
  size_t possible_stop() const {
    size_t longest = 0;
    for (const std::string& stop : stop_)
      for (size_t n = std::min(stop.size(), held_.size()); n > longest; --n)
        if (held_.ends_with(std::string_view(stop).substr(0, n))) longest = n;
    return longest;
  }
  bool emit(size_t bytes) {
    const std::string now = held_.substr(0, bytes);
    held_.erase(0, bytes);
    text += now;
    return now.empty() || !on_text_ || on_text_(now);
  }

  const std::vector<std::string>& stop_;
  const std::function<bool(std::string_view)>& on_text_;
  Utf8Stream characters_;
  std::string held_;
};

bool cancelled(const std::atomic<bool>* cancel) { return cancel != nullptr && cancel->load(std::memory_order_relaxed); }

}  // namespace

Session::Session(Engine& engine, int sequence) : engine_(engine), sequence_(sequence) {
  engine_.truncate(sequence_, 0);
}

std::span<const float> Session::run_prompt(std::span<const int32_t> prompt, GenerateResult& result,
                                           const std::atomic<bool>* cancel) {
  const auto [token, kept] = std::mismatch(prompt.begin(), prompt.end(), tokens_.begin(), tokens_.end());
  // a prefix is the same one only if the token that ends it is among the shared ones
  const auto prefix = static_cast<size_t>(find_prefix(engine_.model().config.prefix, prompt).tokens);
  const auto same = static_cast<size_t>(kept - tokens_.begin());
  // the last token runs again even if the cache has it: its logits are needed
  const size_t shared = prefix > 0 && same <= prefix ? 0 : std::min(same, prompt.size() - 1);
  engine_.truncate(sequence_, static_cast<int64_t>(shared));
  tokens_.resize(shared);
  result.reused_tokens = static_cast<int>(shared);
  std::span<const float> logits;
  std::vector<Row> rows;
  while (tokens_.size() < prompt.size()) {
    result.prompt_tokens = static_cast<int>(tokens_.size());
    if (cancelled(cancel)) return {};
    // with a prefix up to the token that ends it, which must be in the same call
    const size_t least = tokens_.empty() && prefix > 0 ? prefix + 1 : 0;
    const size_t end = std::min(prompt.size(), std::max(least, tokens_.size() + static_cast<size_t>(engine_.chunk())));
    rows.clear();
    for (size_t i = tokens_.size(); i < end; ++i)
      rows.push_back({prompt[i], static_cast<int32_t>(i), sequence_, i + 1 == prompt.size()});
    logits = engine_.run(rows);
    tokens_.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(end));
  }
  result.prompt_tokens = static_cast<int>(prompt.size());
  return logits;
}

std::span<const float> Session::run_step(int32_t token, std::span<const int32_t> draft) {
  std::array<Row, StepCosts::max_rows> rows;
  const auto position = static_cast<int32_t>(tokens_.size());
  const auto count = static_cast<int>(draft.size()) + 1;
  for (int i = 0; i < count; ++i) rows[i] = {i == 0 ? token : draft[i - 1], position + i, sequence_, true};
  engine_.plan(count, count);  // compiled outside the measured time
  Clock clock;
  const std::span<const float> logits = engine_.run(std::span(rows).first(static_cast<size_t>(count)));
  costs_.measured(count, clock.lap());
  tokens_.push_back(token);
  return logits;
}

GenerateResult Session::generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                                 const std::function<bool(std::string_view)>& on_text,
                                 const std::atomic<bool>* cancel) {
  NIBBLE_CHECK(!prompt.empty(), "the prompt has no tokens");
  NIBBLE_CHECK(static_cast<int64_t>(prompt.size()) <= engine_.context(), "the prompt has ", prompt.size(),
               " tokens, the context only ", engine_.context());
  const Tokenizer* tokenizer = engine_.model().tokenizer.get();
  NIBBLE_CHECK(tokenizer != nullptr, "generating text needs a model loaded with its tokenizer");
  Sampler sampler(options.sampler);
  Speculator speculator(options.speculate, costs_);
  const auto accept = [&](int32_t token) {
    sampler.accept(token);
    speculator.accept(token);
  };
  for (int32_t token : prompt) accept(token);
  GenerateResult result;
  Output output(options.stop, on_text);
  Clock clock;
  std::span<const float> logits = run_prompt(prompt, result, cancel);
  result.prompt_seconds = clock.lap();

  const size_t vocab = static_cast<size_t>(engine_.model().config.vocab);
  const auto tokens = static_cast<size_t>(tokenizer->vocab());  // rows of padding behind them are no tokens
  const auto full = [&] { return options.max_tokens >= 0 && result.generated_tokens >= options.max_tokens; };
  // The token after those in the cache, from its row of the logits; it is the last one of the result.
  const auto next = [&](std::span<const float> row) -> std::optional<StopReason> {
    if (cancelled(cancel)) return StopReason::cancelled;
    const int32_t token = sampler.sample(row.first(tokens));
    const bool ends =
        tokenizer->is_end(token) || std::count(options.end_tokens.begin(), options.end_tokens.end(), token) > 0;
    if (ends && !options.ignore_eos) return StopReason::end_token;
    accept(token);
    result.tokens.push_back(token);
    ++result.generated_tokens;
    const Output::State state = output.push(tokenizer->piece(token));
    if (state == Output::State::stopped) return StopReason::stop_string;
    if (state == Output::State::cancelled) return StopReason::cancelled;
    if (full()) return StopReason::max_tokens;
    if (static_cast<int64_t>(tokens_.size()) >= engine_.context()) return StopReason::context_full;
    return std::nullopt;
  };
  std::optional<StopReason> reason;
  if (logits.empty()) reason = StopReason::cancelled;
  else if (full()) reason = StopReason::max_tokens;
  std::span<const int32_t> draft;
  while (!reason) {
    // row i is right as long as the tokens before it were: the draft ends where another token is drawn
    for (size_t i = 0; !(reason = next(logits.subspan(i * vocab, vocab))); ++i) {
      if (i == draft.size() || draft[i] != result.tokens.back()) break;
      tokens_.push_back(draft[i]);
      ++result.accepted_tokens;
    }
    engine_.truncate(sequence_, static_cast<int64_t>(tokens_.size()));
    if (reason) break;
    // as many as can still be asked for, and as the cache has room for after the token itself
    const int64_t wanted = options.max_tokens >= 0 ? options.max_tokens - result.generated_tokens - 1 : INT64_MAX;
    const int64_t room = engine_.context() - static_cast<int64_t>(tokens_.size()) - 1;
    draft = speculator.draft(std::min({wanted, room, int64_t{engine_.chunk()} - 1}));
    result.drafted_tokens += static_cast<int>(draft.size());
    logits = run_step(result.tokens.back(), draft);
  }
  result.reason = *reason;
  if (result.reason != StopReason::stop_string && output.finish() == Output::State::stopped)
    result.reason = StopReason::stop_string;
  result.generate_seconds = clock.lap();
  result.text = std::move(output.text);
  return result;
}

}  // namespace nibble::models
