// SPDX-License-Identifier: Apache-2.0
// Graph rewrites, one per file. Each returns a graph with the same inputs, outputs and results (to rounding) in fewer
// or cheaper nodes; values keep their ids, new ones are appended.
#pragma once

#include "tensor/graph.h"

namespace nibble::passes {

/// Everything below in the order that lets one feed the next.
Graph run_all(Graph graph);

/// Removes nodes that no output and no node with side effects (OpDef::writes_inputs) depends on.
Graph drop_dead(Graph graph);
/// matmul followed by + constant bias, activation, + residual, each read once: into the matmul.
Graph fold_epilogue(Graph graph);
/// act(x w1) * (x w2) with weights of equal n: one matmul with gate=act.
Graph fold_gate(Graph graph);
/// Matmuls of the same x with weights of one kind and at most constant biases: one matmul with results side by side,
/// the old results become slices of it.
Graph join_matmuls(Graph graph);
/// f32 x times quantised weights: quantize, shared by all matmuls that need the same, and matmul_q.
Graph quantize_activations(Graph graph);
/// A norm that only one quantize reads: norm_quantize.
Graph fuse_norm_quantize(Graph graph);

}  // namespace nibble::passes
