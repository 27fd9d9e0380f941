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

/// Matmul kernels of all epilogues under one name: what stands between tile and instruction set is left out
/// (docs/kernel-names.md). Names of another form stay as they are.
std::string kernel_family(std::string_view name) {
  const size_t isa = name.rfind('_');
  for (size_t begin = 0, end = 0; isa != std::string_view::npos && end < isa; begin = end + 1) {
    end = std::min(name.find('_', begin), isa);
    const std::string_view part = name.substr(begin, end - begin);
    if (std::count(part.begin(), part.end(), 'x') == 2 &&
        part.find_first_not_of("0123456789x") == std::string_view::npos)
      return std::string(name.substr(0, end)).append(name.substr(isa));
  }
  return std::string(name);
}
}  // namespace

Engine::Engine(std::shared_ptr<const Model> model, const EngineOptions& options)
    : model_(std::move(model)), options_(options), context_(options.context) {
  NIBBLE_CHECK(options_.context >= 0, "context: expected a positive number of positions, found ", options_.context);
  NIBBLE_CHECK(options_.sequences >= 1, "sequences: expected at least 1, found ", options_.sequences);
  NIBBLE_CHECK(options_.chunk >= 1, "chunk: expected at least 1 row, found ", options_.chunk);
  if (context_ == 0) context_ = std::min(model_->config.context, 4096);
  NIBBLE_CHECK(context_ <= model_->config.context || model_->weights.find("position_embedding", -1) == nullptr,
               "context: expected at most ", model_->config.context,
               " positions, those that the model has learned, found ", context_);
  pool_ = std::make_unique<ThreadPool>(options_.threads > 0 ? options_.threads : default_threads());
  const int64_t rounded = (context_ + KvCache::page_tokens - 1) / KvCache::page_tokens * KvCache::page_tokens;
  cache_ = std::make_unique<KvCache>(model_->config, rounded * options_.sequences, options_.sequences, rounded,
                                     options_.cache);
  const auto chunk = static_cast<size_t>(options_.chunk);
  for (std::vector<int32_t>* list :
       {&ids_, &positions_, &sequences_, &logit_rows_, &ends_, &first_positions_, &second_positions_})
    list->reserve(chunk);
  before_.reserve(static_cast<size_t>(options_.sequences));
  inputs_.reserve(8 + 2 * static_cast<size_t>(model_->config.layers));
}

Engine::~Engine() = default;

int Engine::threads() const { return pool_->size(); }

void Engine::truncate(int sequence, int64_t tokens) { cache_->truncate(sequence, tokens); }

namespace {

/// `is(element, token)` says what the prompt holds.
template <class Element, class Is>
KvCache::Prefix find_prefix(const PrefixRule& rule, std::span<const Element> prompt, const Is& is) {
  if (rule.end < 0) return {};
  const auto find = [&](auto last, int token) {
    return std::find_if(prompt.begin(), last, [&](const Element& element) { return is(element, token); });
  };
  const auto end = find(prompt.end(), rule.end);
  NIBBLE_CHECK(end != prompt.end(), "the prompt lacks token ", rule.end,
               ", which ends the part whose tokens see each other");
  auto mark = find(end, rule.mark);
  if (mark == end) mark = find(end, rule.other_mark);
  NIBBLE_CHECK(mark != end, "the prompt lacks token ", rule.mark, " or ", rule.other_mark, " before token ", rule.end);
  return {end - prompt.begin(), static_cast<int32_t>(mark - prompt.begin())};
}

}  // namespace

KvCache::Prefix find_prefix(const PrefixRule& rule, std::span<const int32_t> prompt) {
  return find_prefix(rule, prompt, [](int32_t element, int token) { return element == token; });
}

/// Of the sequence that the first row belongs to.
KvCache::Prefix Engine::prefix_of(std::span<const Row> rows) const {
  const int sequence = rows.front().sequence;
  return find_prefix(model_->config.prefix, rows,
                     [&](const Row& row, int token) { return row.sequence == sequence && row.token == token; });
}

void Engine::check(std::span<const Row> rows) const {
  const int vocab = model_->config.vocab;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    NIBBLE_CHECK(row.token >= 0 && row.token < vocab, "token ", row.token, ": expected 0 to ", vocab - 1);
    NIBBLE_CHECK(row.sequence >= 0 && row.sequence < options_.sequences, "sequence ", row.sequence, ": expected 0 to ",
                 options_.sequences - 1);
    NIBBLE_CHECK(row.position >= 0 && row.position < context_, "position ", row.position, ": the context has ",
                 context_);
    if (i > 0 && rows[i - 1].sequence == row.sequence) {
      NIBBLE_CHECK(row.position == rows[i - 1].position + 1, "sequence ", row.sequence, ": position ", row.position,
                   " follows ", rows[i - 1].position);
      continue;
    }
    NIBBLE_CHECK(row.position <= cache_->tokens(row.sequence), "sequence ", row.sequence, ": position ", row.position,
                 " asked for, but only ", cache_->tokens(row.sequence), " have been run");
    if (model_->config.prefix.end >= 0 && row.position == 0) prefix_of(rows.subspan(i));
    NIBBLE_CHECK(model_->config.prefix.end < 0 || row.position == 0 ||
                     (cache_->prefix(row.sequence).tokens > 0 && row.position >= cache_->prefix(row.sequence).tokens),
                 "sequence ", row.sequence, ": position ", row.position,
                 " is inside the prompt's part whose tokens see each other, which runs as a whole");
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
    if (model_->config.prefix.end >= 0 && rows[begin].position == 0)
      cache_->set_prefix(sequence, prefix_of(rows.subspan(begin, end - begin)));
    begin = end;
  }
}

