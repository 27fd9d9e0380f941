// SPDX-License-Identifier: Apache-2.0
// Every piece against a plain loop over the rows of the tensor.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "models/io/coded_matrix.h"
#include "models/pieces.h"
#include "models/weight_part.h"
#include "quant/format.h"
#include "tensor/check.h"

namespace nibble::models {
namespace {

/// 6 heads over 2 groups of 3, of 8 rows each, 6 of them rotated.
Config config() {
  Config c;
  c.heads = 6, c.kv_heads = 2, c.head_dim = 8, c.rope_dim = 6;
  return c;
}

const quant::BlockType& block_type(std::string_view name) {
  for (const quant::BlockType* type : quant::all_block_types())
    if (type->name == name) return *type;
  fail("no block type ", name);
}

/// A tensor of random blocks of a type.
struct Source {
  StoredTensor tensor;
  std::vector<std::byte> bytes;
  std::vector<float> values;

  Source(std::string_view type, Shape shape) {
    tensor.name = "t";
    tensor.type = &block_type(type);
    tensor.shape = shape;
    const auto blocks = static_cast<size_t>(shape.elements() / tensor.type->block_elements);
    bytes.resize(blocks * tensor.type->block_bytes);
    tensor.bytes = bytes.size();
    std::vector<float> in(static_cast<size_t>(shape.elements()));
    for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>((i * 2654435761u >> 8) % 2003) / 1001.0f - 1;
    for (size_t i = 0; i < blocks; ++i)
      tensor.type->encode(in.data() + i * static_cast<size_t>(tensor.type->block_elements),
                          bytes.data() + i * tensor.type->block_bytes);
    values.resize(in.size());
    quant::dequantize_blocks(*tensor.type, bytes.data(), shape.elements(), values.data());
  }
};

/// The weight's values: packed (in pieces of 16 rows) and read back, or read as a vector.
std::vector<float> values_of(const WeightPart& part, const std::byte* data) {
  const int64_t n = part.slice.rows(), k = part.slice.columns;
  std::vector<float> out(static_cast<size_t>(n * std::max<int64_t>(k, 1)));
  if (part.slice.vector()) {
    read_vector(part, data, out.data());
    return out;
  }
  const QuantFormat& format = part.exact_format();
  std::vector<std::byte> packed(format.bytes(format, n, k));
  for (int64_t row = 0; row < n; row += 16)
    pack_part(part, data, format, row, std::min<int64_t>(16, n - row), packed.data());
  format.dequantize(format, packed.data(), n, k, 0, n, out.data());
  return out;
}

struct Case {
  std::string pieces;
  int64_t source_rows;
  std::vector<int64_t> rows;  ///< of the source, in the order of the weight
};
void PrintTo(const Case& test, std::ostream* out) { *out << test.pieces; }

template <class Rule>
std::vector<int64_t> rows_where(int64_t source_rows, const Rule& rule) {
  std::vector<int64_t> rows;
  for (int64_t r = 0; r < source_rows; ++r)
    if (rule(r)) rows.push_back(r);
  return rows;
}

std::vector<Case> cases() {
  // [q; k; v] of 48, 16 and 16 rows; groups of [q q q k v], 40 rows each
  std::vector<Case> all = {
      {"q", 80, rows_where(80, [](int64_t r) { return r < 48; })},
      {"k", 80, rows_where(80, [](int64_t r) { return r >= 48 && r < 64; })},
      {"v", 80, rows_where(80, [](int64_t r) { return r >= 64; })},
      {"group_q", 80, rows_where(80, [](int64_t r) { return r % 40 < 24; })},
      {"group_k", 80, rows_where(80, [](int64_t r) { return r % 40 >= 24 && r % 40 < 32; })},
      {"group_v", 80, rows_where(80, [](int64_t r) { return r % 40 >= 32; })},
      {"first_half", 38, rows_where(38, [](int64_t r) { return r < 19; })},
      {"second_half", 38, rows_where(38, [](int64_t r) { return r >= 19; })},
      {"even", 38, rows_where(38, [](int64_t r) { return r % 2 == 0; })},
      {"odd", 38, rows_where(38, [](int64_t r) { return r % 2 == 1; })},
      {"after_two", 21, rows_where(21, [](int64_t r) { return r >= 2; })},
      {"before_rope", 19, rows_where(19, [](int64_t r) { return r < 13; })},
      {"rope", 19, rows_where(19, [](int64_t r) { return r >= 13; })},
      {"second_half,odd", 40, rows_where(40, [](int64_t r) { return r >= 20 && (r - 20) % 2 == 1; })},
      {"", 21, rows_where(21, [](int64_t) { return true; })},
  };
  const std::vector<int64_t> halves = {0, 2, 4, 1, 3, 5, 6, 7}, pairs = {0, 3, 1, 4, 2, 5, 6, 7};
  Case to_halves{"to_halves", 16, {}}, to_pairs{"to_pairs", 16, {}}, k_to_halves{"k,to_halves", 80, {}};
  for (int64_t head : {0, 8})
    for (size_t i = 0; i < 8; ++i) {
      to_halves.rows.push_back(head + halves[i]);
      to_pairs.rows.push_back(head + pairs[i]);
      k_to_halves.rows.push_back(48 + head + halves[i]);
    }
  all.insert(all.end(), {to_halves, to_pairs, k_to_halves});
  return all;
}

class PieceRows : public testing::TestWithParam<Case> {};

TEST_P(PieceRows, ChooseRowsOfEveryType) {
  const Case& test = GetParam();
  constexpr int64_t k = 64;
  for (const char* type : {"f32", "f16", "bf16", "q4_0", "q8_0"}) {
    const Source source(type, {test.source_rows, k});
    const WeightPart part{&source.tensor, make_slice(source.tensor.shape, test.pieces, 0, config(), "t")};
    std::vector<float> want;
    for (int64_t row : test.rows)
      want.insert(want.end(), source.values.begin() + row * k, source.values.begin() + (row + 1) * k);
    EXPECT_EQ(values_of(part, source.bytes.data()), want) << type;
  }
}

TEST_P(PieceRows, ChooseColumnsOfATransposedMatrix) {
  const Case& test = GetParam();
  constexpr int64_t k = 35;
  const std::string pieces = test.pieces.empty() ? "transpose" : "transpose," + test.pieces;
  for (const char* type : {"f32", "f16", "bf16"}) {
    const Source source(type, {k, test.source_rows});
    const WeightPart part{&source.tensor, make_slice(source.tensor.shape, pieces, 0, config(), "t")};
    std::vector<float> want;
    for (int64_t row : test.rows)
      for (int64_t j = 0; j < k; ++j) want.push_back(source.values[static_cast<size_t>(j * test.source_rows + row)]);
    EXPECT_EQ(values_of(part, source.bytes.data()), want) << type;
  }
}

TEST_P(PieceRows, ChooseElementsOfTheBias) {
  const Case& test = GetParam();
  const Source source("f32", {test.source_rows});
  for (std::string pieces : {test.pieces, "transpose," + test.pieces, "plus_one," + test.pieces}) {
    if (pieces.ends_with(',')) pieces.pop_back();
    const WeightPart part{&source.tensor, make_slice(source.tensor.shape, pieces, 0, config(), "t")};
    std::vector<float> want;
    for (int64_t row : test.rows)
      want.push_back(source.values[static_cast<size_t>(row)] + (pieces.starts_with("plus_one") ? 1.0f : 0.0f));
    EXPECT_EQ(values_of(part, source.bytes.data()), want) << pieces;
  }
}

INSTANTIATE_TEST_SUITE_P(All, PieceRows, testing::ValuesIn(cases()), [](const auto& test) {
  std::string name = test.param.pieces.empty() ? "none" : test.param.pieces;
  std::replace(name.begin(), name.end(), ',', '_');
  return name;
});

TEST(Pieces, ExpertsAreTheMatricesOfACube) {
  constexpr int64_t count = 3, n = 20, k = 32;
  for (const char* type : {"f32", "q4_0"}) {
    const Source cube(type, {count, n, k});
    ASSERT_EQ(slice_count(cube.tensor.shape, "experts", config(), "t"), count);
    for (int64_t e = 0; e < count; ++e) {
      const WeightPart part{&cube.tensor, make_slice(cube.tensor.shape, "experts,odd", e, config(), "t")};
      std::vector<float> want;
      for (int64_t row = 1; row < n; row += 2)
        want.insert(want.end(), cube.values.begin() + (e * n + row) * k, cube.values.begin() + (e * n + row + 1) * k);
      EXPECT_EQ(values_of(part, cube.bytes.data()), want) << type << ", expert " << e;
    }
  }
}

TEST(Pieces, ExpertsCanBeTransposedAndHaveBiases) {
  constexpr int64_t count = 3, n = 20, k = 7;
  const Source cube("bf16", {count, k, n}), biases("f32", {count, n});
  for (int64_t e = 0; e < count; ++e) {
    const WeightPart part{&cube.tensor, make_slice(cube.tensor.shape, "experts,transpose,even", e, config(), "t")};
    const WeightPart bias{&biases.tensor, make_slice(biases.tensor.shape, "experts,transpose,even", e, config(), "t")};
    std::vector<float> want, want_bias;
    for (int64_t row = 0; row < n; row += 2) {
      want_bias.push_back(biases.values[static_cast<size_t>(e * n + row)]);
      for (int64_t j = 0; j < k; ++j) want.push_back(cube.values[static_cast<size_t>((e * k + j) * n + row)]);
    }
    EXPECT_EQ(values_of(part, cube.bytes.data()), want) << "expert " << e;
    EXPECT_EQ(values_of(bias, biases.bytes.data()), want_bias) << "expert " << e;
  }
}

/// `source` has groups of 2 rows of k and 8 of v, one for each of 6 heads.
void expect_latent_matrices(const StoredTensor& tensor, const std::vector<std::byte>& bytes,
                            const std::vector<float>& values, int64_t width) {
  ASSERT_EQ(slice_count(tensor.shape, "latent_k", config(), "t"), 6);
  ASSERT_EQ(slice_count(tensor.shape, "latent_v", config(), "t"), 6);
  for (int64_t head = 0; head < 6; ++head) {
    const WeightPart k{&tensor, make_slice(tensor.shape, "latent_k", head, config(), "t")};
    const WeightPart v{&tensor, make_slice(tensor.shape, "latent_v", head, config(), "t")};
    check_part(k, "t");
    check_part(v, "t");
    const float* group = values.data() + head * 10 * width;
    std::vector<float> turned;
    for (int64_t column = 0; column < width; ++column)
      for (int64_t row = 0; row < 2; ++row) turned.push_back(group[row * width + column]);
    EXPECT_EQ(k.slice.shape(), (Shape{width, 2}));
    EXPECT_EQ(values_of(k, bytes.data()), turned) << tensor.type_name() << ", head " << head;
    EXPECT_EQ(values_of(v, bytes.data()), std::vector<float>(group + 2 * width, group + 10 * width))
        << tensor.type_name() << ", head " << head;
  }
}

TEST(Pieces, LatentKeysAndValuesAreMatricesOfHeadsWhateverTheType) {
  constexpr int64_t width = 64;
  for (const char* type : {"f32", "bf16", "q4_0", "q8_0"}) {
    const Source source(type, {60, width});
    expect_latent_matrices(source.tensor, source.bytes, source.values, width);
  }
  const Source plain("f32", {60, width});
  StoredTensor tensor = plain.tensor;
  tensor.type = nullptr;
  CodedMatrix coded;
  coded.n = 60, coded.k = width;
  coded.format = &quant::find_format("f32");
  coded.floats = [&](int64_t row, int64_t rows, float* out) {
    std::copy_n(plain.values.begin() + row * width, rows * width, out);
  };
  tensor.coded = std::make_shared<CodedMatrix>(coded);
  expect_latent_matrices(tensor, {}, plain.values, width);
}

TEST(Pieces, UnitHeadDividesRowsByTheirLengthIfTheConfigurationSaysSo) {
  constexpr int64_t n = 20, k = 7;
  const Source source("f32", {n, k});
  for (bool unit : {false, true}) {
    Config c = config();
    c.unit_head = unit;
    const WeightPart part{&source.tensor, make_slice(source.tensor.shape, "unit_head", 0, c, "t")};
    const std::vector<float> got = values_of(part, source.bytes.data());
    for (int64_t row = 0; row < n; ++row) {
      double squares = 0;
      for (int64_t i = row * k; i < (row + 1) * k; ++i) squares += double{source.values[i]} * source.values[i];
      for (int64_t i = row * k; i < (row + 1) * k; ++i)
        EXPECT_FLOAT_EQ(got[i], unit ? static_cast<float>(source.values[i] / std::sqrt(squares)) : source.values[i])
            << row;
    }
  }
}

TEST(Pieces, RefuseWhatDoesNotFit) {
  const auto refused = [](const Shape& shape, std::string_view pieces, std::vector<std::string> mentions) {
    try {
      make_slice(shape, pieces, 0, config(), "a.gguf: tensor t");
      ADD_FAILURE() << pieces << " was taken";
    } catch (const Error& error) {
      mentions.push_back("a.gguf: tensor t");
      for (const std::string& text : mentions)
        EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what() << "\nlacks " << text;
    }
  };
  refused({81, 8}, "q", {"'q'", "80", "81"});
  refused({79, 8}, "group_v", {"'group_v'", "80", "79"});
  refused({7, 8}, "even", {"'even'", "7"});
  refused({7, 8}, "first_half", {"'first_half'", "7"});
  refused({20, 8}, "to_halves", {"'to_halves'", "20"});
  refused({8, 8}, "plus_one", {"'plus_one'", "(8, 8)"});
  refused({80, 8}, "q,transpose", {"'transpose'"});
  refused({80, 8}, "middle", {"'middle'", "first_half"});
  refused({2, 80, 8}, "q", {"(2, 80, 8)"});
  refused({80}, "experts", {"(80)"});
  refused({59, 8}, "latent_k", {"'latent_k'", "60", "59"});
  refused({60}, "latent_v", {"'latent_v'", "(60)"});
  refused({6, 8}, "rope", {"'rope'", "6"});
  const Source quantised("q4_0", {64, 32});
  EXPECT_THROW(check_part({&quantised.tensor, make_slice(quantised.tensor.shape, "transpose", 0, config(), "t")}, "t"),
               Error);
}

TEST(Pieces, RowMakesAMatrixOfAVector) {
  EXPECT_EQ(make_slice({24}, "row", 0, config(), "t").shape(), (Shape{1, 24}));
  EXPECT_EQ(make_slice({1, 24}, "row", 0, config(), "t").shape(), (Shape{1, 24}));
  EXPECT_THROW(make_slice({24}, "odd,row", 0, config(), "t"), Error);
}

TEST(Pieces, EveryOneIsTested) {
  std::set<std::string> tested = {"row", "experts", "transpose", "plus_one", "unit_head", "latent_k", "latent_v"};
  for (const Case& test : cases()) tested.insert(test.pieces);
  for (std::string_view piece : all_pieces()) EXPECT_TRUE(tested.contains(std::string(piece))) << piece;
}

}  // namespace
}  // namespace nibble::models
