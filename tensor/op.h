// SPDX-License-Identifier: Apache-2.0
// Operations: a name, shape inference and naive loops. tensor/ops/op_list.inc lists them, one file each.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string_view>

#include "tensor/graph.h"
#include "tensor/parallel.h"
#include "tensor/tensor.h"

namespace nibble {

/// What a kernel gets for one execution of one node. All workers of the team enter the kernel together; the plan puts
/// a barrier after every node. Views may be strided (kernels that can't take strides say so in `rejects`).
struct KernelArgs {
  std::span<const Tensor> in;
  Tensor out;
  const Attrs* attrs = nullptr;
  Worker worker;
  std::byte* scratch = nullptr;  ///< Bound::scratch_bytes, shared by the workers, 64-byte aligned, not cleared
  /// Four counters at zero on entry, for handing out work: counters[0].fetch_add(chunk).
  std::atomic<int64_t>* counters = nullptr;
};

struct OpDef {
  std::string_view name;
  /// Throws Error saying which shapes don't fit; Graph::add adds the node's name.
  TensorDesc (*infer)(std::span<const TensorDesc> in, const Attrs& attrs);
  /// Naive loops for every dtype and stride the op allows; runs on one worker. The truth that fast kernels are tested
  /// against, and what runs under NIBBLE_MAX_ISA=generic.
  void (*reference)(const KernelArgs& args);
  /// Not null for views (reshape, slice, transpose): the result is this view of in[0] and nothing runs.
  Tensor (*view)(const Tensor& in, const Attrs& attrs) = nullptr;
  /// Stores into its inputs (the KV cache), so it runs even when nobody reads its result.
  bool writes_inputs = false;
};

std::span<const OpDef* const> all_ops();
/// Throws Error naming the op and the known ones.
const OpDef& op(std::string_view name);

}  // namespace nibble
