// SPDX-License-Identifier: Apache-2.0
// Conversations through the built-in templates and through templates of models; the engine has its own test.
#include "models/text/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tensor/check.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

const std::string folder = NIBBLE_SOURCE_DIR "/../shared/data/chat-templates/";

std::string error_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

ChatRequest request(std::vector<ChatMessage> messages) {
  return {.messages = std::move(messages), .bos = "<s>", .eos = "</s>"};
}

std::string contents_of(const ChatPrompt& prompt) {
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

TEST(ChatTemplate, BuiltInsMatchTheStandardRenderings) {
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not here";
  const std::pair<const char*, const char*> families[] = {{"chatml", "chatml"},
                                                          {"llama3", "llama3-instruct"},
                                                          {"zephyr", "zephyr"},
                                                          {"alpaca", "alpaca"},
                                                          {"mistral", "mistral-instruct"}};
  const ChatMessage system{"system", "You are a helpful assistant."}, hello{"user", "Hello, how are you?"},
      great{"assistant", "I'm doing great. How can I help you today?"},
      show{"user", "I'd like to show off how chat templating works!"};
  const std::pair<const char*, std::vector<ChatMessage>> conversations[] = {
      {"user", {hello}},
      {"user-assistant-user", {hello, great, show}},
      {"system-user-assistant-user", {system, hello, great, show}}};
  for (const auto& [name, file] : families)
    for (const auto& [conversation, messages] : conversations) {
      ChatRequest asked = request(messages);
      asked.bos = "";
      EXPECT_EQ(ChatTemplate::named(name).render(asked).text,
                test::read_file(folder + "ollama/" + file + ".gotmpl/" + conversation))
          << name << " " << conversation;
    }
}

TEST(ChatTemplate, Llama2HasTheSystemTextInTheFirstQuestion) {
  const ChatRequest asked = request({{"system", "Be kind."}, {"user", " Hi "}, {"assistant", "Yes?"}, {"user", "Bye"}});
  EXPECT_EQ(ChatTemplate::named("llama2").render(asked).text,
            "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n Hi [/INST] Yes? </s><s>[INST] Bye [/INST]");
}

TEST(ChatTemplate, KnowsWhatPeopleWrote) {
  const ChatRequest asked = request({{"system", "one"}, {"user", "<two>"}, {"assistant", "three"}, {"user", "four"}});
  for (std::string_view name : chat_template_names())
    EXPECT_EQ(contents_of(ChatTemplate::named(name).render(asked)), "[one][<two>][three][four]") << name;
}

TEST(ChatTemplate, HandsEverythingToTheTemplate) {
  const auto text = [](const char* source, ChatRequest asked) {
    return ChatTemplate::parse(source).render(asked).text;
  };
  ChatRequest asked = request({{"user", "Hi"}, {"assistant", "", R"({"tool_calls": [{"id": 7}], "reasoning": "hm"})"}});
  EXPECT_EQ(
      text("{{ messages[1].tool_calls[0].id }}{{ messages[1].reasoning_content }}{{ messages[1].thinking }}", asked),
      "7hmhm");
  EXPECT_EQ(
      text("{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ bos_token }}{{ x is defined }}",
           asked),
      "TrueTrueTrue<s>False");
  asked.tools = R"([{"name": "f"}])";
  asked.documents = R"([{"title": "d"}])";
  asked.variables = R"({"enable_thinking": false})";
  asked.add_generation_prompt = false;
  EXPECT_EQ(text("{{ tools[0].name }}{{ documents[0].title }}{{ enable_thinking }}{{ add_generation_prompt }}", asked),
            "fdFalseFalse");
  asked.tools = "[";
  EXPECT_NE(error_of([&] { text("", asked); }).find("JSON"), std::string::npos);
}

TEST(ChatTemplate, RefusalsOfTheTemplateAreErrors) {
  const ChatTemplate chat =
      ChatTemplate::parse("\n{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}");
  EXPECT_EQ(error_of([&] { chat.render(request({{"system", "x"}})); }), "chat template, line 2: no system");
  EXPECT_EQ(error_of([&] { chat.render(request({{"user", "x"}})); }), "no error");
}

TEST(ChatTemplate, UnknownNamesAreRefusedWithTheKnownOnes) {
  const std::string error = error_of([] { ChatTemplate::named("vicuna"); });
  EXPECT_NE(error.find("vicuna"), std::string::npos);
  for (std::string_view name : chat_template_names()) EXPECT_NE(error.find(name), std::string::npos) << error;
}

/// One token per byte, and some texts that are control tokens.
class Bytes final : public Tokenizer {
 public:
  explicit Bytes(std::vector<std::string> controls) : controls_(std::move(controls)) {
    bos_ = 256;
    eos_ = 257;
  }
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<int32_t> out;
    if (options.add_bos) out.push_back(bos_);
    for (size_t at = 0; at < text.size();) {
      size_t length = 1;
      int32_t token = static_cast<uint8_t>(text[at]);
      for (size_t i = 0; i < controls_.size(); ++i) {
        const bool inside = std::any_of(options.plain.begin(), options.plain.end(), [&](const TextRange& range) {
          return range.begin < at + controls_[i].size() && at < range.end;
        });
        if (inside || !text.substr(at).starts_with(controls_[i])) continue;
        token = 256 + static_cast<int32_t>(i);
        length = controls_[i].size();
      }
      out.push_back(token);
      at += length;
    }
    return out;
  }
  std::string piece(int32_t, bool) const override { return ""; }
  std::string decode(std::span<const int32_t>, bool) const override { return ""; }
  int vocab() const override { return 256 + static_cast<int>(controls_.size()); }
  std::string_view kind() const override { return "bytes"; }
  std::string_view token_text(int32_t token) const override { return controls_.at(static_cast<size_t>(token) - 256); }
  bool is_control(int32_t token) const override { return token >= 256; }
  int32_t find(std::string_view text) const override {
    for (size_t i = 0; i < controls_.size(); ++i)
      if (controls_[i] == text) return 256 + static_cast<int32_t>(i);
    return -1;
  }

 private:
  std::vector<std::string> controls_;
};

