// SPDX-License-Identifier: Apache-2.0
// Ways to run an op. Libraries above add theirs once (jit::register_kernels()); the op's reference is always last.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "tensor/cpu.h"
#include "tensor/op.h"

namespace nibble {

/// One node as a kernel sees it when a plan is compiled.
struct Call {
  const Node* node = nullptr;
  std::span<const TensorDesc> in;
  std::span<const Tensor> constants;  ///< per input; data is null unless the input is constant
  std::span<const Shape> strides;     ///< per input, in elements
  TensorDesc out;
  int threads = 1;
  bool fixed_sum_order = true;  ///< results must not depend on the number of rows (PlanOptions)
  const Attrs& attrs() const { return node->attrs; }
};

/// A kernel bound to one node: everything that can be decided once has been.
struct Bound {
  void (*run)(const void* state, const KernelArgs& args) = nullptr;
  std::shared_ptr<const void> state;
  size_t scratch_bytes = 0;
  std::string detail;  ///< what was bound, for explain(): "gemm_i8_q4s_g32_f32_4x16x4_avx2"
  /// May be null. Piece `piece` (0, 1, ...) of the constants that args.worker reads, in its order, as far as that is
  /// known before the kernel runs; empty when there is no more. A worker that waits for others fetches them meanwhile.
  std::span<const std::byte> (*reads_first)(const void* state, const KernelArgs& args, int piece) = nullptr;
};

struct Kernel {
  std::string_view name, op;
  Isa isa = Isa::generic;
  /// nullptr when it can run the call, else a static string with the reason (shown by explain()).
  const char* (*rejects)(const Call&) = nullptr;
  /// Estimated nanoseconds on the call's threads; the lowest wins.
  float (*cost)(const Call&) = nullptr;
  /// Once per plan and node: emit code, precompute tables. Throws Error when it fails.
  Bound (*bind)(const Call&) = nullptr;
  /// May be null. What `cost` is computed from, for explain(): "355 GOP/s (measured), 18.3 GB/s a thread (recorded)".
  std::string (*cost_basis)() = nullptr;
};

/// Adds to the process-wide list; a name that is already there is ignored, so calling twice is harmless. Thread safe.
void register_kernel(const Kernel& kernel);
/// All kernels for an op, references excluded, in order of registration.
std::span<const Kernel> kernels_for(std::string_view op);

}  // namespace nibble
