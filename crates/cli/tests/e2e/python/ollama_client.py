"""Holds a conversation with a lab through Ollama's client: ollama_client.py ROOT_URL.

The lab serves one small model, with a chat template that knows tools. Prints "all good", or fails.
"""

import json
import sys

import ollama

client = ollama.Client(host=sys.argv[1], timeout=120)
(listed,) = client.list().models
model = listed.model
assert listed.size > 0 and listed.details.format == "gguf", listed
(loaded,) = client.ps().models
assert loaded.model == model and loaded.size_vram == listed.size, loaded
shown = client.show(model)
assert "tools" in shown.capabilities and shown.template, shown
question = [{"role": "user", "content": "What is the capital of France?"}]
options = {"temperature": 0, "num_predict": 24}

# Whole and streamed.
whole = client.chat(model, messages=question, options=options)
assert whole.message.role == "assistant" and whole.message.content, whole
assert whole.done and whole.done_reason in ("stop", "length"), whole
assert whole.prompt_eval_count > 0 and 0 < whole.eval_count <= 24, whole
pieces = list(client.chat(model, messages=question, options=options, stream=True))
assert "".join(piece.message.content for piece in pieces) == whole.message.content, pieces
assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True], pieces
assert pieces[-1].eval_count == whole.eval_count, pieces[-1]
generated = client.generate(model, prompt=question[0]["content"], options=options)
assert generated.response == whole.message.content, (generated, whole)
raw = client.generate(f"{model}:latest", prompt="One, two,", raw=True, options=options)
assert raw.response, raw

# JSON by a schema.
schema = {
    "type": "object",
    "properties": {"capital": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
    "required": ["capital", "large"],
}
formatted = client.chat(
    model, messages=question, format=schema, options={"temperature": 0, "num_predict": 200}
)
assert list(json.loads(formatted.message.content)) == ["capital", "large"], formatted

# Tools: the model may call, and calls go back.


def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
      city: The city
    """
    return f"rain in {city}"


free = client.chat(model, messages=question, tools=[get_weather], options=options)
assert free.message.content or free.message.tool_calls, free
call = {"function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
history = [
    *question,
    {"role": "assistant", "content": "", "tool_calls": [call]},
    {"role": "tool", "tool_name": "get_weather", "content": "rain"},
]
after = client.chat(model, messages=history, tools=[get_weather], options=options)
assert after.prompt_eval_count > free.prompt_eval_count, (after, free)

# Errors.
for arguments, status in [
    ({"model": "nobody"}, 404),
    ({"model": model, "options": {"num_ctx": 99999}}, 400),
]:
    try:
        client.chat(messages=question, **arguments)
    except ollama.ResponseError as error:
        assert error.status_code == status and error.error, error
    else:
        raise AssertionError(f"no error with {arguments}")

print("all good")
