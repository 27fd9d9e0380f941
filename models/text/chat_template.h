// SPDX-License-Identifier: Apache-2.0
// Conversations to prompt text, for the template families that are recognised from the template in the file.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::models {

struct ChatMessage {
  std::string role;     ///< "system", "user" or "assistant"
  std::string content;
};

enum class ChatFormat { chatml, llama2, llama3, mistral, zephyr, alpaca };

std::string_view name(ChatFormat format);
/// Throws Error listing the known names.
ChatFormat parse_chat_format(std::string_view name);
/// From the Jinja source in tokenizer.chat_template. Throws Error, naming the known families, when none fits.
ChatFormat recognise_chat_format(std::string_view jinja);

/// The prompt, special tokens spelled out in it (encode with parse_special, without BOS when the text begins with it).
/// With add_generation_prompt it ends where the assistant's answer begins. Throws Error for unknown roles or an order
/// that the family forbids.
std::string render_chat(ChatFormat format, std::span<const ChatMessage> messages, bool add_generation_prompt,
                        std::string_view bos = "", std::string_view eos = "");
/// Texts that end an answer of this family besides the end-of-generation tokens.
std::vector<std::string> chat_stop_strings(ChatFormat format);

}  // namespace nibble::models
