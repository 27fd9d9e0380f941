// SPDX-License-Identifier: Apache-2.0
// Chat prompts against what Jinja2 renders from the models' templates (tests/data/make_chat_goldens.py).
#include "models/text/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tensor/check.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

const std::string folder = NIBBLE_SOURCE_DIR "/../shared/data/chat-templates/";
const ChatFormat all_formats[] = {ChatFormat::chatml,  ChatFormat::llama2, ChatFormat::llama3,
                                  ChatFormat::mistral, ChatFormat::zephyr, ChatFormat::alpaca};

std::string error_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

nlohmann::json goldens() { return nlohmann::json::parse(test::read_file(NIBBLE_TEST_DATA "/chat_goldens.json")); }

std::vector<ChatMessage> messages_of(const nlohmann::json& list) {
  std::vector<ChatMessage> out;
  for (const auto& item : list) out.push_back({item.at("role"), item.at("content")});
  return out;
}

void check_golden(const nlohmann::json& all, const nlohmann::json& golden, const std::string& jinja) {
  const ChatTemplate chat = recognise_chat_template(jinja);
  for (const auto& [name, want] : golden.at("renderings").items()) {
    const auto messages = messages_of(all.at("conversations").at(name));
    // One template leaves BOS out when an answer comes first; no session begins like that.
    if (golden.at("key") == 3 && name == "assistant-first") continue;
    SCOPED_TRACE(golden.at("source").dump() + golden.at("key").dump() + " " + name);
    const auto render = [&] {
      return render_chat(chat, messages, true, all.at("bos").get<std::string>(), all.at("eos").get<std::string>());
    };
    // A template without a system turn either raises or drops the text; here it is an error either way.
    const bool refused = messages[0].role == "system" && chat.system == ChatTemplate::System::refused;
    if (want.is_null() || refused)
      EXPECT_THROW(render(), Error);
    else
      EXPECT_EQ(render(), want.get<std::string>());
  }
}

TEST(ChatTemplate, RendersWhatJinjaRenders) {
  const auto all = goldens();
  int checked = 0;
  for (const auto& golden : all.at("goldens"))
    if (golden.at("source") == "own") check_golden(all, golden, golden.at("jinja")), ++checked;
  EXPECT_GE(checked, 10);
}

// Families that look like ours and are not, and templates that need more than messages.
const std::set<std::string> refused = {"27",
                                       "28",
                                       "29",
                                       "33",
                                       "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
                                       "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
                                       "microsoft-Phi-3.5-mini-instruct",
                                       "fireworks-ai-llama-3-firefunction-v2"};

TEST(ChatTemplate, RendersTheTemplatesOfModels) {
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not here";
  std::vector<std::string> lines;
  std::istringstream in(test::read_file(folder + "ollama/templates.jsonl"));
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  const auto all = goldens();
  for (const auto& golden : all.at("goldens")) {
    const std::string source = golden.at("source");
    if (source == "own") continue;
    const bool in_list = !golden.at("key").is_null();
    const std::string jinja = in_list
                                  ? nlohmann::json::parse(lines.at(golden.at("key"))).begin().value().get<std::string>()
                                  : test::read_file(folder + source);
    const std::string id = in_list ? golden.at("key").dump() : std::filesystem::path(source).stem().string();
    SCOPED_TRACE(id);
    if (refused.count(id))
      EXPECT_THROW(recognise_chat_template(jinja), Error);
    else
      EXPECT_NO_THROW(check_golden(all, golden, jinja));
  }
}

TEST(ChatTemplate, MatchesTheStandardRenderings) {
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not here";
  const std::pair<ChatFormat, const char*> families[] = {{ChatFormat::chatml, "chatml"},
                                                         {ChatFormat::llama3, "llama3-instruct"},
                                                         {ChatFormat::zephyr, "zephyr"},
                                                         {ChatFormat::alpaca, "alpaca"},
                                                         {ChatFormat::mistral, "mistral-instruct"}};
  const ChatMessage system{"system", "You are a helpful assistant."}, hello{"user", "Hello, how are you?"},
      great{"assistant", "I'm doing great. How can I help you today?"},
      show{"user", "I'd like to show off how chat templating works!"};
  const std::pair<const char*, std::vector<ChatMessage>> conversations[] = {
      {"user", {hello}},
      {"user-assistant-user", {hello, great, show}},
      {"system-user-assistant-user", {system, hello, great, show}}};
  for (const auto& [format, name] : families)
    for (const auto& [file, messages] : conversations)
      EXPECT_EQ(render_chat(format, messages, true, "", "</s>"),
                test::read_file(folder + "ollama/" + name + ".gotmpl/" + file))
          << name << " " << file;
}

TEST(ChatTemplate, Llama2IsRenderedAsItsOwnTemplateDoes) {
  const std::vector<ChatMessage> messages = {
      {"system", "Be kind."}, {"user", " Hi "}, {"assistant", "Yes?"}, {"user", "Bye"}};
  EXPECT_EQ(render_chat(ChatFormat::llama2, messages, true, "<s>", "</s>"),
            "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n Hi [/INST] Yes? </s><s>[INST] Bye [/INST]");
}

