// SPDX-License-Identifier: Apache-2.0
// nibble run: one prompt, one streamed answer.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cstdio>
#include <memory>

#include "apps/command.h"
#include "apps/flags.h"
#include "apps/terminal.h"
#include "tensor/check.h"

namespace nibble::cli {

namespace {

struct RunFlags {
  ModelFlags model;
  GenerateFlags generate;
  PromptFlags prompt;
  ChatFlags chat;
  bool as_chat = false, no_bos = false;
};

int run_prompt(const RunFlags& flags) {
  models::GenerateOptions options = generate_options(flags.generate);
  const std::string text = read_prompt(flags.prompt);
  const auto model = load_model(flags.model);
  std::vector<int32_t> prompt;
  if (flags.as_chat) {
    const models::ChatTemplate chat = chat_template(*model, flags.chat);
    std::vector<models::ChatMessage> messages;
    if (!flags.chat.system.empty()) messages.push_back({"system", flags.chat.system});
    messages.push_back({"user", text});
    prompt = models::encode_chat(*model->tokenizer, chat, {.messages = std::move(messages)});
    stop_at_turn_end(*model->tokenizer, chat, options);
  } else {
    prompt = model->tokenizer->encode(text, {.add_bos = !flags.no_bos, .parse_special = true});
  }
  NIBBLE_CHECK(!prompt.empty(), "the prompt is empty");
  const auto engine = make_engine(model, flags.model);
  print_start(*engine);
  NIBBLE_CHECK(static_cast<int64_t>(prompt.size()) <= engine->context(), "the prompt has ", prompt.size(),
               " tokens, the context only ", engine->context(), "; -c makes it larger");

  models::Session session(*engine);
  Interrupt interrupt;
  char last = '\n';
  const models::GenerateResult result = session.generate(prompt, options, [&](std::string_view piece) {
    if (!piece.empty()) last = piece.back();
    return put(piece);
  }, interrupt.flag());
  if (last != '\n') put("\n");
  print_speed(result, engine->context());
  return result.reason == models::StopReason::cancelled && interrupt.flag()->load() ? interrupted_exit_code : 0;
}

Action setup(CLI::App& app, const std::string& arch) {
  auto flags = std::make_shared<RunFlags>();
  flags->model.arch = arch;
  add_model_flag(app, flags->model);
  add_prompt_flags(app, flags->prompt, "Text to continue (default: standard input)");
  app.add_flag("--no-bos", flags->no_bos, "Put no begin token in front, whatever the file says");
  add_generate_flags(app, flags->generate);
  CLI::Option* chat =
      app.add_flag("--chat", flags->as_chat, "Ask the prompt as a question, in the model's chat template");
  chat->group("Chat");
  add_chat_flags(app, flags->chat);
  app.get_option("--system")->needs(chat);
  app.get_option("--chat-template")->needs(chat);
  add_engine_flags(app, flags->model);
  app.footer("The answer goes to standard output, everything else to standard error. Ctrl-C stops.\n\nExample:\n  " +
             (arch.empty() ? std::string("nibble run") : "nibble-" + arch) +
             " -m model.gguf -p \"Once upon a time\" -n 64 --temp 0");
  return [flags] { return run_prompt(*flags); };
}

}  // namespace

Action setup_run(CLI::App& app) { return setup(app, ""); }
Action setup_demo(CLI::App& app, const std::string& arch) { return setup(app, arch); }

}  // namespace nibble::cli
