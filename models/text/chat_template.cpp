// SPDX-License-Identifier: Apache-2.0
// Recognition looks for the few texts in which templates of one family differ; what it does not know, it refuses.
#include "models/text/chat_template.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr std::array<std::pair<ChatFormat, std::string_view>, 6> format_names = {{
    {ChatFormat::chatml, "chatml"},
    {ChatFormat::llama2, "llama2"},
    {ChatFormat::llama3, "llama3"},
    {ChatFormat::mistral, "mistral"},
    {ChatFormat::zephyr, "zephyr"},
    {ChatFormat::alpaca, "alpaca"},
}};

std::string known_formats() {
  std::string known;
  for (const auto& [format, text] : format_names) known += (known.empty() ? "" : ", ") + std::string(text);
  return known;
}

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Templates spell a line feed as itself or as an escape; both are made line feeds, and quotes lose their escapes.
std::string without_escapes(std::string_view jinja) {
  std::string out;
  for (size_t i = 0; i < jinja.size(); ++i) {
    if (jinja[i] != '\\' || i + 1 == jinja.size()) {
      out += jinja[i];
      continue;
    }
    const char next = jinja[++i];
    if (next == 'n')
      out += '\n';
    else if (next == '\'' || next == '"' || next == '\\')
      out += next;
    else
      (out += '\\') += next;
  }
  return out;
}

/// The text after `prefix` up to the closing quote or `suffix`, from the first place where both are on the same
/// literal.
std::string literal_after(std::string_view jinja, std::string_view prefix, std::string_view suffix) {
  for (size_t at = jinja.find(prefix); at != std::string_view::npos; at = jinja.find(prefix, at + 1)) {
    const std::string_view rest = jinja.substr(at + prefix.size());
    const size_t end = rest.find(suffix),
                 code = std::min({rest.find("' +"), rest.find("\" +"), rest.find("}}"), rest.find("%}")});
    if (end != std::string_view::npos && end > 0 && end <= code) return without_escapes(rest.substr(0, end));
  }
  return "";
}

/// Templates that look like a family and write something else. The first text is what gives them away.
constexpr std::pair<std::string_view, std::string_view> strangers[] = {
    {"function calling AI model", "writes descriptions of tools into the system message"},
    {"functions as JSON", "needs a list of functions"},
    {"<|im_sep|>", "separates role and content by <|im_sep|>"},
    {"[SYSTEM_PROMPT]", "has [SYSTEM_PROMPT] turns"},
    {"## Metadata", "writes metadata into the system message"},
};

void refine_chatml(ChatTemplate& chat, std::string_view raw, std::string_view jinja) {
  if (has(jinja, "bos_token")) chat.begin = "{bos}";
  chat.drops_thinking = has(jinja, "</think>");
  chat.trims_system = has(jinja, "system_message | trim") || has(jinja, "system_message|trim");
  for (std::string_view start : {"<|im_start|>system\\n", "<|im_start|>system\n"})
    if (chat.default_system.empty()) chat.default_system = literal_after(raw, start, "<|im_end|>");
  if (chat.default_system.empty()) chat.default_system = literal_after(raw, "set system_message = '", "' %}");
  if (has(jinja, "<|im_end|>\n<|im_start|>assistant\n")) {  // the question already opens the answer
    chat.before_system = chat.after_system = chat.before_assistant = chat.generation = "";
    chat.after_user = "<|im_end|>\n<|im_start|>assistant\n";
  }
  if (has(jinja, "'\n' + '<|im_start|>'")) {
    chat.separator = "\n";
    chat.after_system = chat.after_user = chat.after_assistant = "<|im_end|>";
    chat.generation = "\n<|im_start|>assistant\n";
  }
}

void refine_llama3(ChatTemplate& chat, std::string_view jinja) {
  if (!has(jinja, "bos_token")) chat.begin = "";
  chat.trims = has(jinja, "| trim") || has(jinja, "|trim");
  if (!has(jinja, "Cutting Knowledge Date: December 2023\n")) return;
  const std::string date = literal_after(jinja, "set date_string = \"", "\" %}");
  chat.always_system = true;
  chat.before_system +=
      "Cutting Knowledge Date: December 2023\nToday Date: " + (date.empty() ? "26 Jul 2024" : date) + "\n\n";
}

void refine_llama2(ChatTemplate& chat, std::string_view jinja) {
  if (!has(jinja, "bos_token")) chat.before_user = "[INST] ";
  chat.trims = has(jinja, "| trim") || has(jinja, "|trim") || has(jinja, ".strip()");
}

