// SPDX-License-Identifier: Apache-2.0
// Dispatch: parses the command line, runs one subcommand, turns errors into one line and an exit code.
#include "apps/cli.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "apps/command.h"
#include "apps/flags.h"
#include "apps/terminal.h"
#include "jit/jit.h"
#include "tensor/onednn/onednn.h"
#include "tensor/version.h"

namespace nibble::cli {

namespace {

constexpr Command commands[] = {
    {"run", "Complete a prompt, once", setup_run},
    {"chat", "Talk with a model over several turns", setup_chat},
    {"inspect", "Show what a model file holds and what memory it needs", setup_inspect},
    {"tokenize", "Turn text into token ids", setup_tokenize},
    {"eval", "Run given tokens and save the logits", setup_eval},
    {"perplexity", "Measure the perplexity of a text", setup_perplexity},
    {"bench", "Measure the speed of prompts and generation", setup_bench},
    {"quantize", "Write a model file in fewer bits", setup_quantize},
    {"imatrix", "Measure on a text how much each input of a model matters", setup_imatrix},
    {"cache", "List or clear the packed weights kept by --packed-cache", setup_cache},
    {"kernels", "List, emit and disassemble the generated kernels", setup_kernels},
};

int print_error(const std::string& text) {
  std::string line = text;
  std::replace(line.begin(), line.end(), '\n', ' ');
  std::fflush(stdout);
  std::fprintf(stderr, "error: %s\n", printable(line, 4000).c_str());  // it may quote a file
  return 1;
}

/// Parses and runs. `act` is asked after a successful parse.
int run_app(CLI::App& app, int argc, char** argv, const Action& act) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::ParseError& error) {
    const auto parsed = app.get_subcommands();
    print_error(std::string(error.what()) + " (see: " + app.get_name() +
                (parsed.empty() ? "" : " " + parsed.front()->get_name()) + " --help)");
    return 2;
  }
  try {
    explain_lost_files();
    jit::register_kernels();
    register_onednn_kernels();
    const int code = act();
    const bool written = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
    return written || code != 0 ? code : print_error("cannot write to standard output");
  } catch (const std::bad_alloc&) {
    return print_error("out of memory");
  } catch (const std::exception& error) {
    return print_error(error.what());
  } catch (...) {  // of a plugin
    return print_error("something was thrown that is no std::exception");
  }
}

void set_style(CLI::App& app) {
  app.get_formatter()->column_width(34);
  app.get_formatter()->label("REQUIRED", "(required)");
  app.get_formatter()->label("OPTIONS", "flags");
  app.get_formatter()->label("SUBCOMMAND", "command");
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App app("Runs language models on x86 CPUs.", "nibble");
  set_style(app);
  bool list = false, markdown = false, version = false;
  std::vector<std::string> plugins;
  CLI::Option* listed = app.add_flag("--list", list, "The architectures that can be run");
  app.add_flag("--markdown", markdown, "--list as README has it")->needs(listed);
  add_plugin_flag(app, plugins);
  app.add_flag("--version", version, "The version");
  app.require_subcommand(0, 1);
  app.footer("Example:\n  nibble run -m model.gguf -p \"Once upon a time\"\n\nnibble <command> --help says more.");
  std::vector<std::pair<CLI::App*, Action>> actions;
  for (const Command& command : commands) {
    CLI::App* sub = app.add_subcommand(command.name, command.summary);
    actions.emplace_back(sub, command.setup(*sub));
  }
  return run_app(app, argc, argv, [&] {
    load_plugins(plugins);
    for (const auto& [sub, action] : actions)
      if (sub->parsed()) return action();
    if (list) return print_list(markdown);
    if (version) {
      std::printf("nibble %s\n", NIBBLE_VERSION);
      return 0;
    }
    std::fputs(app.help().c_str(), stdout);
    return 0;
  });
}

int run_demo(const char* arch, int argc, char** argv) {
  const std::string name = std::string("nibble-") + arch;
  CLI::App app(std::string("Runs models of the ") + arch + " architecture on x86 CPUs.", name);
  set_style(app);
  const Action action = setup_demo(app, arch);
  return run_app(app, argc, argv, action);
}

}  // namespace nibble::cli
