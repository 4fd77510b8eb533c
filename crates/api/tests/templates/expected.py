"""Writes expected.json: every template here over every conversation, rendered by Jinja2 itself in
the environment of the Hugging Face libraries. Run with Jinja2 3.1 after changing a template."""

import datetime
import json
import pathlib

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent
NOW = 1741262716

user = lambda text: {"role": "user", "content": text}
model = lambda text: {"role": "assistant", "content": text}
system = lambda text: {"role": "system", "content": text}

CONVERSATIONS = {
    "one": [user("Hello")],
    "system": [system("Be brief."), user("Hello")],
    "turns": [
        system("  Sei kurz. "),
        user(" Wie geht's? <b>&amp;</b> {{ 7*7 }} {% x %}\n"),
        model("<think>\nhm\n</think>\n\nGut, 谢谢 😀! "),
        user("line one\nline two\\n\t\"quoted\" 'too'"),
    ],
    "named": [user("first"), {**user("second"), "name": "Ann"}, user("third")],
    "twice": [user("a"), user("b")],
    "prefill": [user("a"), model("b")],
    "late system": [user("a"), model("b"), system("c"), user("d")],
    "empty": [user("")],
}


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def strftime_now(form):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(form)


environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
)
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception
environment.globals["strftime_now"] = strftime_now

expected = {}
for path in sorted(HERE.glob("*.jinja")):
    template = environment.from_string(path.read_bytes().decode())
    results = expected[path.stem] = {}
    for name, messages in CONVERSATIONS.items():
        try:
            results[name] = {
                "prompt": template.render(
                    messages=messages,
                    tools=None,
                    documents=None,
                    add_generation_prompt=True,
                    bos_token="<s>",
                    eos_token="</s>",
                )
            }
        except TemplateError as error:
            results[name] = {"refused": error.message}

document = {"now": NOW, "conversations": CONVERSATIONS, "expected": expected}
text = json.dumps(document, ensure_ascii=False, indent=1)
(HERE / "expected.json").write_text(text + "\n")
