// SPDX-License-Identifier: Apache-2.0
#include "tensor/graph.h"

#include "tensor/check.h"
#include "tensor/op.h"

namespace nibble {

namespace {

Value add_value(Graph& graph, const TensorDesc& desc, std::string name, const Tensor& constant) {
  graph.values.push_back(desc);
  graph.value_names.push_back(std::move(name));
  graph.constants.push_back(constant);
  return {static_cast<int32_t>(graph.values.size()) - 1};
}

const char* type_name(const Attrs::Item& item) {
  constexpr const char* names[] = {"an integer", "a number", "a string"};
  return names[item.index()];
}

}  // namespace

const Attrs::Item* Attrs::find(std::string_view key) const {
  for (const auto& [name, item] : items_) {
    if (name == key) return &item;
  }
  return nullptr;
}

void Attrs::set(std::string_view key, Item item) {
  for (auto& [name, old] : items_) {
    if (name == key) {
      old = std::move(item);
      return;
    }
  }
  items_.emplace_back(key, std::move(item));
}

bool Attrs::has(std::string_view key) const { return find(key) != nullptr; }

int64_t Attrs::i(std::string_view key) const {
  const Item* item = find(key);
  NIBBLE_CHECK(item, "attribute ", key, " is missing");
  const auto* value = std::get_if<int64_t>(item);
  NIBBLE_CHECK(value, "attribute ", key, ": expected an integer, found ", type_name(*item));
  return *value;
}

int64_t Attrs::i(std::string_view key, int64_t fallback) const { return has(key) ? i(key) : fallback; }

double Attrs::f(std::string_view key) const {
  const Item* item = find(key);
  NIBBLE_CHECK(item, "attribute ", key, " is missing");
  if (const auto* integer = std::get_if<int64_t>(item)) return static_cast<double>(*integer);
  const auto* value = std::get_if<double>(item);
  NIBBLE_CHECK(value, "attribute ", key, ": expected a number, found ", type_name(*item));
  return *value;
}

double Attrs::f(std::string_view key, double fallback) const { return has(key) ? f(key) : fallback; }

const std::string& Attrs::s(std::string_view key) const {
  const Item* item = find(key);
  NIBBLE_CHECK(item, "attribute ", key, " is missing");
  const auto* value = std::get_if<std::string>(item);
  NIBBLE_CHECK(value, "attribute ", key, ": expected a string, found ", type_name(*item));
  return *value;
}

std::string Attrs::s(std::string_view key, std::string_view fallback) const {
  return has(key) ? s(key) : std::string(fallback);
}

Value Graph::input(std::string name, const TensorDesc& desc) {
  try {
    bytes(desc);
  } catch (const Error& e) {
    fail("input ", name, ": ", e.what());
  }
  const Value value = add_value(*this, desc, std::move(name), {});
  inputs.push_back(value);
  return value;
}

Value Graph::constant(std::string name, const Tensor& tensor) {
  NIBBLE_CHECK(tensor.data, "constant ", name, " ", to_string(tensor.desc), " has no memory");
  return add_value(*this, tensor.desc, std::move(name), tensor);
}

void Graph::output(Value value) {
  NIBBLE_CHECK(value.id >= 0 && value.id < static_cast<int32_t>(values.size()), "graph output ", value.id,
               ": expected a value of this graph, 0 to ", static_cast<int64_t>(values.size()) - 1);
  outputs.push_back(value);
}

Value Graph::add(const OpDef& op, std::span<const Value> in, const Attrs& attrs, std::string name) {
  if (name.empty()) name = op.name;
  std::vector<TensorDesc> descs;
  for (Value v : in) {
    NIBBLE_CHECK(v.id >= 0 && v.id < static_cast<int32_t>(values.size()), "node ", name, " (", op.name, "): input ",
                 descs.size(), " is value ", v.id, ": expected a value of this graph, 0 to ",
                 static_cast<int64_t>(values.size()) - 1);
    descs.push_back(values[v.id]);
  }
  TensorDesc desc;
  try {
    desc = op.infer(descs, attrs);
    bytes(desc);
  } catch (const Error& e) {
    fail("node ", name, " (", op.name, "): ", e.what());
  }
  const Value out = add_value(*this, desc, {}, {});
  nodes.push_back({&op, attrs, {in.begin(), in.end()}, out, std::move(name)});
  return out;
}

}  // namespace nibble
