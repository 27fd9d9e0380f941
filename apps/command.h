// SPDX-License-Identifier: Apache-2.0
// The subcommands of `nibble`, one file each. Internal to apps/.
#pragma once

#include <functional>
#include <span>
#include <string>

namespace CLI {
class App;
}

namespace nibble::cli {

/// Runs a subcommand after its flags are parsed; returns the exit code or throws.
using Action = std::function<int()>;

struct Command {
  const char* name;
  const char* summary;
  Action (*setup)(CLI::App& app);  ///< declares the flags
};

Action setup_run(CLI::App& app);
Action setup_chat(CLI::App& app);
Action setup_inspect(CLI::App& app);
Action setup_tokenize(CLI::App& app);
Action setup_eval(CLI::App& app);
Action setup_perplexity(CLI::App& app);
Action setup_bench(CLI::App& app);
Action setup_quantize(CLI::App& app);
Action setup_imatrix(CLI::App& app);
Action setup_cache(CLI::App& app);
Action setup_kernels(CLI::App& app);
/// The architectures that can be run, as a table; `markdown`: for README.
int print_list(bool markdown);
/// `run` for files of one architecture.
Action setup_demo(CLI::App& app, const std::string& arch);

}  // namespace nibble::cli
