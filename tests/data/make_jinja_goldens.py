#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes jinja_goldens.json: what transformers' apply_chat_template renders for chat templates, its clock stopped.

usage: make_jinja_goldens.py FOLDER [MORE.jinja ...] > jinja_goldens.json

FOLDER has jinja/*.jinja and ollama/templates.jsonl, the templates of real models. They stay where they are: a golden
names its source and the test reads it from there, and of the text it keeps length and FNV-1a hash. The templates of
jinja_cases.json are small ones written for the test; their whole text is in the goldens. null: the reference raises.
"""
import datetime, json, pathlib, sys

import jinja2
from transformers.utils import chat_template_utils as reference


class Stopped(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 13, 5, 9)


reference.datetime = Stopped

HELLO = {"role": "user", "content": "Hello, how are you?"}
GREAT = {"role": "assistant", "content": "  I'm doing great.\nHow can I help you today? "}
SYSTEM = {"role": "system", "content": " You are a helpful assistant.\n"}
SHOW = {"role": "user", "content": " I'd like to show off how {bos} and {{ templating }} work! <b>é</b> \n"}
THOUGHT = {"role": "assistant", "content": "<think>\nhm, {eos}\n</think>\n\nFine."}
REASONED = {"role": "assistant", "content": "Fine.", "reasoning_content": "Let me see."}
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a \"place\" & more.",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "The city's name"},
        "days": {"type": "integer", "description": "How many", "enum": [1, 3]},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Any"},
        "extra": {"type": "object", "description": "More", "additionalProperties": {"type": "number"}}}},
    "return": {"type": "string", "description": "A report"}}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time.", "parameters": {
    "type": "object", "properties": {}, "required": []}}}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdef123", "type": "function", "function": {
    "name": "get_weather", "arguments": {"city": "Zürich", "days": 3, "extra": {"a": 1.5, "b": None, "c": True}}}}]}
TWO_CALLS = {"role": "assistant", "content": "Both.", "tool_calls": CALL["tool_calls"] + [
    {"id": "abcdef124", "type": "function", "function": {"name": "clock", "arguments": {}}}]}
ANSWER = {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": "{\"sky\": \"clear\"}"}
ANSWER2 = {"role": "tool", "tool_call_id": "abcdef124", "name": "clock", "content": "noon"}
DOCUMENTS = [{"title": "One", "text": "First text.", "doc_id": 1}, {"title": "Two", "text": "Second\ntext.", "doc_id": 2}]
PARTS = {"role": "user", "content": [{"type": "text", "text": "What "}, {"type": "text", "text": "is it?"}]}

CONVERSATIONS = {
    "user": {"messages": [HELLO]},
    "no-prompt": {"messages": [HELLO, GREAT], "add_generation_prompt": False},
    "multi": {"messages": [HELLO, GREAT, SHOW]},
    "system-multi": {"messages": [SYSTEM, HELLO, GREAT, SHOW]},
    "thought": {"messages": [HELLO, THOUGHT, SHOW]},
    "reasoned": {"messages": [SYSTEM, HELLO, REASONED, SHOW, REASONED], "add_generation_prompt": False},
    "assistant-first": {"messages": [GREAT, HELLO]},
    "tools": {"messages": [SYSTEM, HELLO], "tools": [WEATHER, CLOCK]},
    "tools-no-system": {"messages": [HELLO], "tools": [WEATHER]},
    "tool-call": {"messages": [SYSTEM, HELLO, CALL, ANSWER], "tools": [WEATHER, CLOCK]},
    "tool-call-done": {"messages": [HELLO, CALL, ANSWER, GREAT, SHOW], "tools": [WEATHER]},
    "two-calls": {"messages": [HELLO, TWO_CALLS, ANSWER, ANSWER2], "tools": [WEATHER, CLOCK]},
    "documents": {"messages": [SYSTEM, HELLO], "documents": DOCUMENTS},
    "parts": {"messages": [PARTS]},
    "options": {"messages": [SYSTEM, HELLO], "enable_thinking": False, "thinking": True, "date_string": "1 Jan 2025"},
    "bad-role": {"messages": [{"role": "narrator", "content": "x"}]},
    "empty": {"messages": []},
}


def render(source, conversation):
    arguments = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", **conversation}
    arguments["conversations"] = [arguments.pop("messages")]
    try:
        return reference.render_jinja_template(chat_template=source, **arguments)[0][0]
    except Exception:  # the template's own refusal, or a mistake in it
        return None


def digest(text):
    if text is None:
        return None
    state = 0xCBF29CE484222325
    for byte in text.encode("utf-8", "surrogatepass"):
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return [len(text.encode("utf-8", "surrogatepass")), f"{state:016x}"]


def main(folder, more):
    sources = []
    for path in sorted((folder / "jinja").glob("*.jinja")):
        sources.append(("jinja/" + path.name, None, path.read_text()))
    for number, line in enumerate((folder / "ollama/templates.jsonl").read_text().splitlines()):
        sources.append(("ollama/templates.jsonl", number, next(iter(json.loads(line).values()))))
    for path in more:
        sources.append((str(pathlib.Path(path).resolve()), None, pathlib.Path(path).read_text()))
    goldens = []
    for source, line, text in sources:
        renderings = {name: digest(render(text, one)) for name, one in CONVERSATIONS.items()}
        goldens.append({"source": source, "line": line, "renderings": renderings})
    cases = json.loads((pathlib.Path(__file__).parent / "jinja_cases.json").read_text())
    own = [{"template": case, "text": render(case, {**CONVERSATIONS["tool-call"], "add_generation_prompt": True})}
           for case in cases]
    whole = {}
    for source, _, text in sources:
        if source.startswith("jinja/") and any(name in source for name in ("Llama-3.2", "Qwen3", "Nemo")):
            whole[source] = {name: render(text, CONVERSATIONS[name]) for name in ("system-multi", "tool-call")}
    out = {"conversations": CONVERSATIONS, "own": own, "whole": whole, "goldens": goldens}
    print("{")
    for index, (key, value) in enumerate(out.items()):
        lines = value if isinstance(value, list) else None
        comma = "," if index + 1 < len(out) else ""
        if lines is None:
            print(f"{json.dumps(key)}: {json.dumps(value)}{comma}")
        else:
            body = ",\n".join(json.dumps(one) for one in lines)
            print(f"{json.dumps(key)}: [\n{body}\n]{comma}")
    print("}")


main(pathlib.Path(sys.argv[1]), sys.argv[2:])
