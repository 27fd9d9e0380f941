// SPDX-License-Identifier: Apache-2.0
// rope_table, rope, embedding, rows, columns, copy, concat and argmax: work per row, columns side by side.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "jit/float_kernels.h"
#include "jit/row_split.h"

#include "jit/vector_math.h"

namespace nibble::jit {

namespace {

struct RopeTableState {
  double factor;
};

// One row costs microseconds, so rows are shared out however few elements they have.
void run_rope_table(const void* opaque, const KernelArgs& args) {
  const double factor = static_cast<const RopeTableState*>(opaque)->factor;
  const int64_t m = args.out.dim(0), pairs = args.in[1].dim(0);
  for (int64_t i = args.worker.index; i < m; i += args.worker.count) {
    const float position = static_cast<float>(args.in[0].as<int32_t>()[i]);
    float* out = args.out.as<float>() + i * args.out.strides[0];
    for (int64_t p = 0; p < pairs; ++p) {
      const float angle = position * args.in[1].as<float>()[p];
      out[p] = static_cast<float>(std::cos(double{angle}) * factor);
      out[pairs + p] = static_cast<float>(std::sin(double{angle}) * factor);
    }
  }
}

void copy_row(const KernelArgs& args, int64_t from, int64_t to, int64_t width) {
  float* out = args.out.as<float>() + to * args.out.strides[0];
  const Tensor& x = args.in[0];
  if (from < 0 || from >= x.dim(0)) {
    std::fill_n(out, width, 0.0f);
  } else {
    std::memcpy(out, x.as<float>() + from * x.strides[0], static_cast<size_t>(width) * sizeof(float));
  }
}

void run_rows(const void*, const KernelArgs& args) {
  const int64_t m = args.out.dim(0), width = args.out.dim(1);
  const Part part = split_rows(args.worker, m, width);
  for (int64_t i = part.row_begin; i < part.row_end; ++i) copy_row(args, args.in[1].as<int32_t>()[i], i, width);
}

void run_embedding(const void*, const KernelArgs& args) {
  const Tensor& table = args.in[1];
  const int64_t m = args.out.dim(0), width = args.out.dim(1);
  const QuantFormat& format = *table.desc.format;
  const Part part = split_rows(args.worker, m, width);
  for (int64_t i = part.row_begin; i < part.row_end; ++i) {
    const int64_t id = args.in[0].as<int32_t>()[i];
    float* out = args.out.as<float>() + i * args.out.strides[0];
    if (id < 0 || id >= table.dim(0)) std::fill_n(out, width, 0.0f);
    else format.dequantize(format, table.data, table.dim(0), width, id, 1, out);
  }
}

/// Elements before row r of a tensor's rows of its last dimension.
int64_t row_offset(const Tensor& t, int64_t r) {
  int64_t offset = 0;
  for (int d = t.desc.shape.rank() - 2; d >= 0; --d) {
    offset += r % t.dim(d) * t.strides[d];
    r /= t.dim(d);
  }
  return offset;
}

/// This worker's rows of x into those of `out`, of the same shape.
void copy_rows(const Worker& worker, const Tensor& x, const Tensor& out) {
  const auto size = static_cast<int64_t>(element_bytes(x.desc.dtype));
  const RowView view = row_view(x);
  const Part part = split_rows(worker, view.rows, view.columns);
  for (int64_t r = part.row_begin; r < part.row_end; ++r)
    std::memcpy(out.data + row_offset(out, r) * size, x.data + row_offset(x, r) * size,
                static_cast<size_t>(view.columns * size));
}

void run_copy(const void*, const KernelArgs& args) { copy_rows(args.worker, args.in[0], args.out); }

void run_concat(const void*, const KernelArgs& args) {
  const auto wanted = args.attrs->i("dim");
  const int dim = static_cast<int>(wanted < 0 ? wanted + args.out.desc.shape.rank() : wanted);
  Tensor part = args.out;
  for (const Tensor& x : args.in) {
    part.desc.shape[dim] = x.dim(dim);
    copy_rows(args.worker, x, part);
    part.data += x.dim(dim) * part.strides[dim] * static_cast<int64_t>(element_bytes(x.desc.dtype));
  }
}

struct RopeState {
  int64_t head_dim, pairs, begin;
  bool interleaved;
};

NIBBLE_AVX2_BEGIN

/// Pairs (i, i + pairs) of one head.
void rotate_halves(const float* x, const float* table, int64_t pairs, float* y) {
  for (int64_t p = 0; p < pairs; p += 8) {
    const int64_t count = pairs - p;
    const __m256 cosine = vec::load(table + p, count), sine = vec::load(table + pairs + p, count);
    const __m256 a = vec::load(x + p, count), b = vec::load(x + pairs + p, count);
    vec::store(y + p, count, _mm256_fmsub_ps(a, cosine, _mm256_mul_ps(b, sine)));
    vec::store(y + pairs + p, count, _mm256_fmadd_ps(b, cosine, _mm256_mul_ps(a, sine)));
  }
}

/// Pairs (2i, 2i + 1) of one head.
void rotate_interleaved(const float* x, const float* table, int64_t pairs, float* y) {
  const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
  for (int64_t p = 0; p < pairs; p += 4) {
    const int64_t count = 2 * (pairs - p);
    const __m256i half = vec::first_lanes(std::min<int64_t>(pairs - p, 4));
    const __m256 cosine = _mm256_permutevar8x32_ps(_mm256_maskload_ps(table + p, half), twice);
    const __m256 sine = _mm256_permutevar8x32_ps(_mm256_maskload_ps(table + pairs + p, half), twice);
    const __m256 v = vec::load(x + 2 * p, count), swapped = _mm256_permute_ps(v, 0xb1);
    vec::store(y + 2 * p, count, _mm256_fmaddsub_ps(v, cosine, _mm256_mul_ps(swapped, sine)));
  }
}

void run_rope(const void* opaque, const KernelArgs& args) {
  const RopeState& state = *static_cast<const RopeState*>(opaque);
  const Tensor &x = args.in[0], &table = args.in[1];
  const int64_t heads = x.dim(1) / state.head_dim, begin = state.begin, end = begin + 2 * state.pairs;
  const Part part = split_rows(args.worker, x.dim(0) * heads, state.head_dim);
  for (int64_t item = part.row_begin; item < part.row_end; ++item) {
    const int64_t row = item / heads, column = item % heads * state.head_dim;
    const float* from = x.as<float>() + row * x.strides[0] + column;
    const float* angles = table.as<float>() + row * table.strides[0];
    float* to = args.out.as<float>() + row * args.out.strides[0] + column;
    std::memcpy(to, from, static_cast<size_t>(begin) * sizeof(float));
    if (state.interleaved) rotate_interleaved(from + begin, angles, state.pairs, to + begin);
    else rotate_halves(from + begin, angles, state.pairs, to + begin);
    std::memcpy(to + end, from + end, static_cast<size_t>(state.head_dim - end) * sizeof(float));
  }
}

int32_t argmax(const float* x, int64_t n) {
  const __m256 least = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
  __m256 most[4] = {least, least, least, least};
  int64_t j = 0;
  // NaN in the first operand leaves the second.
  for (; j + 32 <= n; j += 32) {
    for (int i = 0; i < 4; ++i) most[i] = _mm256_max_ps(_mm256_loadu_ps(x + j + 8 * i), most[i]);
  }
  float max = vec::max(_mm256_max_ps(_mm256_max_ps(most[0], most[1]), _mm256_max_ps(most[2], most[3])));
  for (; j < n; ++j) max = x[j] > max ? x[j] : max;
  for (j = 0; j + 8 <= n; j += 8) {
    const int equal = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + j), _mm256_set1_ps(max), _CMP_EQ_OQ));
    if (equal) return static_cast<int32_t>(j + __builtin_ctz(static_cast<unsigned>(equal)));
  }
  for (; j < n; ++j) {
    if (x[j] == max) return static_cast<int32_t>(j);
  }
  return 0;
}

