// SPDX-License-Identifier: Apache-2.0
// Conversations to prompt text, for the template families that are recognised from the template in the file.
// No template code of a model file is ever run.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/text/tokenizer.h"

namespace nibble::models {

struct ChatMessage {
  std::string role;  ///< "system", "user" or "assistant"
  std::string content;
};

enum class ChatFormat { chatml, llama2, llama3, mistral, zephyr, alpaca };

std::string_view name(ChatFormat format);
/// Throws Error listing the known names.
ChatFormat parse_chat_format(std::string_view name);

/// A family and what a model's own template changes in it. "{bos}" and "{eos}" in these texts stand for the tokens;
/// contents are inserted as they are.
struct ChatTemplate {
  enum class System { turn, first_user, last_user, refused };
  ChatFormat format = ChatFormat::chatml;
  std::string default_system;    ///< system text of a conversation that has none; "" for no system message
  bool always_system = false;    ///< a system turn is written even when its text is empty
  System system = System::turn;  ///< where a system text goes: a turn of its own or into a user message
  bool trims = false;            ///< white space around contents is dropped
  bool trims_assistant = false;  ///< the same for answers only
  bool trims_system = false;     ///< the same for system texts only
  bool drops_thinking = false;   ///< answers before the last question lose everything up to "</think>"
  bool alternates = false;       ///< user and assistant must take turns, the user first
  std::string begin;             ///< in front of everything
  std::string before_system, after_system;
  std::string before_user, after_user;
  std::string before_assistant, after_assistant;
  std::string generation;  ///< where the assistant's answer begins
  std::string separator;   ///< between two messages
};

/// The family as its models have it, without a default system message.
ChatTemplate standard_template(ChatFormat format);
/// From the Jinja source in tokenizer.chat_template. Throws Error, naming the known families, when none fits.
ChatTemplate recognise_chat_template(std::string_view jinja);
ChatFormat recognise_chat_format(std::string_view jinja);

struct ChatPrompt {
  std::string text;                 ///< control tokens of the template spelled out
  std::vector<TextRange> contents;  ///< what people and models wrote: control tokens spelled in there are only text
};
/// Encode with parse_special and the contents as plain ranges, without BOS when the template begins with it.
/// With add_generation_prompt it ends where the assistant's answer begins. Throws Error for unknown roles or an order
/// that the family forbids.
ChatPrompt render_chat_prompt(const ChatTemplate& chat, std::span<const ChatMessage> messages,
                              bool add_generation_prompt, std::string_view bos = "", std::string_view eos = "");
/// The text alone.
std::string render_chat(const ChatTemplate& chat, std::span<const ChatMessage> messages, bool add_generation_prompt,
                        std::string_view bos = "", std::string_view eos = "");
/// The same with standard_template(format).
std::string render_chat(ChatFormat format, std::span<const ChatMessage> messages, bool add_generation_prompt,
                        std::string_view bos = "", std::string_view eos = "");
/// Texts that end an answer of this family besides the end-of-generation tokens.
std::vector<std::string> chat_stop_strings(ChatFormat format);

}  // namespace nibble::models