/// At most a chunk, but a prefix is not cut.
size_t Engine::chunk_rows(std::span<const Row> rows) const {
  size_t count = std::min(rows.size(), static_cast<size_t>(options_.chunk));
  while (count < rows.size() && rows[count].position > 0 &&
         rows[count].position < cache_->prefix(rows[count].sequence).tokens)
    ++count;
  return count;
}

std::span<const float> Engine::run(std::span<const Row> rows) {
  check(rows);
  const auto wanted =
      static_cast<size_t>(std::count_if(rows.begin(), rows.end(), [](const Row& r) { return r.logits; }));
  const size_t vocab = tap_ ? 0 : static_cast<size_t>(model_->config.vocab);
  logits_.resize(wanted * vocab);
  reserve(rows);
  size_t done = 0;
  while (!rows.empty()) {
    const std::span<const Row> chunk = rows.first(chunk_rows(rows));
    rows = rows.subspan(chunk.size());
    const auto logit_rows =
        static_cast<int>(std::count_if(chunk.begin(), chunk.end(), [](const Row& r) { return r.logits; }));
    run_chunk(chunk, logit_rows, logits_.data() + done * vocab);
    done += static_cast<size_t>(logit_rows);
  }
  return logits_;
}

void Engine::run_chunk(std::span<const Row> rows, int logit_rows, float* logits) {
  CachedPlan& compiled = cached_plan(static_cast<int>(rows.size()), logit_rows);
  ids_.clear(), positions_.clear(), sequences_.clear(), logit_rows_.clear(), inputs_.clear();
  ends_.clear(), first_positions_.clear(), second_positions_.clear();
  for (const Row& row : rows) {
    if (row.logits) logit_rows_.push_back(static_cast<int32_t>(ids_.size()));
    ids_.push_back(row.token);
    positions_.push_back(row.position);
    sequences_.push_back(row.sequence);
    if (model_->config.prefix.end < 0) continue;
    const KvCache::Prefix& prefix = cache_->prefix(row.sequence);
    const auto tokens = static_cast<int32_t>(prefix.tokens);
    const bool inside = row.position < tokens;
    ends_.push_back(inside ? tokens : row.position + 1);
    first_positions_.push_back(inside ? row.position : prefix.mark);
    second_positions_.push_back(inside ? 0 : row.position - tokens + 1);
  }
  const auto indices = [](std::vector<int32_t>& list) {
    return Tensor({{static_cast<int64_t>(list.size())}, DType::i32}, list.data());
  };
  inputs_.insert(inputs_.end(), {indices(ids_), indices(positions_), indices(sequences_), cache_->page_table()});
  if (logit_rows > 0) inputs_.push_back(indices(logit_rows_));
  if (!ends_.empty())
    inputs_.insert(inputs_.end(), {indices(ends_), indices(first_positions_), indices(second_positions_)});
  for (int layer = 0; layer < model_->config.layers; ++layer) {
    inputs_.push_back(cache_->k_pages(layer));
    inputs_.push_back(cache_->v_pages(layer));
  }
  if (tap_) return run_tapped(compiled);
  const Tensor out({{logit_rows, model_->config.vocab}, DType::f32}, logits);
  compiled.plan.run(*pool_, inputs_, std::span(&out, logit_rows > 0 ? 1u : 0u));
}

void Engine::run_tapped(CachedPlan& compiled) {
  std::vector<Tensor> out;
  std::vector<Buffer> memory;
  for (const Tapped& tapped : compiled.tapped) {
    memory.emplace_back(bytes(tapped.desc));
    out.emplace_back(tapped.desc, memory.back().data());
  }
  compiled.plan.run(*pool_, inputs_, out);
  for (size_t i = 0; i < out.size(); ++i) tap_(compiled.tapped[i].weights, out[i]);
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
  if (tap_) graph.outputs.clear();  // nobody reads the logits
  for (auto& [id, tap] : tapped) {
    graph.output(Value{id});
    results.push_back(std::move(tap));
  }
  return {Plan::compile(graph, {.max_isa = options_.max_isa, .threads = pool_->size()}), 0, std::move(results)};
}

Plan& Engine::plan(int rows, int logit_rows) { return cached_plan(rows, logit_rows).plan; }

Engine::CachedPlan& Engine::cached_plan(int rows, int logit_rows) {
  const bool fits = rows <= options_.chunk || model_->config.prefix.end >= 0;
  NIBBLE_CHECK(rows >= 1 && fits && logit_rows >= 0 && logit_rows <= rows, "no plan for ", rows,
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
    if (!step.op.starts_with("matmul")) continue;
    ++matmuls;
    ++counts[kernel_family(colon == std::string_view::npos ? step.kernel : step.kernel.substr(colon + 2))];
  }
  std::string line = message(name(options_.max_isa), ", ", threads(), threads() == 1 ? " thread" : " threads");
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most != counts.end()) line += message("; ", most->second, " of ", matmuls, " matmuls per token in ", most->first);
  for (const std::string& kernel : attention) line += message("; attention in ", kernel);
  return line;
}

uint64_t Engine::memory_bytes() const {
  uint64_t sum = KvCache::bytes_per_token(model_->config, cache_->type()) * static_cast<uint64_t>(cache_->pages()) *
                 KvCache::page_tokens;
  for (const auto& [shape, cached] : plans_) sum += cached.plan.arena_bytes();
  return sum;
}

void Engine::set_profile(Profile* profile) {
  profile_ = profile;
  for (auto& [shape, cached] : plans_) cached.plan.set_profile(profile);
}

}  // namespace nibble::models
