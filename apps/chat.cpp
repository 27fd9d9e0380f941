// SPDX-License-Identifier: Apache-2.0
// nibble chat: turns on standard input, answers on standard output.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cstdio>
#include <iostream>
#include <memory>

#include <unistd.h>

#include "apps/command.h"
#include "apps/flags.h"
#include "apps/terminal.h"
#include "tensor/check.h"

namespace nibble::cli {

namespace {

struct ChatCommandFlags {
  ModelFlags model;
  GenerateFlags generate;
  ChatFlags chat;
  bool timings = false;
};

class Conversation {
 public:
  Conversation(const ChatCommandFlags& flags, models::Engine& engine)
      : flags_(flags), engine_(engine), session_(engine), chat_(chat_template(engine.model(), flags.chat)),
        options_(generate_options(flags.generate)) {
    stop_at_turn_end(*engine.model().tokenizer, chat_, options_);
    reset();
  }

  void reset() {
    messages_.clear();
    if (!flags_.chat.system.empty()) messages_.push_back({"system", flags_.chat.system});
  }

  /// Answers on stdout. A turn that does not fit is taken back.
  void answer(const std::string& text) {
    messages_.push_back({"user", text});
    const std::vector<int32_t> prompt = models::encode_chat(*engine_.model().tokenizer, chat_, {.messages = messages_});
    if (static_cast<int64_t>(prompt.size()) >= engine_.context()) {
      messages_.pop_back();
      std::fprintf(stderr,
                   "note: the conversation has %zu tokens, the context %lld: /reset starts anew, -c makes room\n",
                   prompt.size(), static_cast<long long>(engine_.context()));
      return;
    }
    Interrupt interrupt;
    const models::GenerateResult result = session_.generate(prompt, options_, put, interrupt.flag());
    put("\n");
    messages_.push_back({"assistant", result.text});
    if (result.reason == models::StopReason::context_full)
      std::fprintf(stderr, "note: the context of %lld tokens is full: /reset starts anew, -c makes room\n",
                   static_cast<long long>(engine_.context()));
    if (flags_.timings) print_speed(result, engine_.context());
  }

 private:
  const ChatCommandFlags& flags_;
  models::Engine& engine_;
  models::Session session_;
  models::ChatTemplate chat_;
  models::GenerateOptions options_;
  std::vector<models::ChatMessage> messages_;
};

int run_chat(const ChatCommandFlags& flags) {
  const auto model = load_model(flags.model);
  const auto engine = make_engine(model, flags.model);
  Conversation conversation(flags, *engine);
  print_start(*engine);
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal) std::fputs("/reset forgets the conversation, /exit leaves, Ctrl-C stops an answer\n", stderr);
  std::string line;
  while (true) {
    if (terminal) std::fputs("\n> ", stderr);
    if (!std::getline(std::cin, line) || line == "/exit" || line == "/quit") return 0;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    if (line == "/reset") {
      conversation.reset();
      std::fputs("note: the conversation starts anew\n", stderr);
    } else if (line[0] == '/') {
      std::fprintf(stderr, "note: unknown command %s: /reset or /exit\n", printable(line).c_str());
    } else {
      conversation.answer(line);
    }
  }
}

}  // namespace

Action setup_chat(CLI::App& app) {
  auto flags = std::make_shared<ChatCommandFlags>();
  add_model_flag(app, flags->model);
  add_generate_flags(app, flags->generate);
  add_chat_flags(app, flags->chat);
  app.add_flag("--timings", flags->timings, "Speeds after each answer")->group("Chat");
  add_engine_flags(app, flags->model);
  app.footer(
      "One line is one turn; /reset forgets the conversation, /exit or the end of the input leaves.\n\nExample:\n"
      "  nibble chat -m model.gguf --system \"Answer in one sentence.\"");
  return [flags] { return run_chat(*flags); };
}

}  // namespace nibble::cli
