#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes chat_goldens.json: what Jinja2, set up as Hugging Face transformers sets it up, renders for chat templates.

usage: make_chat_goldens.py FOLDER > chat_goldens.json

FOLDER has jinja/*.jinja and ollama/templates.jsonl, the templates of real models. They stay where they are: a golden
names its source and the test reads it from there. The templates in OWN are written for this test and are in the goldens.
"""
import datetime, json, pathlib, sys

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

FAMILIES = ["<|im_start|>", "<|start_header_id|>", "[INST]", "<|user|>", "### Instruction:"]
HELLO = {"role": "user", "content": "Hello, how are you?"}
GREAT = {"role": "assistant", "content": "  I'm doing great.\nHow can I help you today? "}
SYSTEM = {"role": "system", "content": " You are a helpful assistant.\n"}
SHOW = {"role": "user", "content": " I'd like to show off how {bos} and {{ templating }} work! \n"}
THOUGHT = {"role": "assistant", "content": "<think>\nhm, {eos}\n</think>\n\nFine."}
CONVERSATIONS = {
    "user": [HELLO],
    "user-assistant-user": [HELLO, GREAT, SHOW],
    "system-user-assistant-user": [SYSTEM, HELLO, GREAT, SHOW],
    "thought": [HELLO, THOUGHT, SHOW],
    "assistant-first": [GREAT, HELLO],
}
LOOP = "{% for m in messages %}"
TURN = "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
DEFAULT = ("{% if loop.first and messages[0]['role'] != 'system' %}"
           "{{ '<|im_start|>system\\nYou answer Bob\\'s \"questions\".<|im_end|>\\n' }}{% endif %}")
HEADER = "'<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + "
OWN = {
    "chatml": LOOP + TURN + ASK,
    "chatml-real-line-feeds": (LOOP + TURN + ASK).replace("\\n", "\n"),
    "chatml-bos": "{{ bos_token }}" + LOOP + TURN + ASK,
    "chatml-default-system": LOOP + DEFAULT + TURN + ASK,
    "llama3": LOOP + "{% if loop.first %}{{ bos_token }}{% endif %}{{ " + HEADER + "m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "llama3-untrimmed": "{{ bos_token }}" + LOOP + "{{ " + HEADER + "m['content'] + '<|eot_id|>' }}{% endfor %}"
                        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "mistral": "{{ bos_token }}" + LOOP + "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}"
               "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}",
    "zephyr": LOOP + "\n{% if m['role'] == 'user' %}\n{{ '<|user|>\\n' + m['content'] + eos_token }}\n"
              "{% elif m['role'] == 'system' %}\n{{ '<|system|>\\n' + m['content'] + eos_token }}\n"
              "{% else %}\n{{ '<|assistant|>\\n' + m['content'] + eos_token }}\n{% endif %}\n"
              "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "zephyr-on-one-line": LOOP + "{% if m['role'] == 'user' %}{{ '<|user|>\\n' + m['content'] + eos_token + '\\n' }}"
                          "{% elif m['role'] == 'system' %}{{ '<|system|>\\n' + m['content'] + eos_token + '\\n' }}"
                          "{% else %}{{ '<|assistant|>\\n' + m['content'] + eos_token + '\\n' }}{% endif %}{% endfor %}"
                          "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
    "mistral-v3": "{{ bos_token }}" + LOOP + "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}"
                  "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + '[/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}",
}


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def main(folder):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.date(2024, 7, 26).strftime(form)
    sources = [("own", key, text) for key, text in OWN.items()]
    for number, line in enumerate((folder / "ollama/templates.jsonl").read_text().splitlines()):
        sources.append(("ollama/templates.jsonl", number, next(iter(json.loads(line).values()))))
    for path in sorted((folder / "jinja").glob("*.jinja")):
        sources.append(("jinja/" + path.name, None, path.read_text()))
    goldens = []
    for source, key, text in sources:
        if not any(mark in text for mark in FAMILIES):
            continue
        golden = {"source": source, "key": key, "renderings": {}}
        if source == "own":
            golden["jinja"] = text
        template = environment.from_string(text)
        for name, messages in CONVERSATIONS.items():
            try:
                out = template.render(messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
            except jinja2.exceptions.TemplateError:
                out = None
            golden["renderings"][name] = out
        goldens.append(golden)
    json.dump({"bos": "<s>", "eos": "</s>", "conversations": CONVERSATIONS, "goldens": goldens}, sys.stdout, indent=1)
    print()


main(pathlib.Path(sys.argv[1]))
