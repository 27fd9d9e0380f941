// SPDX-License-Identifier: Apache-2.0
#include "models/io/schemes/module.h"

#include <algorithm>

#include "tensor/check.h"

namespace nibble::models {

void ModulePart::expect(const Shape& shape) const {
  bool same = tensor->shape.rank() == shape.rank();
  for (int i = 0; same && i < shape.rank(); ++i)
    same = shape[i] == -1 ? tensor->shape[i] > 0 : shape[i] == tensor->shape[i];
  NIBBLE_CHECK(same, where, ": expected shape ", to_string(shape), ", found ", to_string(tensor->shape));
}

void ModulePart::floats(int64_t first, int64_t count, float* out) const {
  to_floats(*tensor, data + static_cast<uint64_t>(first) * tensor->block_bytes(), count, out);
}

int64_t group_size(const Metadata& config, std::string_view keys) {
  constexpr int64_t largest = int64_t{1} << 31;
  const int64_t group = config.get_int(keys, 128, -1, largest);
  NIBBLE_CHECK(group != 0, config.file(), ": key '", keys, "': expected -1 or between 1 and ", largest, ", found 0");
  return group;
}

ModulePart Module::find(std::string_view suffix, const TypeNames& types) const {
  ModulePart part;
  const StoredTensor* found = folder.tensor(name + std::string(suffix));
  if (found == nullptr) return part;
  part.tensor = std::make_shared<const StoredTensor>(*found);
  const MappedFile& file = folder.file(*part.tensor);
  part.where = message(file.path(), ": tensor ", printable(part.tensor->name));
  part.data = file.bytes().data() + part.tensor->offset;
  std::string known;
  for (const std::string_view type : types) known += (known.empty() ? "" : " or ") + std::string(type);
  NIBBLE_CHECK(std::find(types.begin(), types.end(), part.tensor->type_name()) != types.end(), part.where,
               ": expected type ", known, ", found ", part.tensor->type_name());
  return part;
}

ModulePart Module::need(std::string_view suffix, const TypeNames& types) const {
  ModulePart part = find(suffix, types);
  NIBBLE_CHECK(part, folder.path(), ": no tensor ", printable(name), suffix,
               ", which the module's quantised weight needs");
  return part;
}

DType float_type(const ModulePart& part) {
  const std::string_view type = part.tensor->type_name();
  return type == "f16" ? DType::f16 : type == "bf16" ? DType::bf16 : DType::f32;
}

}  // namespace nibble::models
