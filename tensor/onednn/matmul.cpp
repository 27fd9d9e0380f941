// SPDX-License-Identifier: Apache-2.0
// matmul with one dense weight (n, k) by oneDNN. Each worker computes its own range of columns with its own
// single-threaded primitive, so oneDNN starts no threads beside ours. The weight is used where it lies, transposed by
// strides; which pairs of types exist is oneDNN's answer for this CPU.
#include <omp.h>

#include <algorithm>
#include <dnnl.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "tensor/check.h"
#include "tensor/kernel.h"
#include "tensor/onednn/onednn.h"
#include "tensor/ops/matmul.h"

namespace nibble {

namespace {

using dnnl::memory;
using ops::Activation;

constexpr size_t line = 64;
constexpr int64_t column_unit = 16;  // a worker's range of columns starts at a multiple of this

/// oneDNN's OpenMP runs on the calling thread alone while this lives; the caller's own setting returns after.
class SingleThreaded {
 public:
  SingleThreaded() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleThreaded() { omp_set_num_threads(before_); }
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  int before_;
};

const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

memory::data_type data_type(DType type) {
  switch (type) {
    case DType::f16: return memory::data_type::f16;
    case DType::bf16: return memory::data_type::bf16;
    default: return memory::data_type::f32;
  }
}

struct Problem {
  int64_t m, n, k;
  DType x, weight;
  int64_t x_stride, weight_stride;  // elements from row to row
  bool bias;
};

Problem problem_of(const Call& call) {
  return {.m = call.in[0].shape[0],
          .n = call.in[1].shape[0],
          .k = call.in[0].shape[1],
          .x = call.in[0].dtype,
          .weight = call.in[1].dtype,
          .x_stride = call.strides[0][0],
          .weight_stride = call.strides[1][0],
          .bias = call.attrs().i("bias", 0) != 0};
}

/// `columns` of the problem's n. Throws dnnl::error when oneDNN has no implementation.
dnnl::matmul::primitive_desc describe(const Problem& p, int64_t columns) {
  const memory::desc x({p.m, p.k}, data_type(p.x), memory::dims{p.x_stride, 1});
  const memory::desc weight({p.k, columns}, data_type(p.weight), memory::dims{1, p.weight_stride});
  const memory::desc bias({1, columns}, memory::data_type::f32, memory::dims{columns, 1});
  const memory::desc out({p.m, columns}, memory::data_type::f32, memory::dims{p.n, 1});
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const SingleThreaded single;
  if (p.bias) return {dnnl::matmul::desc(x, weight, bias, out), attr, engine()};
  return {dnnl::matmul::desc(x, weight, out), attr, engine()};
}

const char* rejects(const Call& call) {
  if (call.fixed_sum_order) return "sums depend on the number of rows";
  const ops::MatmulCall matmul = ops::matmul_call(call.in.size(), call.attrs());
  if (matmul.weights != 1) return "several weights side by side";
  if (call.in[1].dtype == DType::packed) return "packed weights";
  if (matmul.activation != Activation::none || matmul.residual) return "an epilogue other than bias";
  if (call.strides[0][1] != 1 || call.strides[1][1] != 1) return "elements of a row must stand side by side";
  if (matmul.bias && call.strides[2][0] != 1) return "elements of the bias must stand side by side";
  const Problem p = problem_of(call);
  if (p.m == 0 || p.n == 0 || p.k == 0) return "an empty product";
  if (p.x_stride < p.k || p.weight_stride < p.k) return "rows must not overlap";
  try {
    describe(p, p.n);
  } catch (const dnnl::error&) {
    return "oneDNN has no matmul of these types on this CPU";
  }
  return nullptr;
}

float cost(const Call& call) {
  // A guess, not a measurement: one core with AVX2 does about 40 flops and reads about 8 bytes a nanosecond, and a call
  // takes some 5 us to get going. Good enough, since only the reference competes for dense weights.
  const Problem p = problem_of(call);
  const double flops = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  const double bytes = static_cast<double>(p.n * p.k) * static_cast<double>(element_bytes(p.weight));
  return static_cast<float>(5000 + std::max(flops / 40, bytes / 8) / call.threads);
}

/// One worker's columns.
struct Slice {
  int64_t begin = 0, columns = 0;
  dnnl::matmul primitive;
  dnnl::stream stream;
  memory x, weight, bias, out, scratchpad;
  std::unordered_map<int, memory> args;
  size_t scratch_offset = 0;
};

struct State {
  mutable std::vector<Slice> slices;  // handles are set per run, each slice by its own worker
};

void run(const void* state, const KernelArgs& args) {
  auto& slices = static_cast<const State*>(state)->slices;
  if (args.worker.index >= static_cast<int>(slices.size())) return;
  Slice& s = slices[args.worker.index];
  const Tensor &x = args.in[0], &weight = args.in[1];
  const int64_t weight_bytes = static_cast<int64_t>(element_bytes(weight.desc.dtype));
  s.x.set_data_handle(x.data);
  s.weight.set_data_handle(weight.data + s.begin * weight.strides[0] * weight_bytes);
  if (args.in.size() > 2) s.bias.set_data_handle(args.in[2].as<float>() + s.begin);
  s.out.set_data_handle(args.out.as<float>() + s.begin);
  s.scratchpad.set_data_handle(args.scratch + s.scratch_offset);
  const SingleThreaded single;
  s.primitive.execute(s.stream, s.args);
  s.stream.wait();
}

Slice make_slice(const Problem& p, int64_t begin, int64_t columns) {
  const dnnl::matmul::primitive_desc pd = describe(p, columns);
  auto unbound = [](const memory::desc& desc) { return memory(desc, engine(), nullptr); };
  Slice s = {.begin = begin,
             .columns = columns,
             .primitive = dnnl::matmul(pd),
             .stream = dnnl::stream(engine()),
             .x = unbound(pd.src_desc()),
             .weight = unbound(pd.weights_desc()),
             .bias = {},
             .out = unbound(pd.dst_desc()),
             .scratchpad = unbound(pd.scratchpad_desc()),
             .args = {},
             .scratch_offset = 0};
  s.args = {
      {DNNL_ARG_SRC, s.x}, {DNNL_ARG_WEIGHTS, s.weight}, {DNNL_ARG_DST, s.out}, {DNNL_ARG_SCRATCHPAD, s.scratchpad}};
  if (p.bias) {
    s.bias = unbound(pd.bias_desc());
    s.args.emplace(DNNL_ARG_BIAS, s.bias);
  }
  return s;
}

Bound bind(const Call& call) {
  const Problem p = problem_of(call);
  auto state = std::make_shared<State>();
  Bound bound;
  const int64_t units = (p.n + column_unit - 1) / column_unit;
  const int64_t per_worker = (units + call.threads - 1) / call.threads * column_unit;
  try {
    const SingleThreaded single;
    for (int64_t begin = 0; begin < p.n; begin += per_worker) {
      Slice s = make_slice(p, begin, std::min(per_worker, p.n - begin));
      s.scratch_offset = bound.scratch_bytes;
      bound.scratch_bytes += (s.scratchpad.get_desc().get_size() + line - 1) / line * line;
      state->slices.push_back(std::move(s));
    }
    bound.detail = message("onednn_", name(p.x), "_", name(p.weight), "_f32 ",
                           describe(p, state->slices[0].columns).impl_info_str());
  } catch (const dnnl::error& e) {
    fail("oneDNN matmul (", p.m, ", ", p.k, ") x (", p.n, ", ", p.k, "): ", e.what());
  }
  bound.state = std::move(state);
  bound.run = run;
  return bound;
}

}  // namespace

void register_onednn_kernels() {
  // Refused once oneDNN has run something; the first call in a process is the one that counts.
  if (max_isa() == Isa::avx2) dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2);
  if (max_isa() == Isa::avxvnni) dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2_vnni);
  register_kernel(
      {.name = "matmul_onednn", .op = "matmul", .isa = Isa::avx2, .rejects = rejects, .cost = cost, .bind = bind});
}

}  // namespace nibble
