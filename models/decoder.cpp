// SPDX-License-Identifier: Apache-2.0
// Engine: checks rows, makes room in the cache, cuts into chunks, replays the plan of each chunk's shape.
#include "models/decoder.h"

#include <algorithm>
#include <set>

#include "models/builder.h"
#include "tensor/check.h"
#include "tensor/op.h"

namespace nibble::models {

namespace {
// Prompts end in chunks of any size; their plans are kept while they are few and their arenas small.
constexpr size_t max_plans = 32;
constexpr size_t max_arena_bytes = size_t{256} << 20;
}  // namespace

Engine::Engine(std::shared_ptr<const Model> model, const EngineOptions& options)
    : model_(std::move(model)), options_(options), context_(options.context) {
  NIBBLE_CHECK(options_.context >= 0, "context: expected a positive number of positions, found ", options_.context);
  NIBBLE_CHECK(options_.sequences >= 1, "sequences: expected at least 1, found ", options_.sequences);
  NIBBLE_CHECK(options_.chunk >= 1, "chunk: expected at least 1 row, found ", options_.chunk);
  if (context_ == 0) context_ = std::min(model_->config.context, 4096);
  pool_ = std::make_unique<ThreadPool>(options_.threads > 0 ? options_.threads : default_threads());
  const int64_t rounded = (context_ + KvCache::page_tokens - 1) / KvCache::page_tokens * KvCache::page_tokens;
  cache_ = std::make_unique<KvCache>(model_->config, rounded * options_.sequences, options_.sequences, rounded,
                                     options_.cache);
  const auto chunk = static_cast<size_t>(options_.chunk);
  for (std::vector<int32_t>* list : {&ids_, &positions_, &sequences_, &logit_rows_}) list->reserve(chunk);
  before_.reserve(static_cast<size_t>(options_.sequences));
  inputs_.reserve(5 + 2 * static_cast<size_t>(model_->config.layers));
}

Engine::~Engine() = default;

int Engine::threads() const { return pool_->size(); }

void Engine::truncate(int sequence, int64_t tokens) { cache_->truncate(sequence, tokens); }

void Engine::check(std::span<const Row> rows) const {
  const int vocab = model_->config.vocab;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    NIBBLE_CHECK(row.token >= 0 && row.token < vocab, "token ", row.token, ": expected 0 to ", vocab - 1);
    NIBBLE_CHECK(row.sequence >= 0 && row.sequence < options_.sequences, "sequence ", row.sequence, ": expected 0 to ",
                 options_.sequences - 1);
    NIBBLE_CHECK(row.position >= 0 && row.position < context_, "position ", row.position, ": the context has ", context_);
    if (i > 0 && rows[i - 1].sequence == row.sequence) {
      NIBBLE_CHECK(row.position == rows[i - 1].position + 1, "sequence ", row.sequence, ": position ", row.position,
                   " follows ", rows[i - 1].position);
      continue;
    }
    NIBBLE_CHECK(row.position <= cache_->tokens(row.sequence), "sequence ", row.sequence, ": position ", row.position,
                 " asked for, but only ", cache_->tokens(row.sequence), " have been run");
    for (size_t j = 0; j < i; ++j)
      NIBBLE_CHECK(rows[j].sequence != row.sequence, "sequence ", row.sequence, ": its rows do not stand together");
  }
}

void Engine::reserve(std::span<const Row> rows) {
  size_t begin = 0;
  before_.clear();
  while (begin < rows.size()) {
    size_t end = begin + 1;
    while (end < rows.size() && rows[end].sequence == rows[begin].sequence) ++end;
    const int sequence = rows[begin].sequence;
    cache_->truncate(sequence, rows[begin].position);
    before_.emplace_back(sequence, rows[begin].position);
    try {
      cache_->reserve(sequence, rows[end - 1].position + 1);
    } catch (...) {
      for (const auto& [changed, tokens] : before_) cache_->truncate(changed, tokens);
      throw;
    }
    begin = end;
  }
}

std::span<const float> Engine::run(std::span<const Row> rows) {
  check(rows);
  const auto wanted = static_cast<size_t>(std::count_if(rows.begin(), rows.end(), [](const Row& r) { return r.logits; }));
  const auto vocab = static_cast<size_t>(model_->config.vocab);
  logits_.resize(wanted * vocab);
  reserve(rows);
  size_t done = 0;
  while (!rows.empty()) {
    const std::span<const Row> chunk = rows.first(std::min(rows.size(), static_cast<size_t>(options_.chunk)));
    rows = rows.subspan(chunk.size());
    const auto logit_rows = static_cast<int>(std::count_if(chunk.begin(), chunk.end(), [](const Row& r) { return r.logits; }));
    run_chunk(chunk, logit_rows, logits_.data() + done * vocab);
    done += static_cast<size_t>(logit_rows);
  }
  return logits_;
}

void Engine::run_chunk(std::span<const Row> rows, int logit_rows, float* logits) {
  CachedPlan& compiled = cached_plan(static_cast<int>(rows.size()), logit_rows);
  ids_.clear(), positions_.clear(), sequences_.clear(), logit_rows_.clear(), inputs_.clear();
  for (const Row& row : rows) {
    if (row.logits) logit_rows_.push_back(static_cast<int32_t>(ids_.size()));
    ids_.push_back(row.token);
    positions_.push_back(row.position);
    sequences_.push_back(row.sequence);
  }
  const auto indices = [](std::vector<int32_t>& list) {
    return Tensor({{static_cast<int64_t>(list.size())}, DType::i32}, list.data());
  };
  inputs_.insert(inputs_.end(), {indices(ids_), indices(positions_), indices(sequences_), cache_->page_table()});
  if (logit_rows > 0) inputs_.push_back(indices(logit_rows_));
  for (int layer = 0; layer < model_->config.layers; ++layer) {
    inputs_.push_back(cache_->k_pages(layer));
    inputs_.push_back(cache_->v_pages(layer));
  }
  const Tensor out({{logit_rows, model_->config.vocab}, DType::f32}, logits);
  if (!compiled.tapped.empty()) return run_tapped(compiled, out);
  compiled.plan.run(*pool_, inputs_, std::span(&out, logit_rows > 0 ? 1u : 0u));
}