/// y[j] = x[index[j]], 0 where the index is outside of [0, n).
void gather(const float* x, int64_t n, const int32_t* index, int64_t count, float* y) {
  const __m256i size = _mm256_set1_epi32(static_cast<int32_t>(n)), none = _mm256_set1_epi32(-1);
  int64_t j = 0;
  for (; j + 8 <= count; j += 8) {
    const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index + j));
    const __m256i known = _mm256_and_si256(_mm256_cmpgt_epi32(size, at), _mm256_cmpgt_epi32(at, none));
    _mm256_storeu_ps(y + j, _mm256_mask_i32gather_ps(_mm256_setzero_ps(), x, at, _mm256_castsi256_ps(known), 4));
  }
  for (; j < count; ++j) y[j] = index[j] >= 0 && index[j] < n ? x[index[j]] : 0;
}

void run_columns(const void*, const KernelArgs& args) {
  const Tensor &x = args.in[0], &out = args.out;
  const Part part = split_elements(args.worker, out.dim(0), out.dim(1));
  for (int64_t i = part.row_begin; i < part.row_end; ++i) {
    gather(x.as<float>() + i * x.strides[0], x.dim(1), args.in[1].as<int32_t>() + part.column_begin,
           part.column_end - part.column_begin, out.as<float>() + i * out.strides[0] + part.column_begin);
  }
}

