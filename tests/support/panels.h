// SPDX-License-Identifier: Apache-2.0
// Random packed weights written from the bit picture of quant/format.h, without the library's packer or decoder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tensor/packed.h"
#include "tests/support/reference.h"
#include "tests/support/test_tensor.h"

namespace nibble::test {

struct RandomPanels {
  std::unique_ptr<QuantFormat> format;  ///< "test", with the layout asked for
  TestTensor tensor;                    ///< packed (n, k)
  Doubles values;                       ///< (n, k), what the codes and scales stand for, exactly
  Doubles magnitudes;                   ///< (n, k), |d * u| + |m| (the offset counted as a minimum), for error bounds
};
RandomPanels random_panels(const QuantLayout& layout, int64_t n, int64_t k, uint64_t seed);

/// A spread of layouts: every width of code, zero point, scale type, group, sub-groups and codebooks.
std::vector<QuantLayout> sample_layouts();
std::string to_string(const QuantLayout& layout);

}  // namespace nibble::test
