// SPDX-License-Identifier: Apache-2.0
// Runs one kernel of the list on tensors, as a plan would.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string_view>
#include <vector>

#include "tensor/buffer.h"
#include "tensor/check.h"
#include "tensor/graph.h"
#include "tensor/kernel.h"
#include "tensor/parallel.h"

namespace nibble::test {

class KernelRunner {
 public:
  /// Binds the named kernel; `constants` inputs (by index, from first_constant to end_constant) count as weights.
  /// Throws Error when there is no such kernel or it rejects the call.
  KernelRunner(std::string_view op, std::string_view kernel_name, std::span<const Tensor> in, const TensorDesc& out,
               const Attrs& attrs, int threads, size_t first_constant = 0, size_t end_constant = 0)
      : node_{nullptr, attrs, {}, {}, "test"}, threads_(threads) {
    std::vector<TensorDesc> descs;
    std::vector<Tensor> constants(in.size());
    std::vector<Shape> strides;
    for (size_t i = 0; i < in.size(); ++i) {
      descs.push_back(in[i].desc);
      strides.push_back(in[i].strides);
      if (i >= first_constant && i < end_constant) constants[i] = in[i];
    }
    const Call call{&node_, descs, constants, strides, out, threads, true};
    const auto kernels = kernels_for(op);
    const auto kernel = std::ranges::find(kernels, kernel_name, &Kernel::name);
    NIBBLE_CHECK(kernel != kernels.end(), "no kernel ", kernel_name, " for ", op);
    const char* reason = kernel->rejects ? kernel->rejects(call) : nullptr;
    NIBBLE_CHECK(reason == nullptr, kernel_name, ": ", reason);
    NIBBLE_CHECK(kernel->cost(call) > 0, kernel_name, ": cost must be positive");
    bound_ = kernel->bind(call);
    scratch_ = Buffer(std::max<size_t>(bound_.scratch_bytes, 1));
  }

  /// The scratch memory is filled with 0xff (NaN) first.
  void run(ThreadPool& pool, std::span<const Tensor> in, const Tensor& out) {
    std::memset(scratch_.data(), 0xff, scratch_.size());
    run_again(pool, in, out);
  }
  void run_again(ThreadPool& pool, std::span<const Tensor> in, const Tensor& out) {
    std::atomic<int64_t> counters[4] = {};
    pool.run([&](const Worker& worker) {
      KernelArgs args{in, out, &node_.attrs, worker, scratch_.data(), counters};
      bound_.run(bound_.state.get(), args);
    });
  }
  std::span<const std::byte> reads_first(std::span<const Tensor> in, const Tensor& out, int worker, int piece) const {
    const KernelArgs args{in, out, &node_.attrs, Worker{worker, threads_, nullptr}, scratch_.data(), nullptr};
    return bound_.reads_first(bound_.state.get(), args, piece);
  }
  const std::string& detail() const { return bound_.detail; }

 private:
  Node node_;
  Bound bound_;
  Buffer scratch_;
  int threads_;
};

}  // namespace nibble::test
