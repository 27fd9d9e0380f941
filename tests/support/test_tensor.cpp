// SPDX-License-Identifier: Apache-2.0
#include "tests/support/test_tensor.h"

#include <atomic>
#include <cstring>
#include <stdexcept>

#include "tensor/op.h"

namespace nibble::test {

namespace {

void put(const Tensor& t, int64_t offset, float value) {
  switch (t.desc.dtype) {
    case DType::f32: t.as<float>()[offset] = value; return;
    case DType::f16: t.as<uint16_t>()[offset] = f32_to_f16(value); return;
    case DType::bf16: t.as<uint16_t>()[offset] = f32_to_bf16(value); return;
    default: throw std::runtime_error("TestTensor: expected a float type");
  }
}

float get(const Tensor& t, int64_t offset) {
  switch (t.desc.dtype) {
    case DType::f32: return t.as<float>()[offset];
    case DType::f16: return f16_to_f32(t.as<uint16_t>()[offset]);
    case DType::bf16: return bf16_to_f32(t.as<uint16_t>()[offset]);
    default: throw std::runtime_error("TestTensor: expected a float type");
  }
}

int64_t offset_of(const Tensor& t, int64_t index) {
  int64_t offset = 0;
  for (int d = t.desc.shape.rank() - 1; d >= 0; --d) {
    offset += index % t.desc.shape[d] * t.strides[d];
    index /= t.desc.shape[d];
  }
  return offset;
}

}  // namespace

TestTensor::TestTensor(const TensorDesc& desc) : memory_((bytes(desc) + 63) / 64 + 1) {
  tensor_ = Tensor(desc, memory_.data());
}

TestTensor::TestTensor(const Shape& shape, DType dtype, std::span<const float> values)
    : TestTensor(TensorDesc{shape, dtype, nullptr}) {
  if (static_cast<int64_t>(values.size()) != shape.elements()) throw std::runtime_error("TestTensor: wrong count");
  for (size_t i = 0; i < values.size(); ++i) put(tensor_, static_cast<int64_t>(i), values[i]);
}

TestTensor::TestTensor(const Shape& shape, std::span<const int32_t> values)
    : TestTensor(TensorDesc{shape, DType::i32, nullptr}) {
  if (static_cast<int64_t>(values.size()) != shape.elements()) throw std::runtime_error("TestTensor: wrong count");
  if (!values.empty()) std::memcpy(tensor_.data, values.data(), values.size_bytes());
}

TestTensor TestTensor::strided() const {
  TestTensor result;
  const Shape& shape = tensor_.desc.shape;
  const size_t size = element_bytes(tensor_.desc.dtype);
  Shape strides = shape;
  int64_t step = 2;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    strides[d] = step;
    step *= shape[d] + 1;
  }
  result.memory_.resize(static_cast<size_t>(step) * size / 64 + 1);
  std::memset(result.memory_.data(), tensor_.desc.dtype == DType::i32 ? 0x7e : 0xff, result.memory_.size() * 64);
  result.tensor_ = tensor_;
  result.tensor_.strides = strides;
  result.tensor_.data = result.memory_.data()->bytes;
  for (int64_t i = 0; i < shape.elements(); ++i) {
    std::memcpy(result.tensor_.data + static_cast<size_t>(offset_of(result.tensor_, i)) * size,
                tensor_.data + static_cast<size_t>(offset_of(tensor_, i)) * size, size);
  }
  return result;
}

std::vector<float> TestTensor::floats() const {
  std::vector<float> out;
  for (int64_t i = 0; i < tensor_.desc.shape.elements(); ++i) out.push_back(get(tensor_, offset_of(tensor_, i)));
  return out;
}

std::vector<int32_t> TestTensor::ints() const {
  if (tensor_.desc.dtype != DType::i32) throw std::runtime_error("TestTensor: expected i32");
  std::vector<int32_t> out;
  for (int64_t i = 0; i < tensor_.desc.shape.elements(); ++i) {
    out.push_back(tensor_.as<int32_t>()[offset_of(tensor_, i)]);
  }
  return out;
}

std::vector<double> values(const Tensor& t) {
  if (t.desc.dtype == DType::packed) {
    std::vector<float> out(static_cast<size_t>(t.desc.shape.elements()));
    t.desc.format->dequantize(*t.desc.format, t.data, t.dim(0), t.dim(1), 0, t.dim(0), out.data());
    return {out.begin(), out.end()};
  }
  std::vector<double> out;
  for (int64_t i = 0; i < t.desc.shape.elements(); i++) {
    const int64_t at = offset_of(t, i);
    switch (t.desc.dtype) {
      case DType::f32: out.push_back(t.as<float>()[at]); break;
      case DType::f16: out.push_back(f16_to_f32(t.as<uint16_t>()[at])); break;
      case DType::bf16: out.push_back(bf16_to_f32(t.as<uint16_t>()[at])); break;
      case DType::i32: out.push_back(t.as<int32_t>()[at]); break;
      case DType::i8: out.push_back(t.as<int8_t>()[at]); break;
      case DType::u8: out.push_back(t.as<uint8_t>()[at]); break;
      case DType::packed: break;
    }
  }
  return out;
}

TestTensor run_reference(std::string_view op_name, std::span<const Tensor> in, const Attrs& attrs) {
  std::vector<TensorDesc> descs;
  for (const Tensor& t : in) descs.push_back(t.desc);
  TestTensor out(op(op_name).infer(descs, attrs));
  run_reference_into(op_name, in, out, attrs);
  return out;
}

void run_reference_into(std::string_view op_name, std::span<const Tensor> in, const Tensor& out, const Attrs& attrs) {
  std::atomic<int64_t> counters[4] = {};
  KernelArgs args;
  args.in = in;
  args.out = out;
  args.attrs = &attrs;
  args.counters = counters;
  op(op_name).reference(args);
}

}  // namespace nibble::test