void refine_mistral(ChatTemplate& chat, std::string_view jinja) {
  chat.begin = has(jinja, "bos_token") ? "{bos}" : "";
  chat.before_user = has(jinja, "[INST] ") ? "[INST] " : "[INST]";
  chat.after_user = has(jinja, " [/INST]") ? " [/INST]" : "[/INST]";
  chat.before_assistant = has(jinja, "' ' + m") || has(jinja, "\" \" + m") ? " " : "";
  chat.after_assistant = has(jinja, "eos_token + ' '") || has(jinja, "eos_token + \" \"") ? "{eos} " : "{eos}";
  chat.trims_assistant = has(jinja, "message[\"content\"]|trim + eos") || has(jinja, "message['content']|trim + eos");
  chat.system = !has(jinja, "system_message") ? ChatTemplate::System::refused
                : has(jinja, "loop.last")     ? ChatTemplate::System::last_user
                                              : ChatTemplate::System::first_user;
}

/// What follows a literal in the output: the rest of its expression and the line feed that Jinja keeps after "}}".
std::string after_literal(std::string_view jinja, std::string_view literal) {
  const size_t at = jinja.find(literal);
  if (at == std::string_view::npos) return "";
  const std::string_view rest = jinja.substr(at + literal.size());
  const size_t end = std::min(rest.find("}}"), rest.size());
  const std::string_view expression = rest.substr(0, end);
  std::string out = has(expression, "eos_token") ? "{eos}" : "";
  if (has(expression, "'\n'") || has(expression, "\"\n\"") || rest.substr(end).starts_with("}}\n")) out += "\n";
  return out;
}

void refine_zephyr(ChatTemplate& chat, std::string_view jinja) {
  chat.begin = has(jinja, "bos_token") ? "{bos}" : "";
  if (has(jinja, "<|system|>\n"))
    chat.after_system = after_literal(jinja, "<|system|>\n");
  else
    chat.system = ChatTemplate::System::refused;
  chat.after_user = after_literal(jinja, "<|user|>\n");
  chat.after_assistant = after_literal(jinja, "<|assistant|>\n");
  constexpr std::string_view answer = "<|assistant|>";
  const std::string_view prompt = jinja.substr(jinja.rfind(answer));
  const bool line_feed = prompt.starts_with("<|assistant|>\n") || after_literal(prompt, answer).ends_with('\n');
  chat.generation = line_feed ? "<|assistant|>\n" : "<|assistant|>";
}

void refine_alpaca(ChatTemplate& chat, std::string_view raw, std::string_view jinja) {
  if (has(jinja, "bos_token")) chat.begin = "{bos}";
  if (!has(jinja, "\n<|EOT|>\n")) return;
  for (std::string_view start : {"{{'", "{{ '"})
    if (chat.default_system.empty()) chat.default_system = literal_after(raw, start, "'}}");
  if (chat.default_system.find("###") != std::string::npos) chat.default_system.clear();
  chat.after_system = "";
  chat.after_user = "\n";
  chat.after_assistant = "\n<|EOT|>\n";
}

std::string expand(std::string_view text, std::string_view bos, std::string_view eos) {
  std::string out;
  while (!text.empty()) {
    if (text.starts_with("{bos}"))
      out += bos, text.remove_prefix(5);
    else if (text.starts_with("{eos}"))
      out += eos, text.remove_prefix(5);
    else
      out += text.front(), text.remove_prefix(1);
  }
  return out;
}

ChatPrompt content(std::string_view text) {
  return {std::string(text), {{0, text.size()}}};
}

void append(ChatPrompt& out, const ChatPrompt& part) {
  const size_t offset = out.text.size();
  for (const TextRange& range : part.contents)
    if (range.begin < range.end) out.contents.push_back({offset + range.begin, offset + range.end});
  out.text += part.text;
}

ChatPrompt trimmed(ChatPrompt prompt) {
  constexpr std::string_view space = " \t\n\r\v\f";
  prompt.text.erase(prompt.text.find_last_not_of(space) + 1);
  const size_t first = std::min(prompt.text.find_first_not_of(space), prompt.text.size());
  prompt.text.erase(0, first);
  const auto moved = [&](size_t at) { return std::min(at - std::min(at, first), prompt.text.size()); };
  for (TextRange& range : prompt.contents) range = {moved(range.begin), moved(range.end)};
  return prompt;
}

std::string without_thinking(std::string_view text) {
  const size_t at = text.rfind("</think>");
  if (at == std::string_view::npos) return std::string(text);
  text.remove_prefix(at + 8);
  return std::string(text.substr(std::min(text.find_first_not_of('\n'), text.size())));
}

