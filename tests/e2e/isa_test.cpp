// SPDX-License-Identifier: Apache-2.0
// A whole model gives the same bits on every instruction set, whatever its weights are quantised to.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "jit/jit.h"
#include "models/decoder.h"
#include "quant/format.h"
#include "tests/support/tiny_model.h"

namespace nibble::models {
namespace {

using test::GgufWriter;

/// The model with every matrix whose rows are whole blocks in `type`, the other tensors as they are.
GgufWriter quantised(const GgufWriter& model, const quant::BlockType& type) {
  GgufWriter out;
  out.values = model.values;
  for (const GgufWriter::TensorInfo& tensor : model.tensors) {
    size_t count = 1;
    for (uint64_t size : tensor.sizes) count *= size;
    std::vector<float> values(count);
    std::memcpy(values.data(), model.data.data() + tensor.offset, count * sizeof(float));
    const std::vector<uint64_t> shape(tensor.sizes.rbegin(), tensor.sizes.rend());
    const auto block = static_cast<size_t>(type.block_elements);
    if (shape.size() != 2 || shape[1] % block != 0) {
      out.tensor(tensor.name, shape, values);
      continue;
    }
    std::string bytes(count / block * type.block_bytes, 0);
    for (size_t i = 0; i < count / block; ++i) {
      type.encode(values.data() + i * block, reinterpret_cast<std::byte*>(bytes.data()) + i * type.block_bytes);
    }
    out.tensor(tensor.name, shape, type.gguf_id, bytes);
  }
  return out;
}

/// Logits of a prompt of 19 tokens and three single ones.
std::vector<float> logits_on(const std::shared_ptr<const Model>& model, Isa isa) {
  Engine engine(model, {.threads = 2, .context = 64, .max_isa = isa});
  std::vector<Row> rows;
  for (int32_t i = 0; i < 22; ++i) rows.push_back({(i * 37 + 1) % model->config.vocab, i, 0, true});
  std::vector<float> all;
  const auto add = [&](std::span<const Row> part) {
    const std::span<const float> logits = engine.run(part);
    all.insert(all.end(), logits.begin(), logits.end());
  };
  add(std::span(rows).first(19));
  for (const Row& row : std::span(rows).subspan(19)) add({&row, 1});
  return all;
}

TEST(Isas, LogitsAreTheSameBits) {
  if (!usable(Isa::avx2)) GTEST_SKIP() << "kernels are capped below avx2";
  jit::register_kernels();
  const test::TempDir dir;
  const GgufWriter tiny = test::tiny_llama(160);
  for (const quant::BlockType* type : quant::all_block_types()) {
    if (!type->encode) continue;
    const std::string path = dir / (std::string(type->name) + ".gguf");
    quantised(tiny, *type).save(path);
    const auto model = Model::load(path, {.threads = 1, .need_tokenizer = false, .arch = {}, .progress = {}});
    const std::vector<float> expected = logits_on(model, Isa::avx2);
    ASSERT_TRUE(std::ranges::all_of(expected, [](float x) { return std::isfinite(x); })) << type->name;
    for (Isa isa : {Isa::avxvnni, Isa::avx512vnni, Isa::amxint8}) {
      if (!usable(isa)) continue;
      EXPECT_EQ(expected, logits_on(model, isa)) << type->name << " on " << name(isa);
    }
  }
}

/// No node of a model that has kernels runs a reference.
TEST(Isas, EveryNodeHasAKernel) {
  if (!usable(Isa::avx2)) GTEST_SKIP() << "kernels are capped below avx2";
  jit::register_kernels();
  const test::TempDir dir;
  for (const quant::BlockType* type : quant::all_block_types()) {
    if (!type->encode) continue;
    quantised(test::tiny_llama(160), *type).save(dir / "tiny.gguf");
    Engine engine(Model::load(dir / "tiny.gguf", {.threads = 1, .need_tokenizer = false, .arch = {}, .progress = {}}),
                  {.threads = 2, .context = 64, .max_isa = Isa::avx2});
    for (int rows : {1, 19})
      for (const Plan::StepName& step : engine.plan(rows, 1).steps())
        EXPECT_NE(step.kernel, "reference")
            << type->name << ", " << rows << " rows: " << step.node << " (" << step.op << ")";
  }
}

}  // namespace
}  // namespace nibble::models
