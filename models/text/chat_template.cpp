// SPDX-License-Identifier: Apache-2.0
#include "models/text/chat_template.h"

#include <algorithm>

#include "tensor/check.h"

namespace nibble::models {

namespace {

struct BuiltIn {
  std::string_view name;
  std::string_view mark;  ///< a token that vocabularies of such models have; "": none tells them
  std::string_view jinja;
};

constexpr BuiltIn built_ins[] = {
    {"chatml", "<|im_start|>",
     "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"},
    {"llama3", "<|start_header_id|>",
     "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + "
     "m.content|trim "
     "+ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
     "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"},
    {"gemma", "<start_of_turn>",
     "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
     "{% set ns.system = m.content|trim + '\n\n' %}{% else %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' "
     "else "
     "m.role) + '\n' + ns.system + m.content|trim + '<end_of_turn>\n' }}{% set ns.system = '' %}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"},
    {"mistral", "[INST]",
     "{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
     "{% set ns.system = m.content + '\n\n' %}{% elif m.role == 'user' %}{{ '[INST] ' + ns.system + m.content + "
     "'[/INST]' }}"
     "{% set ns.system = '' %}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"},
    {"zephyr", "",
     "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"},
    {"llama2", "",
     "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
     "{% set ns.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}{% elif m.role == 'user' %}"
     "{{ bos_token + '[INST] ' + (ns.system + m.content)|trim + ' [/INST]' }}{% set ns.system = '' %}{% else %}"
     "{{ ' ' + m.content|trim + ' ' + eos_token }}{% endif %}{% endfor %}"},
    {"alpaca", "",
     "{% for m in messages %}{{ {'user': '### Instruction:\n', 'assistant': '### Response:\n'}.get(m.role, '') + "
     "m.content "
     "+ '\n\n' }}{% endfor %}{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"},
};

std::string known_names() {
  std::string out;
  for (const BuiltIn& one : built_ins) out.append(out.empty() ? "" : ", ").append(one.name);
  return out;
}

using jinja::Value;

Value json_or_none(const std::string& json) {
  return json.empty() ? Value(jinja::None{}) : jinja::parse_json(json, true);
}

/// Reasoning goes by several names in templates.
void add_reasoning(jinja::Dict& message) {
  for (std::string_view name : {"reasoning_content", "thinking", "reasoning"}) {
    const Value* found = message.find(name);
    if (found == nullptr || found->is(Value::Kind::none)) continue;
    const Value reasoning = *found;
    message.set(jinja::text_value("reasoning_content"), reasoning);
    if (message.find(std::string_view("thinking")) == nullptr) message.set(jinja::text_value("thinking"), reasoning);
    return;
  }
}

Value to_value(const ChatMessage& message) {
  auto out = std::make_shared<jinja::Dict>();
  out->set(jinja::text_value("role"), jinja::text_value(message.role));
  out->set(jinja::text_value("content"), Value(jinja::whole_plain(message.content)));
  if (!message.json.empty()) {
    const Value more = jinja::parse_json(message.json, true);
    NIBBLE_CHECK(more.is(Value::Kind::dict), "chat: expected a JSON object of members of a message");
    for (const auto& [key, value] : more.dict().items) out->set(key, value);
  }
  add_reasoning(*out);
  return out;
}

}  // namespace

std::vector<std::string_view> chat_template_names() {
  std::vector<std::string_view> out;
  for (const BuiltIn& one : built_ins) out.push_back(one.name);
  return out;
}

ChatTemplate ChatTemplate::parse(std::string_view source) { return ChatTemplate(jinja::Template::parse(source)); }

ChatTemplate ChatTemplate::named(std::string_view name) {
  for (const BuiltIn& one : built_ins)
    if (one.name == name) return parse(one.jinja);
  fail("unknown chat template '", name, "'; known: ", known_names());
}

ChatTemplate ChatTemplate::guess(const Tokenizer& tokenizer) {
  for (const BuiltIn& one : built_ins)
    if (!one.mark.empty() && tokenizer.find(one.mark) >= 0) return parse(one.jinja);
  fail("the model has no chat template, and its vocabulary does not tell which to use; choose one of: ", known_names());
}

ChatPrompt ChatTemplate::render(const ChatRequest& request, const jinja::RenderOptions& options) const {
  std::vector<Value> messages;
  for (const ChatMessage& message : request.messages) messages.push_back(to_value(message));
  auto variables = std::make_shared<jinja::Dict>();
  const auto set = [&](std::string_view name, const Value& value) { variables->set(jinja::text_value(name), value); };
  set("messages", jinja::list_value(std::move(messages)));
  set("tools", json_or_none(request.tools));
  set("documents", json_or_none(request.documents));
  set("add_generation_prompt", request.add_generation_prompt);
  set("bos_token", jinja::text_value(request.bos));
  set("eos_token", jinja::text_value(request.eos));
  if (!request.variables.empty()) {
    const Value more = jinja::parse_json(request.variables, true);
    NIBBLE_CHECK(more.is(Value::Kind::dict), "chat: expected a JSON object of variables");
    for (const auto& [key, value] : more.dict().items) variables->set(key, value);
  }
  jinja::Rendered out = template_.render(Value(std::move(variables)), options);
  return {std::move(out.text.bytes), std::move(out.text.plain), std::move(out.generation)};
}

namespace {
ChatRequest with_tokens(ChatRequest request, const Tokenizer& tokenizer) {
  if (tokenizer.bos() >= 0) request.bos = tokenizer.token_text(tokenizer.bos());
  if (tokenizer.eos() >= 0) request.eos = tokenizer.token_text(tokenizer.eos());
  return request;
}
}  // namespace

std::string ChatTemplate::answer_end(const Tokenizer& tokenizer) const {
  const ChatRequest request = with_tokens({{{"user", "uuu"}, {"assistant", "aaa"}, {"user", "vvv"}}, true}, tokenizer);
  std::string text;
  try {
    text = render(request).text;
  } catch (const Error&) {
    return "";  // the real conversation will say why
  }
  const size_t answer = text.find("aaa"), next = text.find("vvv");
  if (answer == std::string::npos || next == std::string::npos || next < answer) return "";
  const std::string between = text.substr(answer + 3, next - answer - 3);
  for (int32_t token : tokenizer.encode(between, {.add_bos = false, .parse_special = true}))
    if (tokenizer.is_control(token)) return std::string(tokenizer.token_text(token));
  const jinja::Text turn = jinja::stripped({between}, jinja::Side::both);
  return turn.bytes.substr(0, turn.bytes.find('\n'));
}

std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat, ChatRequest request) {
  request = with_tokens(std::move(request), tokenizer);
  const ChatPrompt prompt = chat.render(request);
  const size_t own = prompt.contents.empty() ? prompt.text.size() : prompt.contents.front().begin;
  const bool has_bos = !request.bos.empty() && own >= request.bos.size() && prompt.text.starts_with(request.bos);
  return tokenizer.encode(prompt.text, {.add_bos = !has_bos, .parse_special = true, .plain = prompt.contents});
}

}  // namespace nibble::models