void check_order(const ChatTemplate& chat, std::span<const ChatMessage> messages) {
  NIBBLE_CHECK(!messages.empty(), "chat: there are no messages");
  size_t turn = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role == "system") {
      NIBBLE_CHECK(chat.system != ChatTemplate::System::refused, "chat: message ", i, " is a system message, but the ",
                   name(chat.format), " template of this model has none");
      NIBBLE_CHECK(chat.system == ChatTemplate::System::turn || i == 0, "chat: message ", i,
                   " is a system message; the ", name(chat.format), " template takes one only in front");
      continue;
    }
    NIBBLE_CHECK(role == "user" || role == "assistant", "chat: message ", i, " has the role '", role,
                 "'; expected system, user or assistant");
    NIBBLE_CHECK(!chat.alternates || (role == "user") == (turn % 2 == 0), "chat: message ", i, " has the role '", role,
                 "'; with the ", name(chat.format), " template user and assistant take turns, the user first");
    ++turn;
  }
}

size_t last_user(std::span<const ChatMessage> messages) {
  for (size_t i = messages.size(); i-- > 0;)
    if (messages[i].role == "user") return i;
  return messages.size();
}

size_t first_user(std::span<const ChatMessage> messages) {
  size_t i = 0;
  while (i < messages.size() && messages[i].role != "user") ++i;
  return i;
}

}  // namespace

std::string_view name(ChatFormat format) {
  for (const auto& [known, text] : format_names)
    if (known == format) return text;
  return "unknown";
}

ChatFormat parse_chat_format(std::string_view text) {
  for (const auto& [format, known] : format_names)
    if (known == text) return format;
  fail("unknown chat format '", text, "'; known: ", known_formats());
}

ChatTemplate standard_template(ChatFormat format) {
  ChatTemplate chat;
  chat.format = format;
  switch (format) {
    case ChatFormat::chatml:
      chat.before_system = "<|im_start|>system\n";
      chat.before_user = "<|im_start|>user\n";
      chat.before_assistant = chat.generation = "<|im_start|>assistant\n";
      chat.after_system = chat.after_user = chat.after_assistant = "<|im_end|>\n";
      break;
    case ChatFormat::llama2:
      chat.system = ChatTemplate::System::first_user;
      chat.trims = chat.alternates = true;
      chat.before_system = "<<SYS>>\n";
      chat.after_system = "\n<</SYS>>\n\n";
      chat.before_user = "{bos}[INST] ";
      chat.after_user = " [/INST]";
      chat.before_assistant = " ";
      chat.after_assistant = " {eos}";
      break;
    case ChatFormat::llama3:
      chat.begin = "{bos}";
      chat.trims = true;
      chat.before_system = "<|start_header_id|>system<|end_header_id|>\n\n";
      chat.before_user = "<|start_header_id|>user<|end_header_id|>\n\n";
      chat.before_assistant = chat.generation = "<|start_header_id|>assistant<|end_header_id|>\n\n";
      chat.after_system = chat.after_user = chat.after_assistant = "<|eot_id|>";
      break;
    case ChatFormat::mistral:
      chat.begin = "{bos}";
      chat.system = ChatTemplate::System::first_user;
      chat.alternates = true;
      chat.after_system = "\n\n";
      chat.before_user = "[INST] ";
      chat.after_user = "[/INST]";
      chat.before_assistant = " ";
      chat.after_assistant = "{eos}";
      break;
    case ChatFormat::zephyr:
      chat.before_system = "<|system|>\n";
      chat.before_user = "<|user|>\n";
      chat.before_assistant = chat.generation = "<|assistant|>\n";
      chat.after_system = chat.after_user = chat.after_assistant = "{eos}\n";
      break;
    case ChatFormat::alpaca:
      chat.after_system = chat.after_user = chat.after_assistant = "\n\n";
      chat.before_user = "### Instruction:\n";
      chat.before_assistant = chat.generation = "### Response:\n";
      break;
  }
  return chat;
}