void run_argmax(const void*, const KernelArgs& args) {
  const RowView x = row_view(args.in[0]);
  const Part part = split_rows(args.worker, x.rows, x.columns);
  for (int64_t r = part.row_begin; r < part.row_end; ++r) {
    args.out.as<int32_t>()[r] = argmax(args.in[0].as<float>() + r * x.stride, x.columns);
  }
}

NIBBLE_AVX2_END

bool contiguous(const Call& call, size_t i) { return call.strides[i] == contiguous_strides(call.in[i].shape); }

const char* rejects_first(const Call& call) { return rejects_uneven(call, 1); }
const char* rejects_rope(const Call& call) { return rejects_uneven(call, 2); }
const char* rejects_rope_table(const Call& call) {
  return contiguous(call, 0) && contiguous(call, 1) ? nullptr : "inputs must be contiguous";
}
const char* rejects_rows(const Call& call) {
  return contiguous(call, 1) ? rejects_uneven(call, 1) : "the index must be contiguous";
}
const char* rejects_embedding(const Call& call) {
  if (call.in[1].dtype != DType::packed) return "the table must be packed";
  return contiguous(call, 0) ? nullptr : "ids must be contiguous";
}
const char* rejects_copy(const Call& call) {
  const TensorDesc& x = call.in[0];
  if (x.dtype != call.out.dtype) return "converts nothing";
  if (x.shape.rank() == 0 || (x.shape[-1] > 1 && call.strides[0][-1] != 1)) return "columns must stand side by side";
  return nullptr;
}
const char* rejects_concat(const Call& call) {
  for (size_t i = 0; i < call.in.size(); ++i)
    if (call.in[i].shape[-1] > 1 && call.strides[i][-1] != 1) return "columns must stand side by side";
  return nullptr;
}
float cost(const Call& call) { return row_cost(call); }
float cost_of_result(const Call& call) {
  return 100 + 4 * static_cast<float>(call.out.shape.elements()) / static_cast<float>(call.threads);
}

template <void (*run)(const void*, const KernelArgs&)>
Bound bind(const Call&) {
  return {run, nullptr, 0, "f32"};
}
Bound bind_rope(const Call& call) {
  const bool interleaved = call.attrs().s("pairing", "halves") == "interleaved";
  auto state = std::make_shared<RopeState>(
      RopeState{call.attrs().i("head_dim"), call.in[1].shape[1] / 2, call.attrs().i("begin", 0), interleaved});
  return {run_rope, std::move(state), 0, "f32"};
}
Bound bind_rope_table(const Call& call) {
  return {run_rope_table, std::make_shared<RopeTableState>(RopeTableState{call.attrs().f("attention_factor", 1)}), 0,
          "double"};
}

}  // namespace

void register_rows() {
  register_kernel({"rope_table_avx2", "rope_table", Isa::avx2, rejects_rope_table, cost_of_result, bind_rope_table});
  register_kernel({"rope_avx2", "rope", Isa::avx2, rejects_rope, cost, bind_rope});
  register_kernel({"embedding_avx2", "embedding", Isa::avx2, rejects_embedding, cost_of_result, bind<run_embedding>});
  register_kernel({"rows_avx2", "rows", Isa::avx2, rejects_rows, cost_of_result, bind<run_rows>});
  register_kernel({"columns_avx2", "columns", Isa::avx2, rejects_rows, cost_of_result, bind<run_columns>});
  register_kernel({"copy_avx2", "copy", Isa::avx2, rejects_copy, cost, bind<run_copy>});
  register_kernel({"concat_avx2", "concat", Isa::avx2, rejects_concat, cost_of_result, bind<run_concat>});
  register_kernel({"argmax_avx2", "argmax", Isa::avx2, rejects_first, cost, bind<run_argmax>});
}

}  // namespace nibble::jit
