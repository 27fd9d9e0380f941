// SPDX-License-Identifier: Apache-2.0
// A loaded model and the engine that runs it: embed -> N blocks -> head, with one plan per shape, compiled once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/arch.h"
#include "models/kv_cache.h"
#include "models/text/tokenizer.h"
#include "models/weights.h"
#include "tensor/parallel.h"
#include "tensor/plan.h"

namespace nibble::models {

struct LoadOptions {
  int threads = 0;       ///< for packing; 0: default_threads()
  bool need_tokenizer = true;
  std::string arch;      ///< demo binaries: refuse files of other architectures (but take those of Arch::base); "": any
  Progress progress;
  std::string packed_cache = {};  ///< folder of packed copies (PackedCache): one is used, or made; "": none
  std::function<void(const std::string&)> note = {};  ///< told what was wrong with packed copies
  std::string quant = {};  ///< quantise matrices of floats to this format (QuantizeRule); "": keep every weight exactly
  bool floats = false;    ///< every matrix as floats, quantised ones as f16 (QuantizeRule::floats)
  std::vector<std::string> set = {};  ///< Metadata::set(): numbers that the file leaves out or has wrong
};

/// Immutable once loaded; engines share it.
struct Model {
  /// Any path that Checkpoint::open takes. Throws Error.
  static std::shared_ptr<const Model> load(const std::string& path, const LoadOptions& options = {});

  std::string path, name, chat_template, format;   ///< format: what most weights are in, "q4_0"
  const Arch* arch = nullptr;
  Config config;
  Weights weights;
  std::shared_ptr<const Tokenizer> tokenizer;
  uint64_t file_bytes = 0, parameters = 0;
  uint64_t bytes_per_token = 0;   ///< packed bytes that one generated token reads: all but an untied embedding
                                ///< and the experts that it does not choose
  uint64_t macs_per_token = 0;    ///< multiply-adds of the matmuls of one prompt token, output head left out
};

struct EngineOptions {
  int threads = 0;        ///< 0: default_threads()
  int64_t context = 0;    ///< positions per sequence; 0: min(the model's context, 4096)
  int sequences = 1;      ///< that can be alive at once
  int chunk = 512;        ///< rows of a prefill plan at most
  DType cache = DType::f16;  ///< f32, f16, bf16 or i8: what keys and values are kept in
  Isa max_isa = nibble::max_isa();
};

/// Whether a model file or folder holds a tokenizer. Throws Error when it cannot be opened.
bool has_tokenizer(const std::string& path);

/// One token to run: `logits` asks for the row's logits.
struct Row {
  int32_t token;
  int32_t position;
  int32_t sequence;
  bool logits;
};

/// How many tokens of a prompt see each other (PrefixRule); 0 in models without a prefix. Throws Error when the prompt
/// lacks the token that ends it, or the mark.
KvCache::Prefix find_prefix(const PrefixRule& rule, std::span<const int32_t> prompt);

/// Not thread safe. Rows of one call may belong to several sequences; those of one sequence stand together, positions
/// rising by one, and everything before the first of them must have been run. In models with a PrefixRule the call that
/// runs a sequence's position 0 runs its whole prefix too (as one chunk, however long), and no call begins inside of
/// it.
class Engine {
 public:
  Engine(std::shared_ptr<const Model> model, const EngineOptions& options);
  ~Engine();

  const Model& model() const { return *model_; }
  int64_t context() const { return context_; }
  int threads() const;
  int chunk() const { return options_.chunk; }
  /// Runs the rows (cut into chunks as needed) and returns the logits of those that asked, (count, vocab), valid until
  /// the next call. Positions that were run before are run again: what followed them is forgotten. Throws Error on ids
  /// or positions out of range or a full cache; nothing has been run then.
  std::span<const float> run(std::span<const Row> rows);
  /// Forgets positions from `tokens` on.
  void truncate(int sequence, int64_t tokens);
  KvCache& cache() { return *cache_; }

  /// The plan for (rows, logit_rows), compiled on first use; valid until the next call of plan() or run().
  Plan& plan(int rows, int logit_rows);
  /// "avx2, 2 threads; 120 of 121 matmuls per token in gemm_i8_q4s_...; attention in ...": what decoding runs on, for
  /// start-up. Kernels that differ in their epilogue only count as one.
  std::string kernels_line();
  /// What every matmul reads, from now on: called after each chunk with inputs, f32 (rows, k), and the weights that
  /// they are multiplied with ("blk.3.q.weight"); the output head's are those of rows that ask for logits, but run()
  /// gives none. Slow and large: for calibration. An empty function ends it.
  using Tap = std::function<void(std::span<const std::string> weights, const Tensor& x)>;
  void set_tap(Tap tap);
  uint64_t memory_bytes() const;     ///< KV cache and arenas
  /// Of all plans from now on (Plan::set_profile); no plan is dropped while one is set, as its events point into plans.
  void set_profile(Profile* profile);

 private:
  struct Tapped {
    std::vector<std::string> weights;
    TensorDesc desc;
  };
  struct CachedPlan {
    Plan plan;
    uint64_t used = 0;
    std::vector<Tapped> tapped;  ///< the results, in place of the logits
  };
  void check(std::span<const Row> rows) const;
  KvCache::Prefix prefix_of(std::span<const Row> rows) const;
  size_t chunk_rows(std::span<const Row> rows) const;
  void reserve(std::span<const Row> rows);
  void run_chunk(std::span<const Row> rows, int logit_rows, float* logits);
  CachedPlan compile(int rows, int logit_rows) const;
  void run_tapped(CachedPlan& plan);
  CachedPlan& cached_plan(int rows, int logit_rows);
  void evict();

  std::shared_ptr<const Model> model_;
  EngineOptions options_;
  int64_t context_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<KvCache> cache_;
  std::map<std::pair<int, int>, CachedPlan> plans_;
  uint64_t uses_ = 0;
  std::vector<std::pair<int, int64_t>> before_;  ///< of reserve(): sequences and what they held
  std::vector<int32_t> ids_, positions_, sequences_, logit_rows_;
  std::vector<int32_t> ends_, first_positions_, second_positions_;
  std::vector<Tensor> inputs_;
  std::vector<float> logits_;
  Profile* profile_ = nullptr;
  Tap tap_;
};

}  // namespace nibble::models
