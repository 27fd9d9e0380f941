// SPDX-License-Identifier: Apache-2.0
// Conversations to prompt text, by the Jinja template of the model or one of the built-in ones.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/text/jinja/template.h"
#include "models/text/tokenizer.h"

namespace nibble::models {

struct ChatMessage {
  std::string role;  ///< "system", "user", "assistant", "tool" or what else the template knows
  std::string content;
  std::string json =
      {};  ///< further members of the message as a JSON object ("tool_calls", "reasoning_content"); "": none
};

struct ChatRequest {
  std::vector<ChatMessage> messages;
  bool add_generation_prompt = true;  ///< ends where the assistant's answer begins
  std::string bos = {}, eos = {};     ///< texts of the tokens
  std::string tools = {}, documents = {};  ///< JSON lists; "": none
  std::string variables = {};              ///< a JSON object of further variables, {"enable_thinking": false}; "": none
};

struct ChatPrompt {
  std::string text;                   ///< control tokens of the template spelled out
  std::vector<TextRange> contents;    ///< what people and models wrote: control tokens spelled in there are only text
  std::vector<TextRange> generation;  ///< inside of {% generation %} blocks
};

/// Immutable; thread safe.
class ChatTemplate {
 public:
  /// From Jinja source. Throws Error naming the line.
  static ChatTemplate parse(std::string_view jinja);
  /// A built-in one by its name. Throws Error listing the names.
  static ChatTemplate named(std::string_view name);
  /// The built-in one whose control tokens the vocabulary has: for files without a template. Throws Error listing the
  /// names when none fits.
  static ChatTemplate guess(const Tokenizer& tokenizer);

  /// Throws Error for conversations that the template refuses, with its own words and line.
  ChatPrompt render(const ChatRequest& request, const jinja::RenderOptions& options = {}) const;
  /// What ends an answer: the control token behind it or, where there is none, the text in which the next turn begins.
  /// "" when the template does not tell.
  std::string answer_end(const Tokenizer& tokenizer) const;

 private:
  explicit ChatTemplate(jinja::Template source) : template_(std::move(source)) {}
  jinja::Template template_;
};

/// Names of the built-in templates.
std::vector<std::string_view> chat_template_names();
/// The conversation as tokens, BOS once whether the template writes it or not.
std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat, ChatRequest request);

}  // namespace nibble::models
