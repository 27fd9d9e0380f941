// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "tensor/passes/passes.h"

namespace nibble::passes {

Graph run_all(Graph graph) {
  graph = drop_dead(std::move(graph));         // dead readers would keep patterns from matching
  graph = fold_epilogue(std::move(graph));     // before the gate: act(x w1) becomes one node
  graph = fold_gate(std::move(graph));         // before joining: gate and up would be joined as siblings
  graph = join_matmuls(std::move(graph));      // before quantising: one matmul_q instead of three
  graph = quantize_activations(std::move(graph));
  return fuse_norm_quantize(std::move(graph));
}

}  // namespace nibble::passes