void Engine::run_tapped(CachedPlan& compiled, const Tensor& logits) {
  std::vector<Tensor> out;
  if (logits.desc.shape[0] > 0) out.push_back(logits);
  std::vector<Buffer> memory;
  for (const Tapped& tapped : compiled.tapped) {
    memory.emplace_back(bytes(tapped.desc));
    out.emplace_back(tapped.desc, memory.back().data());
  }
  compiled.plan.run(*pool_, inputs_, out);
  const size_t first = out.size() - compiled.tapped.size();
  for (size_t i = 0; i < compiled.tapped.size(); ++i) tap_(compiled.tapped[i].weights, out[first + i]);
}

void Engine::set_tap(Tap tap) {
  tap_ = std::move(tap);
  plans_.clear();
}

Engine::CachedPlan Engine::compile(int rows, int logit_rows) const {
  Graph graph = Builder::build(*model_->arch, model_->config, model_->weights,
                               {.rows = rows, .logit_rows = logit_rows, .sequences = cache_->sequences(),
                                .max_pages = cache_->max_pages(), .pages = cache_->pages(), .cache = cache_->type()});
  std::map<int32_t, Tapped> tapped;
  if (tap_)
    for (const Node& node : graph.nodes) {
      if (node.op->name != "matmul" || !graph.is_constant(node.in[1])) continue;
      const Value x = node.in[0];
      tapped[x.id].desc = graph.desc(x);
      tapped[x.id].weights.push_back(graph.value_names[node.in[1].id]);
    }
  std::vector<Tapped> results;
  for (auto& [id, tap] : tapped) {
    graph.output(Value{id});
    results.push_back(std::move(tap));
  }
  return {Plan::compile(graph, {.max_isa = options_.max_isa, .threads = pool_->size()}), 0, std::move(results)};
}

Plan& Engine::plan(int rows, int logit_rows) { return cached_plan(rows, logit_rows).plan; }

Engine::CachedPlan& Engine::cached_plan(int rows, int logit_rows) {
  NIBBLE_CHECK(rows >= 1 && rows <= options_.chunk && logit_rows >= 0 && logit_rows <= rows, "no plan for ", rows,
               " rows with ", logit_rows, " rows of logits: chunks have at most ", options_.chunk);
  auto it = plans_.find({rows, logit_rows});
  if (it == plans_.end()) {
    CachedPlan compiled = compile(rows, logit_rows);
    compiled.plan.set_profile(profile_);
    it = plans_.emplace(std::pair(rows, logit_rows), std::move(compiled)).first;
    it->second.used = ++uses_;
    evict();
  }
  it->second.used = ++uses_;
  return it->second;
}

/// Decode shapes (at most one row per sequence) and whole chunks stay; the others go, least recently used first.
void Engine::evict() {
  if (profile_ != nullptr) return;
  const auto stays = [&](const std::pair<int, int>& shape) {
    return shape.first <= options_.sequences || shape.first == options_.chunk;
  };
  while (true) {
    size_t count = 0, arenas = 0;
    auto oldest = plans_.end();
    for (auto it = plans_.begin(); it != plans_.end(); ++it) {
      if (stays(it->first)) continue;
      ++count;
      arenas += it->second.plan.arena_bytes();
      if (oldest == plans_.end() || it->second.used < oldest->second.used) oldest = it;
    }
    if (count <= 1 || (count <= max_plans && arenas <= max_arena_bytes)) return;
    plans_.erase(oldest);
  }
}

std::string Engine::kernels_line() {
  const Plan& decode = plan(1, 1);
  int matmuls = 0;
  std::map<std::string, int> counts;
  std::set<std::string> attention;
  for (const Plan::StepName& step : decode.steps()) {
    // Kernels describe themselves as "name: detail"; a matmul's detail is the generated code, which says more.
    const size_t colon = step.kernel.find(": ");
    if (step.op == "attention") attention.emplace(step.kernel.substr(0, colon));
    if (step.op != "matmul" && step.op != "matmul_q") continue;
    ++matmuls;
    ++counts[std::string(colon == std::string_view::npos ? step.kernel : step.kernel.substr(colon + 2))];
  }
  std::string line = message(name(options_.max_isa), ", ", threads(), threads() == 1 ? " thread" : " threads");
  const auto most = std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most != counts.end()) line += message("; ", most->second, " of ", matmuls, " matmuls per token in ", most->first);
  for (const std::string& kernel : attention) line += message("; attention in ", kernel);
  return line;
}

uint64_t Engine::memory_bytes() const {
  uint64_t sum = KvCache::bytes_per_token(model_->config, cache_->type()) * static_cast<uint64_t>(cache_->pages()) * KvCache::page_tokens;
  for (const auto& [shape, cached] : plans_) sum += cached.plan.arena_bytes();
  return sum;
}

void Engine::set_profile(Profile* profile) {
  profile_ = profile;
  for (auto& [shape, cached] : plans_) cached.plan.set_profile(profile);
}

}  // namespace nibble::models