ChatTemplate recognise_chat_template(std::string_view raw) {
  const std::string jinja = without_escapes(raw);
  for (const auto& [mark, what] : strangers)
    NIBBLE_CHECK(!has(jinja, mark), "chat template: it ", what,
                 ", which is not supported; choose one of: ", known_formats());
  ChatTemplate chat;
  const auto family = [&](ChatFormat format) { chat = standard_template(format); };
  if (has(jinja, "<|im_start|>") && has(jinja, "<|im_end|>")) {
    family(ChatFormat::chatml);
    refine_chatml(chat, raw, jinja);
  } else if (has(jinja, "<|start_header_id|>") && has(jinja, "<|eot_id|>")) {
    family(ChatFormat::llama3);
    refine_llama3(chat, jinja);
  } else if (has(jinja, "[INST]") && has(jinja, "<<SYS>>")) {
    family(ChatFormat::llama2);
    refine_llama2(chat, jinja);
  } else if (has(jinja, "[INST]")) {
    family(ChatFormat::mistral);
    refine_mistral(chat, jinja);
  } else if (has(jinja, "<|user|>\n") && has(jinja, "<|assistant|>") && has(jinja, "eos_token") &&
             !has(jinja, "<|end|>")) {
    family(ChatFormat::zephyr);
    refine_zephyr(chat, jinja);
  } else if (has(jinja, "### Instruction:") && has(jinja, "### Response:")) {
    family(ChatFormat::alpaca);
    refine_alpaca(chat, raw, jinja);
  } else {
    fail("chat template: none of the known families (", known_formats(), ") fits; it begins: ", raw.substr(0, 60));
  }
  return chat;
}

ChatFormat recognise_chat_format(std::string_view jinja) { return recognise_chat_template(jinja).format; }

ChatPrompt render_chat_prompt(const ChatTemplate& chat, std::span<const ChatMessage> messages,
                              bool add_generation_prompt, std::string_view bos, std::string_view eos) {
  check_order(chat, messages);
  const auto own = [&](std::string_view text) { return ChatPrompt{expand(text, bos, eos), {}}; };
  const bool own_turn = chat.system == ChatTemplate::System::turn, given = messages[0].role == "system";
  const ChatPrompt system = given ? content(messages[0].content) : ChatPrompt{chat.default_system, {}};
  const bool has_system = given || !system.text.empty() || chat.always_system;
  const size_t last_question = last_user(messages);
  const size_t host = chat.system == ChatTemplate::System::last_user ? last_question : first_user(messages);
  NIBBLE_CHECK(own_turn || !has_system || host < messages.size(), "chat: the ", name(chat.format),
               " template puts the system text into a user message, and there is none");

  ChatPrompt out = own(chat.begin);
  const size_t start = out.text.size();
  const auto write = [&](std::string_view before, const ChatPrompt& inside, std::string_view after) {
    if (out.text.size() > start) out.text += chat.separator;
    append(out, own(before));
    append(out, inside);
    append(out, own(after));
  };
  const auto cut = [&](ChatPrompt text, bool trims) { return chat.trims || trims ? trimmed(std::move(text)) : text; };
  if (own_turn && has_system)
    write(chat.before_system, given ? cut(system, chat.trims_system) : system, chat.after_system);
  for (size_t i = given ? 1 : 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "system") {
      write(chat.before_system, cut(content(message.content), false), chat.after_system);
    } else if (message.role == "user") {
      ChatPrompt question;
      if (!own_turn && has_system && i == host)
        for (const ChatPrompt& part : {own(chat.before_system), system, own(chat.after_system)}) append(question, part);
      append(question, content(message.content));
      write(chat.before_user, cut(question, false), chat.after_user);
    } else {
      const bool drops = chat.drops_thinking && i < last_question;
      const ChatPrompt answer = content(drops ? without_thinking(message.content) : message.content);
      write(chat.before_assistant, cut(answer, chat.trims_assistant), chat.after_assistant);
    }
  }
  if (add_generation_prompt) append(out, own(chat.generation));
  return out;
}

std::string render_chat(const ChatTemplate& chat, std::span<const ChatMessage> messages, bool add_generation_prompt,
                        std::string_view bos, std::string_view eos) {
  return render_chat_prompt(chat, messages, add_generation_prompt, bos, eos).text;
}

std::string render_chat(ChatFormat format, std::span<const ChatMessage> messages, bool add_generation_prompt,
                        std::string_view bos, std::string_view eos) {
  return render_chat(standard_template(format), messages, add_generation_prompt, bos, eos);
}

std::vector<std::string> chat_stop_strings(ChatFormat format) {
  switch (format) {
    case ChatFormat::chatml:
      return {"<|im_end|>"};
    case ChatFormat::llama3:
      return {"<|eot_id|>"};
    case ChatFormat::alpaca:
      return {"### Instruction:", "<|EOT|>"};
    case ChatFormat::zephyr:
      return {"<|user|>"};
    case ChatFormat::llama2:
    case ChatFormat::mistral:
      return {};
  }
  return {};
}

}  // namespace nibble::models
