// SPDX-License-Identifier: Apache-2.0
// A model's weights, packed once at load. The file's pages are released as they are packed, so that peak memory stays
// near the size of the file.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "models/arch.h"
#include "models/io/checkpoint.h"
#include "models/io/packed_cache.h"
#include "models/quantize.h"
#include "tensor/buffer.h"
#include "tensor/parallel.h"
#include "tensor/tensor.h"

namespace nibble::models {

/// done and total in bytes of the file; called from the loading thread, at most every 100 ms and at the end.
using Progress = std::function<void(uint64_t done, uint64_t total)>;

class Weights {
 public:
  /// Finds every name of the architecture, takes the pieces its paths ask for, builds its graph once so that every
  /// shape is checked before any work, packs matrices (in their own format, exactly, or as `quantize` says, never
  /// holding more than a few rows as floats) and converts vectors to f32. Throws Error for a missing tensor (naming the
  /// file and all alternatives) and for shapes that don't fit; tensors nobody asked for are listed in unused(). With a
  /// cache they are mapped from the copy there; without such a copy they are packed and one is stored.
  static Weights load(const Checkpoint& checkpoint, const Arch& arch, const Config& config, ThreadPool& pool,
                      const Progress& progress = {}, const QuantizeRule& quantize = {},
                      const PackedCache* cache = nullptr);

  /// "q", layer -> the matrix, or vector. nullptr when optional and absent. layer -1 for names without {}.
  /// A weight with experts is one matrix (experts * r, k), with r the rows of an expert rounded up to a multiple of 16
  /// (rows in between are zeros), or one vector tensor (experts, n).
  const Tensor* find(std::string_view name, int layer, std::string_view suffix = ".weight") const;
  /// How many experts the weight has; 0 when it has none, or is absent.
  int experts(std::string_view name, int layer) const;
  /// One expert's matrix or vector, inside of what find() returns: packed (n, k), or f32 (n).
  Tensor expert(std::string_view name, int layer, int expert, std::string_view suffix = ".weight") const;
  /// "file.gguf: tensor blk.0.attn_q.weight", for errors; the name asked for when there is no such tensor.
  std::string where(std::string_view name, int layer, std::string_view suffix = ".weight") const;
  /// The weight's columns stand in another order: column j is the activations' column order[j], i32 (k). nullptr where
  /// they don't. Weights with the same order have the same tensor.
  const Tensor* order(std::string_view name, int layer) const;
  /// cos and sin are taken of position times these: f32 (rope_dim / 2). `long_context`: those of longrope for contexts
  /// beyond the original one.
  const Tensor& rope_frequencies(bool long_context = false) const;
  uint64_t packed_bytes() const;
  /// Whether they are mapped from a packed copy.
  bool mapped() const;
  const std::vector<std::string>& unused() const;

  Weights();
  ~Weights();
  Weights(Weights&&) noexcept;
  Weights& operator=(Weights&&) noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nibble::models
