// SPDX-License-Identifier: Apache-2.0
// The functions that every template has.
#include <ctime>

#include "models/text/jinja/arguments.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

namespace {

using Kind = Value::Kind;

Value global_range(Call& call) {
  const auto a = call.bind({"start", "stop", "step"});
  const bool one = call.args.size() == 1;
  const int64_t start = one ? 0 : whole(*a[0], "range"), stop = whole(one ? *a[0] : *a[1], "range");
  const int64_t step = whole_or(a[2], 1, "range");
  NIBBLE_CHECK(step != 0, "range: the step is 0");
  constexpr int64_t far = 1'000'000'000'000;
  NIBBLE_CHECK(std::abs(start) < far && std::abs(stop) < far && std::abs(step) < far,
               "range: a number is out of range");
  const int64_t count =
      std::max<int64_t>(0, step > 0 ? (stop - start + step - 1) / step : (start - stop - step - 1) / -step);
  NIBBLE_CHECK(count <= 100'000, "range: ", count, " numbers are too many");
  std::vector<Value> out;
  for (int64_t i = 0; i < count; ++i) out.emplace_back(start + i * step);
  return call.in.make_list(std::move(out));
}

std::vector<std::pair<std::string, Value>> members(Call& call) {
  std::vector<std::pair<std::string, Value>> out;
  NIBBLE_CHECK(call.args.size() <= 1, call.name, ": takes at most one value");
  if (!call.args.empty()) {
    NIBBLE_CHECK(call.args[0].is(Kind::dict), call.name, ": expected a dict, found a ", type_name(call.args[0]));
    for (const auto& [key, value] : call.args[0].dict().items) out.emplace_back(text_of(key, call.name).bytes, value);
  }
  for (const auto& item : call.named) {
    std::erase_if(out, [&](const auto& known) { return known.first == item.first; });
    out.push_back(item);
  }
  return out;
}

Value global_namespace(Call& call) { return call.in.make_namespace(members(call)); }

Value global_dict(Call& call) {
  auto dict = std::make_shared<Dict>();
  NIBBLE_CHECK(call.args.size() <= 1, "dict: takes at most one value");
  if (!call.args.empty() && call.args[0].is(Kind::dict)) {
    call.in.spend(4 * call.args[0].dict().items.size());
    *dict = call.args[0].dict();
  } else if (!call.args.empty()) {
    for (const Value& pair : call.in.elements(call.args[0])) {
      const std::vector<Value> both = call.in.elements(pair);
      NIBBLE_CHECK(both.size() == 2, "dict: expected pairs, found ", both.size(), " values");
      call.in.spend(4);
      dict->set(both[0], both[1]);
    }
  }
  for (const auto& [key, value] : call.named) dict->set(Value(key), value);
  return dict;
}

Value global_raise(Call& call) {
  fail(str(*call.bind({"message"})[0]).bytes);
}

Value global_now(Call& call) {
  const std::string& format = text_of(*call.bind({"format"})[0], "strftime_now").bytes;
  if (call.in.options().now) return call.in.make_text({call.in.options().now(format)});
  NIBBLE_CHECK(format.size() <= 256, "strftime_now: the format is too long");
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char out[2048];
  return call.in.make_text({std::string(out, std::strftime(out, sizeof(out), format.c_str(), &local))});
}

/// "" the first time, then the separator.
Value global_joiner(Call& call) {
  const auto a = call.bind({"sep"}, 0);
  const Value separator = a[0] != nullptr ? *a[0] : text_value(", ");
  auto used = std::make_shared<bool>(false);
  call.in.spend(4);
  return function_value("joiner", [separator, used](Call& inner) {
    inner.bind({}, 0);
    return std::exchange(*used, true) ? separator : text_value("");
  });
}

/// A namespace with `current` and next(); reset() begins anew.
Value global_cycler(Call& call) {
  NIBBLE_CHECK(!call.args.empty(), "cycler: nothing to cycle through");
  const Value space = call.in.make_namespace({{"current", call.args[0]}});
  auto at = std::make_shared<size_t>(0);
  auto items = std::make_shared<std::vector<Value>>(call.args);
  Namespace* held = &space.space();  // the interpreter keeps it
  const auto show = [held, at, items] { held->items[0].second = (*items)[*at]; };
  held->items.emplace_back("next", function_value("next", [at, items, show](Call&) {
                             const Value out = (*items)[*at];
                             *at = (*at + 1) % items->size();
                             show();
                             return out;
                           }));
  held->items.emplace_back("reset", function_value("reset", [at, show](Call&) {
                             *at = 0;
                             show();
                             return Value(None{});
                           }));
  return space;
}

constexpr NamedBuiltin all[] = {
    {"cycler", global_cycler}, {"dict", global_dict}, {"joiner", global_joiner}, {"namespace", global_namespace},
    {"raise_exception", global_raise}, {"range", global_range}, {"strftime_now", global_now},
};

}  // namespace

void add_globals(Scope& scope) {
  for (const auto& [name, function] : all) scope.set(name, function_value(std::string(name), function));
}

}  // namespace nibble::models::jinja
