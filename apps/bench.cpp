// SPDX-License-Identifier: Apache-2.0
// nibble bench: tokens/s of prompts and generation, llama-bench's way, and as a share of what the machine can do.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/bench_table.h"
#include "apps/command.h"
#include "apps/flags.h"
#include "apps/roofline.h"
#include "apps/terminal.h"
#include "jit/peak.h"
#include "tensor/check.h"
#include "tensor/cpu.h"
#include "tensor/profile.h"

namespace nibble::cli {

namespace {

struct BenchFlags {
  ModelFlags model;
  std::vector<int> prompts = {512}, generates = {128}, depths = {0}, threads;
  int repetitions = 5;
  std::string output = "md", trace, roofline_svg;
  bool roofline = false, profile = false, explain = false, no_peak = false;
};

/// Rows of arbitrary tokens at positions [begin, begin + count), the last one with logits.
std::vector<models::Row> rows_at(int begin, int count, int vocab) {
  std::vector<models::Row> rows;
  for (int i = begin; i < begin + count; ++i)
    rows.push_back({static_cast<int32_t>((int64_t{i} * 7919 + 1) % vocab), i, 0, i + 1 == begin + count});
  return rows;
}

/// Seconds of one run of the test, the cache being filled up to `depth`.
double time_once(models::Engine& engine, const BenchRow& row) {
  const int vocab = engine.model().config.vocab;
  engine.truncate(0, row.depth);
  std::vector<std::vector<models::Row>> calls;
  if (row.prompt > 0) calls.push_back(rows_at(row.depth, row.prompt, vocab));
  for (int i = 0; i < row.generate; ++i) calls.push_back(rows_at(row.depth + i, 1, vocab));
  const auto begin = std::chrono::steady_clock::now();
  for (const auto& rows : calls) engine.run(rows);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void measure(models::Engine& engine, BenchRow& row, int repetitions, Profile* profile) {
  engine.truncate(0, 0);
  if (row.depth > 0) engine.run(rows_at(0, row.depth, engine.model().config.vocab));
  BenchRow warm_up = row;
  warm_up.generate = std::min(row.generate, 1);
  time_once(engine, warm_up);
  engine.set_profile(profile);
  for (int i = 0; i < repetitions; ++i) row.seconds.push_back(time_once(engine, row));
  engine.set_profile(nullptr);
}

/// What the machine can do, measured once per number of threads.
class Peaks {
 public:
  explicit Peaks(Isa isa) : isa_(isa) {}
  /// Tokens/s if generation only read the weights at full bandwidth, and prompts only multiplied at the integer peak;
  /// 0 where there is no such peak (generic code).
  double speed(const models::Model& model, const BenchRow& row) {
    if (row.generate > 0) return bandwidth(row.threads) / static_cast<double>(model.bytes_per_token);
    return int8_peak(row.threads) / (2.0 * static_cast<double>(model.macs_per_token));
  }
  Roofs roofs(int threads) {
    const auto [found, fresh] = float_operations_.try_emplace(threads);
    if (fresh && isa_ != Isa::generic && supported(isa_)) found->second = jit::measure_f32_peak(isa_, threads);
    return {bandwidth(threads), int8_peak(threads), found->second};
  }

 private:
  double bandwidth(int threads) {
    const auto [found, fresh] = bandwidths_.try_emplace(threads);
    if (fresh) found->second = jit::measure_read_bandwidth(threads);
    return found->second;
  }
  double int8_peak(int threads) {
    if (isa_ == Isa::generic || !supported(isa_)) return 0;
    const auto [found, fresh] = operations_.try_emplace(threads);
    if (fresh) found->second = jit::measure_int8_peak(isa_, threads);
    return found->second;
  }
  Isa isa_;
  std::map<int, double> bandwidths_, operations_, float_operations_;
};

class Bench {
 public:
  explicit Bench(const BenchFlags& flags)
      : flags_(flags),
        model_(load_model(flags.model, false)),
        isa_(flags.model.max_isa.empty() ? max_isa() : parse_isa(flags.model.max_isa)),
        peaks_(isa_) {}

  int run() {
    std::vector<int> threads = flags_.threads;
    if (threads.empty()) threads.push_back(default_threads());
    for (int count : threads) run_threads(count);
    const BenchFormat format = flags_.output == "md"     ? BenchFormat::markdown
                               : flags_.output == "json" ? BenchFormat::json
                                                         : BenchFormat::csv;
    put(bench_table(rows_, format) + profiles_);
    if (!flags_.trace.empty()) save(flags_.trace, trace_.dump());
    if (!flags_.roofline_svg.empty()) save(flags_.roofline_svg, roofline_svg(rooflines_));
    return 0;
  }

 private:
  void run_threads(int threads) {
    ModelFlags flags = flags_.model;
    flags.threads = threads;
    const auto most = [](const std::vector<int>& counts) {
      return counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end());
    };
    const int needed = most(flags_.depths) + std::max(most(flags_.prompts), most(flags_.generates));
    flags.context = std::max<int64_t>(flags.context, std::max(needed, 32));
    const auto engine = make_engine(model_, flags);
    print_start(*engine);
    for (int depth : flags_.depths) {
      for (int count : flags_.prompts) run_test(*engine, threads, count, 0, depth);
      for (int count : flags_.generates) run_test(*engine, threads, 0, count, depth);
    }
  }

  void run_test(models::Engine& engine, int threads, int prompt, int generate, int depth) {
    if (prompt + generate == 0) return;
    BenchRow row;
    row.model = std::string(model_->arch->name) + " " + model_->format;
    if (flags_.model.cache_type != "f16") row.model += ", KV " + flags_.model.cache_type;
    row.isa = name(isa_);
    row.model_bytes = model_->file_bytes;
    row.parameters = model_->parameters;
    row.threads = threads;
    row.prompt = prompt;
    row.generate = generate;
    row.depth = depth;
    if (flags_.explain) {
      const int rows = prompt > 0 ? std::min(prompt, engine.chunk()) : 1;
      put("plan of " + row.test() + "\n" + engine.plan(rows, 1).explain() + "\n");
    }
    const bool roofline = flags_.roofline || !flags_.roofline_svg.empty();
    const bool profiled = flags_.profile || roofline || !flags_.trace.empty();
    Profile profile;
    if (profiled) profile.reserve(profile_events);
    measure(engine, row, flags_.repetitions, profiled ? &profile : nullptr);
    // Rendered while the engine, whose plans own the names, is alive.
    const std::string title = row.test() + ", " + std::to_string(threads) + " threads";
    if (flags_.profile) profiles_ += "\n" + title + "\n" + profile.table();
    if (!flags_.trace.empty()) add_trace(title, profile);
    if (roofline) add_roofline(title, engine, row, profile);
    if (!flags_.no_peak) row.peak = peaks_.speed(*model_, row);
    std::fprintf(stderr, "%s, %d threads: %.2f tokens/s\n", row.test().c_str(), threads, row.speeds().back());
    rows_.push_back(row);
  }

  /// A process of its own per test: each trace begins at time 0, so they would lie on top of each other.
  void add_trace(const std::string& title, const Profile& profile) {
    nlohmann::json trace = nlohmann::json::parse(profile.chrome_trace());
    const size_t process = rows_.size();
    nlohmann::json& all = trace_["traceEvents"];
    all.push_back({{"name", "process_name"}, {"ph", "M"}, {"pid", process}, {"args", {{"name", title}}}});
    for (nlohmann::json& event : trace.at("traceEvents")) {
      event["pid"] = process;
      all.push_back(std::move(event));
    }
  }

  void add_roofline(const std::string& title, models::Engine& engine, const BenchRow& row, const Profile& profile) {
    const int rows = std::max(1, std::min(row.prompt, engine.chunk()));
    NIBBLE_CHECK(row.prompt % rows == 0, "--roofline: a prompt of ", row.prompt,
                 " tokens is neither one chunk of at most ", engine.chunk(), " nor a multiple of it");
    const double attended = row.depth + (row.prompt + row.generate) / 2.0;
    const double positions = attended + (row.prompt > 0 ? rows / 2.0 : 0);
    rooflines_.push_back(
        make_roofline(title, peaks_.roofs(row.threads), engine.plan(rows, 1), profile, positions, attended));
    if (flags_.roofline) profiles_ += "\n" + roofline_table(rooflines_.back());
  }

  static void save(const std::string& path, const std::string& text) {
    std::FILE* out = std::fopen(path.c_str(), "wb");
    NIBBLE_CHECK(out != nullptr, "cannot write ", path, ": ", std::strerror(errno));
    const bool written = std::fwrite(text.data(), 1, text.size(), out) == text.size();
    NIBBLE_CHECK(std::fclose(out) == 0 && written, "cannot write ", path);
  }

  static constexpr size_t profile_events = 1 << 18;
  const BenchFlags& flags_;
  std::shared_ptr<const models::Model> model_;
  Isa isa_;
  Peaks peaks_;
  std::string profiles_;
  std::vector<Roofline> rooflines_;
  nlohmann::json trace_;
  std::vector<BenchRow> rows_;
};

}  // namespace

Action setup_bench(CLI::App& app) {
  auto flags = std::make_shared<BenchFlags>();
  add_model_flag(app, flags->model);
  add_engine_flags(app, flags->model);
  app.remove_option(app.get_option("--threads"));
  const auto counts = [&](const char* names, std::vector<int>& values, double low, const char* what) {
    app.add_option(names, values, what)->type_name("N,...")->delimiter(',')->allow_extra_args(false)
        ->check(between(low, 1 << 24))->capture_default_str();
  };
  counts("-p,--n-prompt", flags->prompts, 0, "Prompt lengths; 0: none");
  counts("-n,--n-gen", flags->generates, 0, "Tokens to generate; 0: none");
  counts("-d,--n-depth", flags->depths, 0, "Positions that are in the cache before the test begins");
  counts("-t,--threads", flags->threads, 1, "Threads (default: the physical cores this process may use)");
  app.add_option("-r,--repetitions", flags->repetitions, "Repetitions, after a warm-up")
      ->type_name("N")
      ->check(between(1, 10000))
      ->capture_default_str();
  app.add_option("-o,--output", flags->output, "md, json or csv")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"md", "json", "csv"}))
      ->capture_default_str();
  app.add_flag("--no-peak", flags->no_peak, "Do not measure the machine's own limits");
  app.add_flag("--profile", flags->profile, "A table of times by kernel and operation")->group("Where time goes");
  app.add_option("--trace", flags->trace, "Save a Chrome trace of every node")
      ->type_name("FILE")
      ->group("Where time goes");
  app.add_flag("--roofline", flags->roofline, "What each operation reaches of the bound that limits it")
      ->group("Where time goes");
  app.add_option("--roofline-svg", flags->roofline_svg, "The same as a picture")
      ->type_name("FILE")
      ->group("Where time goes");
  app.add_flag("--explain", flags->explain, "Which kernel runs each node, and why no other")->group("Where time goes");
  app.footer(
      "Generation is compared with the measured read bandwidth (weights read per token), prompts with the measured\n"
      "8-bit integer peak (two operations per weight and token).\n\nExample:\n  nibble bench -m model.gguf -p 512 -n "
      "128 -t 1,2");
  return [flags] {
    const auto none = [](const std::vector<int>& list) {
      return std::all_of(list.begin(), list.end(), [](int n) { return n == 0; });
    };
    NIBBLE_CHECK(!none(flags->prompts) || !none(flags->generates), "nothing to measure: -p and -n are 0");
    return Bench(*flags).run();
  };
}

}  // namespace nibble::cli
