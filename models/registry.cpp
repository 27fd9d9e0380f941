// SPDX-License-Identifier: Apache-2.0
// The list of architectures, made from arch_list.inc and added to by plugins.
#include <algorithm>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "models/builder.h"
#include "models/config.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

Arch with_defaults(Arch arch) {
  const Arch llama = llama_arch();
  if (arch.config == nullptr) arch.config = [](const Metadata& m) { return read_config(m); };
  if (arch.block == nullptr) arch.block = llama.block;
  if (arch.head == nullptr) arch.head = llama.head;
  if (arch.proof.empty()) arch.proof = "logits of Hugging Face transformers";
  return arch;
}

std::deque<Arch>& archs() {
  static std::deque<Arch> list = {
#define NIBBLE_ARCH(name) with_defaults(name##_arch()),
#include "models/arch_list.inc"
#undef NIBBLE_ARCH
  };
  return list;
}

bool answers_to(const Arch& arch, std::string_view name_or_type) {
  const auto& types = arch.model_types;
  return arch.name == name_or_type || std::find(types.begin(), types.end(), name_or_type) != types.end();
}

}  // namespace

std::vector<Name> change_names(std::vector<Name> names, const std::vector<Name>& changes) {
  for (const Name& change : changes) {
    const auto place = std::find_if(names.begin(), names.end(), [&](const Name& n) { return n.name == change.name; });
    if (change.paths.empty()) {
      NIBBLE_CHECK(place != names.end(), "change_names: no name '", change.name, "' to take away");
      names.erase(place);
    } else if (place != names.end()) {
      *place = change;
    } else {
      names.push_back(change);
    }
  }
  return names;
}

std::vector<Name> llama_names(const std::vector<Name>& changes) { return change_names(llama_arch().names, changes); }

const std::deque<Arch>& all_archs() { return archs(); }

const Arch& add_arch(Arch arch) {
  NIBBLE_CHECK(!arch.name.empty(), "an architecture without a name");
  NIBBLE_CHECK(!arch.names.empty(), "architecture '", arch.name, "': no names of weights");
  std::vector<std::string_view> own = arch.model_types;
  own.push_back(arch.name);
  for (std::string_view name : own)
    for (const Arch& other : archs())
      NIBBLE_CHECK(!answers_to(other, name), "architecture '", arch.name, "': '", name, "' belongs to '", other.name,
                   "' already");
  return archs().emplace_back(with_defaults(std::move(arch)));
}

const Arch& find_arch(std::string_view name_or_type) {
  std::string known;
  for (const Arch& arch : all_archs()) {
    if (answers_to(arch, name_or_type)) return arch;
    known += (known.empty() ? "" : ", ") + std::string(arch.name);
  }
  fail("unknown architecture '", name_or_type, "'; known: ", known);
}

}  // namespace nibble::models
