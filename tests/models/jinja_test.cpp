// SPDX-License-Identifier: Apache-2.0
// Chat templates against what transformers renders from them (tests/data/make_jinja_goldens.py), and templates that
// try to break out.
#include "models/text/jinja/template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "tensor/check.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models::jinja {
namespace {

using Json = nlohmann::ordered_json;

const std::string folder = NIBBLE_SOURCE_DIR "/../shared/data/chat-templates/";

const Json& goldens() {
  static const Json all = Json::parse(test::read_file(NIBBLE_TEST_DATA "/jinja_goldens.json"));
  return all;
}

RenderOptions stopped_clock() {
  RenderOptions options;
  options.now = [](const std::string& format) {
    std::tm then{};
    then.tm_year = 124, then.tm_mon = 6, then.tm_mday = 26, then.tm_hour = 13, then.tm_min = 5, then.tm_sec = 9,
    then.tm_wday = 5;
    char out[256];
    return std::string(out, std::strftime(out, sizeof(out), format.c_str(), &then));
  };
  return options;
}

/// The variables as transformers passes them: all there, reasoning under all of its names.
Value variables(Json conversation) {
  for (Json& message : conversation.at("messages"))
    if (message.contains("reasoning_content")) {
      Json aliased = {{"thinking", message["reasoning_content"]}};
      aliased.update(message);
      message = aliased;
    }
  Json all = {{"tools", nullptr},
              {"documents", nullptr},
              {"add_generation_prompt", true},
              {"bos_token", "<s>"},
              {"eos_token", "</s>"}};
  all.update(conversation);
  return parse_json(all.dump(), true);
}

/// "raises" stands for any error.
std::string rendered(const std::string& source, const Json& conversation) {
  try {
    return Template::parse(source).render(variables(conversation), stopped_clock()).text.bytes;
  } catch (const Error& error) {
    return std::string("raises: ") + error.what();
  }
}

void check_same(const Json& want, const std::string& got, const std::string& what) {
  if (want.is_null())
    EXPECT_TRUE(got.starts_with("raises")) << what << " gave " << got;
  else
    EXPECT_EQ(got, want.get<std::string>()) << what;
}

std::string fnv1a(const std::string& text) {
  uint64_t state = 0xcbf29ce484222325;
  for (char c : text) state = (state ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  char out[17];
  std::snprintf(out, sizeof(out), "%016llx", static_cast<unsigned long long>(state));
  return out;
}

std::string error_of(const std::string& source, RenderOptions options = {}) {
  try {
    Template::parse(source).render(dict_value({}), options);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string text_of(const std::string& source) {
  try {
    return Template::parse(source).render(dict_value({})).text.bytes;
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Jinja, RendersEveryFeatureAsTheReference) {
  Json conversation = goldens().at("conversations").at("tool-call");
  for (const Json& golden : goldens().at("own")) {
    const std::string source = golden.at("template");
    check_same(golden.at("text"), rendered(source, conversation), source);
  }
}

TEST(Jinja, RendersTheTemplatesOfModels) {
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not here";
  std::string path = NIBBLE_TEST_DATA "/jinja_goldens.json";
  if (const char* other = std::getenv("NIBBLE_JINJA_GOLDENS")) path = other;
  const Json all = Json::parse(test::read_file(path));
  std::vector<std::string> lines;
  std::istringstream in(test::read_file(folder + "ollama/templates.jsonl"));
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  int checked = 0;
  for (const Json& golden : all.at("goldens")) {
    const std::string source = golden.at("source");
    const std::string text = golden.at("line").is_null()
                                 ? test::read_file(source[0] == '/' ? source : folder + source)
                                 : Json::parse(lines.at(golden.at("line"))).begin().value().get<std::string>();
    for (const auto& [name, want] : golden.at("renderings").items()) {
      const std::string got = rendered(text, all.at("conversations").at(name));
      const std::string what = source + " " + golden.at("line").dump() + " " + name;
      ++checked;
      if (want.is_null()) {
        EXPECT_TRUE(got.starts_with("raises")) << what << " gave " << got;
      } else {
        EXPECT_FALSE(got.starts_with("raises")) << what << " " << got;
        EXPECT_EQ(Json({got.size(), fnv1a(got)}), want) << what << " gave " << got;
      }
    }
  }
  EXPECT_GT(checked, 500);
  for (const auto& [source, renderings] : all.at("whole").items())
    for (const auto& [name, want] : renderings.items())
      check_same(want, rendered(test::read_file(folder + source), all.at("conversations").at(name)),
                 source + " " + name);
}

TEST(Jinja, KnowsWhatCameFromOutside) {
  const Value given =
      parse_json(R"({"messages": [{"role": "user", "content": " a<|end|>b "}], "tools": [{"x": "<|end|>"}]})", true);
  const auto plain = [&](const std::string& source) {
    const Rendered out = Template::parse(source).render(given);
    std::string marked;
    for (const TextRange& range : out.text.plain)
      marked.append("[").append(out.text.bytes, range.begin, range.end - range.begin).append("]");
    return marked;
  };
  EXPECT_EQ(plain("<|end|>{{ messages[0].content }}<|end|>"), "[ a<|end|>b ]");
  EXPECT_EQ(plain("{{ '<|end|>' + messages[0].content|trim + '<|end|>' }}"), "[a<|end|>b]");
  EXPECT_EQ(plain("{{ messages[0].content.split('<')[1] ~ 'x' }}"), "[|end|>b ]");
  EXPECT_EQ(plain("{{ 'x' ~ messages[0].content[1:3] }}{% set y %}{{ messages[0].content }}{% endset %}{{ y|upper }}"),
            "[a< A<|END|>B ]");
  EXPECT_EQ(plain("{{ tools|tojson }}"), "[[{\"x\": \"<|end|>\"}]]");
  EXPECT_EQ(plain("{{ tools }}{{ tools[0].keys()|list }}"), "[[{'x': '<|end|>'}]['x']]");
  EXPECT_EQ(plain("{{ '%s|' % messages[0].content }}"), "[ a<|end|>b ]");
  EXPECT_EQ(plain("{{ '<|'}}{{ messages[0].role }}|>"), "") << "roles build control tokens";
  EXPECT_EQ(plain("{% macro m(x) %}({{ x }}){% endmacro %}{{ m(messages[0].content)|replace('a', 'c') }}"),
            "[ ][<|end|>b ]");
}

TEST(Jinja, MarksWhatTheAssistantWrote) {
  const Rendered out = Template::parse("ab{% generation %}cd{% endgeneration %}e").render(dict_value({}));
  ASSERT_EQ(out.generation.size(), 1u);
  EXPECT_EQ(out.generation[0].begin, 2u);
  EXPECT_EQ(out.generation[0].end, 4u);
}

TEST(Jinja, ListsCanGrow) {
  EXPECT_EQ(text_of("{% set l = ['a'] %}{% set _ = l.append('b') %}{{ l }}{{ l.pop(0) }}{{ l }}"), "['a', 'b']a['b']");
  EXPECT_NE(text_of("{% set l = [] %}{{ l.append(l) }}").find("append"), std::string::npos);
}

TEST(Jinja, ErrorsNameTheLine) {
  EXPECT_EQ(error_of("a\nb\n{{ x.y }}"), "chat template, line 3: 'x' is undefined");
  EXPECT_EQ(error_of("\n{% if %}"), "chat template, line 2: expected an expression, found the end of the tag");
  EXPECT_EQ(error_of("{% for x in y %}"), "chat template, line 1: the template ends inside a block; expected 'endfor'");
  EXPECT_EQ(error_of("{{ raise_exception('no ' ~ 1) }}"), "chat template, line 1: no 1");
  EXPECT_EQ(error_of("\n\n{{ 'a'|nothing }}"), "chat template, line 3: no filter is named 'nothing'");
}

TEST(Jinja, NothingOfWhatRunsItCanBeReached) {
  // in Python these lead from any value to the interpreter, and from there to files and commands
  const std::string values[] = {"''",
                                "1",
                                "1.5",
                                "true",
                                "none",
                                "[]",
                                "()",
                                "{}",
                                "[]|map('upper')",
                                "''.upper",
                                "[].append",
                                "{}.get",
                                "range",
                                "range(3)",
                                "namespace()",
                                "joiner()",
                                "cycler(1)",
                                "cycler",
                                "lipsum",
                                "dict",
                                "raise_exception",
                                "strftime_now",
                                "self",
                                "caller",
                                "m",
                                "loop",
                                "missing",
                                "_context",
                                "environment",
                                "request",
                                "config",
                                "__builtins__",
                                "[][0]"};
  const std::string names[] = {
      "__class__",   "__init__",         "__globals__",  "__mro__",    "__base__", "__subclasses__",
      "__dict__",    "__code__",         "__builtins__", "__import__", "__self__", "__func__",
      "__call__",    "__getattribute__", "func_globals", "gi_frame",   "mro",      "_TemplateReference__context",
      "environment", "template"};
  const auto in_scope = [](const std::string& expression) {
    return "{% macro m() %}{% endmacro %}{% for i in [1] %}" + expression + "{% endfor %}";
  };
  for (const std::string& value : values) {
    for (const std::string& name : names) {
      for (const std::string& step :
           {"(" + value + ")." + name, "(" + value + ")['" + name + "']", value + "|attr('" + name + "')"}) {
        // an error, or undefined: nothing to go on from
        const std::string whether = in_scope("{{ (" + step + ") is defined }}");
        const std::string found = error_of(whether) == "no error" ? text_of(whether) : "False";
        EXPECT_EQ(found, "False") << step;
        for (const char* next : {".x", "['x']", "()", "[0]", "|attr('x')|attr('y')"})
          EXPECT_NE(error_of(in_scope("{{ (" + step + ")" + next + " }}")), "no error") << step << next;
      }
    }
  }
  EXPECT_NE(error_of("{{ missing.a.b.c }}"), "no error");
  EXPECT_NE(error_of("{{ {}.a.b }}"), "no error");
  EXPECT_NE(error_of("{% set x = missing.a %}"), "no error");
  EXPECT_NE(error_of("{{ '{0.__class__}'.format('') }}"), "no error");
  EXPECT_NE(error_of("{{ '{0[__class__]}'.format({}) }}"), "no error");
  for (const char* statement :
       {"{% include '/etc/passwd' %}", "{% import '/etc/passwd' as p %}", "{% from '/etc/passwd' import p %}",
        "{% extends '/etc/passwd' %}", "{{ open('/etc/passwd') }}", "{{ eval('1') }}", "{{ exec('1') }}"})
    EXPECT_NE(error_of(statement), "no error") << statement;
}

TEST(Jinja, StaysWithinBounds) {
  const char* bombs[] = {
      "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
      "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      "{{ 'x' * 1000000000000 }}",
      "{{ [0] * 1000000000000 }}",
      "{{ range(1000000000) }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}",
      "{% set ns = namespace(l=[]) %}{% set ns.n = ns %}{{ ns }}",
      "{{ '%1000000000d' % 1 }}",
      "{{ '{:>1000000000}'.format(1) }}",
      "{{ 'a'.ljust(1000000000) }}",
      "{{ 2 ** 64 }}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ 1 // 0 }}",
      "{{ 1 % 0 }}",
      "{{ 'a' | indent(1000000000) }}",
      "{{ ('a' * 1000000).replace('', 'b' * 1000000) }}",
      "{{ 'x'|center(100000000000) }}",
      "{% for i in [1, 2] recursive %}{{ loop([1]) }}{% endfor %}",
      "{{ [[1]] | map('map', 'map') | list | string | nothing }}",
  };
  for (const char* bomb : bombs) EXPECT_NE(error_of(bomb), "no error") << bomb;
  for (const char* open :
       {"(", "[", "{{ -", "not ", "{1:", "a[", "a(", "1 if ", "a + (", "{% if 1 %}", "{% for a in b %}"}) {
    std::string source = open[0] == '{' && open[1] != '1' ? "" : "{{ ";
    for (int i = 0; i < 20000; ++i) source += open;
    EXPECT_NE(error_of(source), "no error") << open;
  }
  std::string chain = "{{ 1";
  for (int i = 0; i < 20000; ++i) chain += " + 1";
  EXPECT_NE(error_of(chain + " }}"), "no error");
}

TEST(Jinja, NothingIsLeftBehind) {  // cycles of macros, scopes and namespaces, for the leak checker
  text_of("{% set ns = namespace() %}{% set ns.me = [ns] %}{% macro m() %}{{ ns }}{% endmacro %}{% set ns.m = m %}"
          "{% for i in range(3) %}{% set prev = ns.f %}{% macro f() %}{{ prev }}{% endmacro %}{% set ns.f = f %}"
          "{% set ns.l = loop %}{{ loop.changed(ns) }}{{ loop.changed(loop) }}{% endfor %}{{ ns.l.changed(ns.l) }}");
  error_of("{% for i in [1] recursive %}{{ loop.changed(loop) }}{{ x.y }}{% endfor %}");
}

TEST(Jinja, BrokenTemplatesAreErrorsAndNotCrashes) {
  std::vector<std::string> sources;
  for (const Json& golden : goldens().at("own")) sources.push_back(golden.at("template"));
  const Value given = variables(goldens().at("conversations").at("tool-call"));
  RenderOptions options = stopped_clock();
  options.max_steps = 20000;
  const std::string_view pieces[] = {"{{", "}}", "{%", "%}",   "(",    ")",  "[", "]",    "|",  "'",
                                     "\\", "-",  "{#", "loop", "\xff", "\n", "9", " is ", "ns", "."};
  std::mt19937 random(7);
  for (int i = 0; i < 6000; ++i) {
    std::string text = sources[random() % sources.size()];
    for (uint32_t edits = 1 + random() % 4; edits > 0 && !text.empty(); --edits) {
      const size_t at = random() % text.size(), length = random() % 6;
      switch (random() % 4) {
        case 0:
          text.erase(at, length);
          break;
        case 1:
          text.insert(at, pieces[random() % std::size(pieces)]);
          break;
        case 2:
          text.insert(at, text.substr(random() % text.size(), 12));
          break;
        default: {
          const std::string& other = sources[random() % sources.size()];
          text = text.substr(0, at) + other.substr(random() % other.size());
        }
      }
    }
    try {
      Template::parse(text).render(given, options);
    } catch (const Error& error) {
      EXPECT_TRUE(std::string_view(error.what()).starts_with("chat template, line ")) << error.what();
    }
  }
}

}  // namespace
}  // namespace nibble::models::jinja
