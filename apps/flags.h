// SPDX-License-Identifier: Apache-2.0
// Flags that several subcommands share, and the model they open. Internal to apps/.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "models/generate.h"
#include "models/text/chat_template.h"

namespace CLI {
class App;
class Option;
class Validator;
}  // namespace CLI

namespace nibble::cli {

/// Accepts numbers in [low, high] only; NaN and trailing letters are refused.
CLI::Validator between(double low, double high);

struct ModelFlags {
  std::string model, max_isa, arch, quant, cache_type = "f16", packed_cache;
  std::vector<std::string> plugins;
  int threads = 0;
  int64_t context = 0;
  std::vector<std::string> set;
};
/// -m and --arch-plugin.
void add_model_flag(CLI::App& app, ModelFlags& flags);
void add_plugin_flag(CLI::App& app, std::vector<std::string>& plugins);
/// models::load_arch_plugin for each; inspect and others that open no Model call it themselves.
void load_plugins(const std::vector<std::string>& plugins);
void add_engine_flags(CLI::App& app, ModelFlags& flags);
/// Loads with progress on stderr.
std::shared_ptr<const models::Model> load_model(const ModelFlags& flags, bool need_tokenizer = true);
std::unique_ptr<models::Engine> make_engine(std::shared_ptr<const models::Model> model, const ModelFlags& flags);
/// One line about the model and one about the kernels, on stderr; with NIBBLE_EXPLAIN=1 also the plan of decoding.
void print_start(models::Engine& engine);

struct GenerateFlags {
  models::GenerateOptions options;
  int64_t seed = -1;
  std::string speculate = "auto";
};
void add_generate_flags(CLI::App& app, GenerateFlags& flags);
/// The options, a seed drawn if none was given.
models::GenerateOptions generate_options(const GenerateFlags& flags);

struct PromptFlags {
  std::string text, file;
  const CLI::Option *text_option = nullptr, *file_option = nullptr;
};
void add_prompt_flags(CLI::App& app, PromptFlags& flags, const char* what);
/// -p, else -f, else standard input; of the last two without the line feed at the end. Throws Error when there is none
/// of them (a terminal is not read).
std::string read_prompt(const PromptFlags& flags);
/// The whole file; "-" is standard input. Throws Error.
std::string read_text(const std::string& path);

struct ChatFlags {
  std::string system, chat_template;
};
void add_chat_flags(CLI::App& app, ChatFlags& flags);
/// The one asked for, else the model's own, else the built-in one that fits its vocabulary. Throws Error.
models::ChatTemplate chat_template(const models::Model& model, const ChatFlags& flags);
/// The token or text behind an answer ends the generation, also where the vocabulary does not call it an end.
void stop_at_turn_end(const models::Tokenizer& tokenizer, const models::ChatTemplate& chat,
                      models::GenerateOptions& options);

}  // namespace nibble::cli
