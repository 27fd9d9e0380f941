// SPDX-License-Identifier: Apache-2.0
#include "apps/flags.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <cerrno>
#include <random>
#include <utility>

#include <unistd.h>

#include "apps/terminal.h"
#include "models/io/packed_cache.h"
#include "models/plugin.h"
#include "tensor/check.h"
#include "tensor/cpu.h"

namespace nibble::cli {

CLI::Validator between(double low, double high) {
  return CLI::Validator(
      [low, high](std::string& text) -> std::string {
        char* end = nullptr;
        const double value = std::strtod(text.c_str(), &end);
        if (end != text.c_str() && *end == '\0' && value >= low && value <= high) return {};
        const auto shown = [](double bound) {
          const bool whole = bound == std::floor(bound) && std::abs(bound) < 0x1p63;
          return whole ? message(static_cast<int64_t>(bound)) : message(bound);
        };
        return message("expected a number between ", shown(low), " and ", shown(high), ", found '", text, "'");
      },
      "");
}

void add_model_flag(CLI::App& app, ModelFlags& flags) {
  app.add_option("-m,--model", flags.model, "GGUF file (or the first shard of a split one), or a Hugging Face folder")
      ->type_name("MODEL")
      ->required();
  add_plugin_flag(app, flags.plugins);
}

void add_plugin_flag(CLI::App& app, std::vector<std::string>& plugins) {
  app.add_option("--arch-plugin", plugins,
                 "Shared object that adds an architecture (docs/add-a-model.md); may be given several times")
      ->type_name("FILE.so")
      ->allow_extra_args(false);
}

void load_plugins(const std::vector<std::string>& plugins) {
  for (const std::string& plugin : plugins) models::load_arch_plugin(plugin);
}

void add_engine_flags(CLI::App& app, ModelFlags& flags) {
  std::string isas;
  for (Isa isa : all_isas()) isas += (isas.empty() ? "" : ", ") + std::string(name(isa));
  app.add_option("-t,--threads", flags.threads, "Threads (default: the physical cores this process may use)")
      ->type_name("N")->check(between(1, 1024))->group("Machine");
  app.add_option("-c,--context,--ctx-size", flags.context,
                 "Positions to make room for (default: the model's, at most 4096)")
      ->type_name("N")
      ->check(between(1, 1 << 24))
      ->group("Machine");
  app.add_option("--cache-type", flags.cache_type,
                 "What keys and values are kept in: f32, f16, bf16 or q8_0 (8 bits with a scale per position and head)")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0"}))
      ->capture_default_str()
      ->group("Machine");
  app.add_option(
         "--packed-cache", flags.packed_cache,
         "Keep packed weights on disk and map them at the next start: on (~/.cache/nibble/packed), off, or a folder; "
         "`nibble cache` lists them")
      ->type_name("on|off|DIR")
      ->envname("NIBBLE_PACKED_CACHE")
      ->group("Machine");
  app.add_option(
         "--quant", flags.quant,
         "Quantise matrices of floats while loading: q4, q8, q2, q3, q5, q6, nf4, or any weight format by its name")
      ->type_name("FORMAT")
      ->group("Machine")
      ->check([](const std::string& text) -> std::string {
        try {
          models::QuantizeRule rule(text);
          return {};
        } catch (const Error& error) {
          return error.what();
        }
      });
  app.add_option("--set", flags.set,
                 "A number of the model that its file leaves out or has wrong, by its key: attention.scale=0.0833")
      ->type_name("KEY=VALUE")
      ->group("Machine")
      ->allow_extra_args(false);
  app.add_option("--max-isa", flags.max_isa, "Best instruction set to use: " + isas)->type_name("ISA")->group("Machine")
      ->check([](const std::string& text) -> std::string {
        try {
          parse_isa(text);
          return {};
        } catch (const Error& error) {
          return error.what();
        }
      });
}

namespace {
Isa engine_isa(const ModelFlags& flags) {
  if (flags.max_isa.empty()) return max_isa();
  const Isa isa = parse_isa(flags.max_isa);
  NIBBLE_CHECK(isa <= max_isa(), "--max-isa ", flags.max_isa, ": the best that can be used here is ", name(max_isa()));
  return isa;
}
}  // namespace

std::shared_ptr<const models::Model> load_model(const ModelFlags& flags, bool need_tokenizer) {
  engine_isa(flags);  // a wrong one is refused before a long wait
  load_plugins(flags.plugins);
  LoadProgress progress(flags.model);
  models::LoadOptions options;
  options.threads = flags.threads;
  options.need_tokenizer = need_tokenizer;
  options.arch = flags.arch;
  options.quant = flags.quant;
  options.set = flags.set;
  if (flags.packed_cache == "on") options.packed_cache = models::default_packed_cache();
  else if (flags.packed_cache != "off") options.packed_cache = flags.packed_cache;
  options.note = [&](const std::string& text) { std::fprintf(stderr, "note: %s\n", printable(text).c_str()); };
  options.progress = [&](uint64_t done, uint64_t total) { progress.show(done, total); };
  return models::Model::load(flags.model, options);
}

std::unique_ptr<models::Engine> make_engine(std::shared_ptr<const models::Model> model, const ModelFlags& flags) {
  models::EngineOptions options;
  options.threads = flags.threads;
  options.context = flags.context;
  options.max_isa = engine_isa(flags);
  options.cache = models::parse_cache_type(flags.cache_type);
  return std::make_unique<models::Engine>(std::move(model), options);
}

void print_start(models::Engine& engine) {
  const models::Model& model = engine.model();
  std::fprintf(stderr, "model:   %s (%s, %s, %s parameters, %s)\n", printable(model.name).c_str(),
               std::string(model.arch->name).c_str(), model.format.c_str(), human_count(model.parameters).c_str(),
               human_bytes(model.file_bytes).c_str());
  std::fprintf(stderr, "kernels: %s\n", engine.kernels_line().c_str());
  if (const DType type = engine.cache().type(); type != DType::f16)
    std::fprintf(stderr, "cache:   %s\n", std::string(models::cache_type_name(type)).c_str());
  if (model.format == "f32" || model.format == "f16" || model.format == "bf16")
    std::fprintf(stderr, "note: weights of %s; --quant q4 (or q8) makes the model smaller and faster\n",
                 model.format.c_str());
  if (engine.context() > model.config.context)
    std::fprintf(stderr, "note: the model was made for %d positions, fewer than -c %lld\n", model.config.context,
                 static_cast<long long>(engine.context()));
  const char* explain = std::getenv("NIBBLE_EXPLAIN");
  if (explain != nullptr && std::strcmp(explain, "1") == 0) std::fputs(engine.plan(1, 1).explain().c_str(), stderr);
}

void add_generate_flags(CLI::App& app, GenerateFlags& flags) {
  models::GenerateOptions& o = flags.options;
  models::SamplerOptions& s = o.sampler;
  app.add_option("-n,--n-predict,--predict", o.max_tokens,
                 "Tokens to generate at most; -1: until the model ends or the context is full")
      ->type_name("N")
      ->check(between(-1, 1 << 30))
      ->capture_default_str()
      ->group("Generation");
  app.add_option("--stop", o.stop, "Text that ends the answer (may be given several times)")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group("Generation")
      ->check(
          [](const std::string& text) { return std::string(text.empty() ? "expected a text that is not empty" : ""); });
  app.add_flag("--ignore-eos", o.ignore_eos, "Go on after the model's end token")->group("Generation");
  app.add_option(
         "--speculate", flags.speculate,
         message(
             "Check drafts of tokens, copied from what followed the same words before, in one batch (the text stays "
             "the same): auto (where it pays), off, or 1 to ",
             models::Speculator::max_draft, " tokens"))
      ->type_name("auto|off|N")
      ->capture_default_str()
      ->group("Generation")
      ->check([](const std::string& text) -> std::string {
        std::string number = text;
        if (text == "auto" || text == "off") return {};
        const std::string wrong = between(1, models::Speculator::max_draft)(number);
        return wrong.empty() ? wrong : "expected auto, off or a number: " + wrong;
      });

  const auto number = [&](const char* names, auto& value, double low, double high, const char* what) {
    app.add_option(names, value, what)
        ->type_name("N")
        ->check(between(low, high))
        ->capture_default_str()
        ->group("Sampling");
  };
  number("--temp,--temperature", s.temperature, 0, 100, "Temperature; 0: always the likeliest token");
  number("--top-k", s.top_k, 0, 1 << 30, "Keep the k likeliest tokens; 0: all");
  number("--top-p", s.top_p, 0, 1, "Keep the likeliest tokens up to this probability; 1: all");
  number("--min-p", s.min_p, 0, 1, "Drop tokens below this share of the likeliest one's probability; 0: none");
  number("--typical,--typical-p", s.typical_p, 0, 1, "Locally typical sampling; 1: off");
  number("--repeat-last-n", s.repeat_last_n, -1, 1 << 30, "Tokens the penalties look back; 0: off, -1: all");
  number("--repeat-penalty", s.repeat_penalty, 0.01, 100, "Penalty for tokens seen before; 1: off");
  number("--frequency-penalty", s.frequency_penalty, -100, 100, "Penalty per earlier occurrence; 0: off");
  number("--presence-penalty", s.presence_penalty, -100, 100, "Penalty for having occurred; 0: off");
  app.add_option("-s,--seed", flags.seed, "Seed; the same seed gives the same text; -1: a random one")
      ->type_name("N")->check(between(-1, 0x1p62))->capture_default_str()->group("Sampling");
}

models::GenerateOptions generate_options(const GenerateFlags& flags) {
  models::GenerateOptions options = flags.options;
  options.sampler.seed = flags.seed >= 0 ? static_cast<uint64_t>(flags.seed) : std::random_device{}();
  models::check(options.sampler);
  if (flags.speculate == "auto") options.speculate = models::Speculator::automatic;
  else if (flags.speculate == "off") options.speculate = models::Speculator::off;
  else options.speculate = std::stoi(flags.speculate);
  return options;
}

void add_prompt_flags(CLI::App& app, PromptFlags& flags, const char* what) {
  CLI::Option* text = app.add_option("-p,--prompt", flags.text, what)->type_name("TEXT");
  flags.text_option = text;
  flags.file_option =
      app.add_option("-f,--file", flags.file, "The same from a file, without its last line feed; - is standard input")
          ->type_name("FILE")->excludes(text);
}

std::string read_text(const std::string& path) {
  std::FILE* in = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
  NIBBLE_CHECK(in != nullptr, "cannot open ", path, ": ", std::strerror(errno));
  std::string text;
  char block[65536];
  errno = 0;
  for (size_t got = 0; (got = std::fread(block, 1, sizeof(block), in)) > 0;) text.append(block, got);
  const bool failed = std::ferror(in) != 0;
  const int reason = errno;
  if (in != stdin) std::fclose(in);
  NIBBLE_CHECK(!failed, "cannot read ", path, ": ", std::strerror(reason));
  return text;
}

std::string read_prompt(const PromptFlags& flags) {
  if (flags.text_option->count() > 0) return flags.text;
  const bool from_file = flags.file_option->count() > 0;
  NIBBLE_CHECK(from_file || isatty(STDIN_FILENO) == 0, "no prompt: give one with -p, -f or on standard input");
  std::string text = read_text(from_file ? flags.file : "-");
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

void add_chat_flags(CLI::App& app, ChatFlags& flags) {
  app.add_option("--system", flags.system, "System message")->type_name("TEXT")->group("Chat");
  std::string names;
  for (std::string_view name : models::chat_template_names()) names.append(names.empty() ? "" : ", ").append(name);
  app.add_option("--chat-template,--template", flags.chat_template,
                 "Use this template instead of the model's: " + names + ", or a file with a Jinja template")
      ->type_name("NAME|FILE")->group("Chat")
      ->check([](const std::string& text) -> std::string {
        const auto known = models::chat_template_names();
        if (std::find(known.begin(), known.end(), text) != known.end() || access(text.c_str(), R_OK) == 0) return {};
        try {
          models::ChatTemplate::named(text);
        } catch (const Error& error) {
          return error.what();
        }
        return {};
      });
}

models::ChatTemplate chat_template(const models::Model& model, const ChatFlags& flags) {
  if (!flags.chat_template.empty()) {
    const auto known = models::chat_template_names();
    if (std::find(known.begin(), known.end(), flags.chat_template) != known.end())
      return models::ChatTemplate::named(flags.chat_template);
    return models::ChatTemplate::parse(read_text(flags.chat_template));
  }
  try {
    if (!model.chat_template.empty()) return models::ChatTemplate::parse(model.chat_template);
    return models::ChatTemplate::guess(*model.tokenizer);
  } catch (const Error& error) {
    fail(model.path, ": ", error.what(), " (--chat-template takes another)");
  }
}

void stop_at_turn_end(const models::Tokenizer& tokenizer, const models::ChatTemplate& chat,
                      models::GenerateOptions& options) {
  const std::string end = chat.answer_end(tokenizer);
  if (end.empty()) return;
  const int32_t token = tokenizer.find(end);
  if (token >= 0 && tokenizer.is_control(token))
    options.end_tokens.push_back(token);
  else
    options.stop.push_back(end);
}

}  // namespace nibble::cli