TEST(ChatTemplate, SmolLm2HasADefaultSystemMessage) {
  const std::string jinja =
      "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
      "are a "
      "helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
      "message['role'] + "
      "'\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
      "'<|im_start|>assistant\n' "
      "}}{% endif %}";
  const ChatTemplate chat = recognise_chat_template(jinja);
  EXPECT_EQ(chat.default_system, "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
  const std::vector<ChatMessage> hi = {{"user", "Hi"}}, system = {{"system", "Be brief."}, {"user", "Hi"}};
  EXPECT_EQ(render_chat(chat, hi, true),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(render_chat(chat, system, false),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
}

TEST(ChatTemplate, ContentsAreNotExpanded) {
  const std::vector<ChatMessage> messages = {{"user", "{bos}{eos}"}, {"assistant", "{eos}"}, {"user", "x"}};
  for (ChatFormat format : all_formats) {
    const std::string text = render_chat(format, messages, true, "<B>", "<E>");
    EXPECT_NE(text.find("{bos}{eos}"), std::string::npos) << name(format);
    EXPECT_EQ(text.find("<B><E>"), std::string::npos) << name(format);
  }
}

std::string contents_of(const ChatTemplate& chat, const std::vector<ChatMessage>& messages) {
  const ChatPrompt prompt = render_chat_prompt(chat, messages, true, "<s>", "</s>");
  std::string out;
  size_t end = 0;
  for (const TextRange& range : prompt.contents) {
    EXPECT_LE(end, range.begin);
    EXPECT_LT(range.begin, range.end);
    EXPECT_LE(range.end, prompt.text.size());
    end = range.end;
    out.append("[").append(prompt.text, range.begin, range.end - range.begin).append("]");
  }
  return out;
}

TEST(ChatTemplate, KnowsWhatPeopleWrote) {
  const std::vector<ChatMessage> messages = {{"system", "one"}, {"user", "two"}, {"assistant", "three"}, {"user", "four"}};
  for (ChatFormat format : all_formats)
    EXPECT_EQ(contents_of(standard_template(format), messages), "[one][two][three][four]") << name(format);
}

TEST(ChatTemplate, TrimmingMovesTheContents) {
  for (ChatFormat format : {ChatFormat::llama2, ChatFormat::llama3})
    EXPECT_EQ(contents_of(standard_template(format), {{"user", " \n two "}, {"assistant", "three\n"}, {"user", " \t "}}),
              "[two][three]")
        << name(format);
  EXPECT_EQ(contents_of(standard_template(ChatFormat::llama2), {{"system", "one "}, {"user", " two "}}), "[one ][ two]");
}

TEST(ChatTemplate, NamesGoBothWays) {
  for (ChatFormat format : all_formats) EXPECT_EQ(parse_chat_format(name(format)), format);
  const std::string error = error_of([] { parse_chat_format("vicuna"); });
  EXPECT_NE(error.find("vicuna"), std::string::npos);
  for (ChatFormat format : all_formats) EXPECT_NE(error.find(name(format)), std::string::npos) << error;
}

TEST(ChatTemplate, UnknownTemplatesAreRefusedByName) {
  for (const char* jinja : {"", "{{ messages }}", "<start_of_turn>", "<|im_start|>user<|im_sep|><|im_end|>",
                            "{% for m in messages %}USER: {{ m }}{% endfor %}"}) {
    const std::string error = error_of([&] { recognise_chat_template(jinja); });
    EXPECT_NE(error.find("chatml"), std::string::npos) << error;
    EXPECT_NE(error.find("alpaca"), std::string::npos) << error;
  }
}

TEST(ChatTemplate, WrongConversationsAreRefused) {
  const auto error = [](ChatFormat format, std::vector<ChatMessage> messages) {
    return error_of([&] { render_chat(format, messages, true); });
  };
  for (ChatFormat format : all_formats) {
    EXPECT_NE(error(format, {}).find("no messages"), std::string::npos);
    EXPECT_NE(error(format, {{"tool", "x"}}).find("'tool'"), std::string::npos);
    EXPECT_EQ(error(format, {{"user", "x"}}), "no error");
  }
  for (ChatFormat format : {ChatFormat::llama2, ChatFormat::mistral}) {
    EXPECT_NE(error(format, {{"user", "a"}, {"user", "b"}}).find("take turns"), std::string::npos);
    EXPECT_NE(error(format, {{"assistant", "a"}}).find("take turns"), std::string::npos);
    EXPECT_NE(error(format, {{"user", "a"}, {"system", "b"}}).find("in front"), std::string::npos);
    EXPECT_NE(error(format, {{"system", "a"}}).find("there is none"), std::string::npos);
  }
}

TEST(ChatTemplate, StopStringsEndAnswers) {
  for (const std::string& stop : chat_stop_strings(ChatFormat::chatml)) EXPECT_EQ(stop, "<|im_end|>");
  EXPECT_TRUE(chat_stop_strings(ChatFormat::mistral).empty());
}

}  // namespace
}  // namespace nibble::models
