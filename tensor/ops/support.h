// SPDX-License-Identifier: Apache-2.0
// What the references share: element access by type and stride, input checks, activation functions.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "tensor/check.h"
#include "tensor/op.h"
#include "tensor/tensor.h"

namespace nibble::ops {

inline bool is_float(DType type) { return type == DType::f32 || type == DType::f16 || type == DType::bf16; }

/// The element `offset` elements from the start; exact in double for every type but packed.
double load(const Tensor& t, int64_t offset);
/// Rounds to nearest even: floats through f32, integers saturate, NaN becomes integer 0.
void store(const Tensor& t, int64_t offset, double value);
/// Exactly the value of a float element.
float load_float(const Tensor& t, int64_t offset);

/// A tensor as rows of its innermost dimension (a rank 0 tensor is one row of one).
int64_t row_count(const Shape& shape);
int64_t row_size(const Shape& shape);
/// Offset in elements of the first element of row `row`, counted row-major over the outer dimensions.
int64_t row_offset(const Tensor& t, int64_t row);
inline int64_t row_step(const Tensor& t) { return t.strides.rank() == 0 ? 0 : t.strides[-1]; }

/// Copies every element of src to the same place of dst (same shape), byte for byte when the types are equal.
void copy_elements(const Tensor& src, const Tensor& dst);

/// Throw Error unless the inputs are as described; `what` names the input ("x", "weight").
void check_count(std::span<const TensorDesc> in, size_t least, size_t most);
void check_float(const TensorDesc& desc, std::string_view what);
void check_dtype(const TensorDesc& desc, DType dtype, std::string_view what);
void check_rank(const TensorDesc& desc, int rank, std::string_view what);
void check_shape(const TensorDesc& desc, const Shape& shape, std::string_view what);
/// x f (m, n) and index i32 (r): ops that choose rows or columns.
void check_choice(std::span<const TensorDesc> in);

/// `dim` counted from the front, or from the back when negative. Throws Error outside the rank.
int normalized_dim(int64_t dim, const Shape& shape);

enum class Activation : unsigned char { none, silu, gelu, gelu_tanh, relu };
/// "" is none. Throws Error listing the names.
Activation parse_activation(std::string_view name);
double activate(Activation activation, double x);

}  // namespace nibble::ops