TEST(ChatTemplate, KnowsWhatEndsAnAnswer) {
  const Bytes chatml({"<s>", "</s>", "<|im_start|>", "<|im_end|>"}), plain({"<s>", "</s>"});
  EXPECT_EQ(ChatTemplate::named("chatml").answer_end(chatml), "<|im_end|>");
  EXPECT_EQ(ChatTemplate::named("chatml").answer_end(plain), "<|im_end|>") << "as a text";
  EXPECT_EQ(ChatTemplate::named("mistral").answer_end(plain), "</s>");
  EXPECT_EQ(ChatTemplate::named("llama2").answer_end(plain), "</s>");
  EXPECT_EQ(ChatTemplate::named("alpaca").answer_end(plain), "### Instruction:");
  EXPECT_EQ(ChatTemplate::parse("{{ raise_exception('never') }}").answer_end(plain), "");
}

TEST(ChatTemplate, VocabulariesTellWhichFits) {
  EXPECT_EQ(ChatTemplate::guess(Bytes({"<s>", "</s>", "<|im_start|>"})).render(request({{"user", "x"}})).text,
            "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_NE(error_of([] { ChatTemplate::guess(Bytes({"<s>", "</s>"})); }).find("chatml"), std::string::npos);
}

TEST(ChatTemplate, BosComesOnceAndContentsStayText) {
  const Bytes tokenizer({"<s>", "</s>", "<|im_start|>", "<|im_end|>"});
  const auto count = [&](const char* name, int32_t token) {
    const auto ids = encode_chat(tokenizer, ChatTemplate::named(name), {.messages = {{"user", "<s>a<|im_end|>"}}});
    return std::count(ids.begin(), ids.end(), token);
  };
  EXPECT_EQ(count("chatml", 256), 1);
  EXPECT_EQ(count("mistral", 256), 1);
  EXPECT_EQ(count("chatml", 259), 1) << "only the template's own";
}

}  // namespace
}  // namespace nibble::models
