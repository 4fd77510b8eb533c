"""Holds a conversation with a lab through Anthropic's client: anthropic_client.py ROOT_URL.

The lab serves one small model, with a chat template that knows tools. Prints "all good", or fails.
"""

import json
import sys

import anthropic

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120)
model = client.models.list().data[0].id
question = [{"role": "user", "content": "What is the capital of France?"}]
# This client has no name for it any more; the server takes it.
coldest = {"temperature": 0}
greedy = {"model": model, "max_tokens": 24, "messages": question, "extra_body": coldest}

# Whole and streamed.
message = client.messages.create(system="You answer in one sentence.", **greedy)
assert message.role == "assistant" and message.type == "message", message
assert message.content[0].type == "text" and message.content[0].text, message
assert message.stop_reason in ("end_turn", "max_tokens"), message
assert message.usage.input_tokens > 0 and 0 < message.usage.output_tokens <= 24, message
with client.messages.stream(system="You answer in one sentence.", **greedy) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text == message.content[0].text == final.content[0].text, (text, message, final)
assert final.stop_reason == message.stop_reason, (final, message)
assert final.usage.output_tokens == message.usage.output_tokens, (final, message)

# Why it stops.
short = client.messages.create(**{**greedy, "max_tokens": 2})
assert short.stop_reason == "max_tokens" and short.usage.output_tokens == 2, short
stop = message.content[0].text.split()[1]
stopped = client.messages.create(
    system="You answer in one sentence.", stop_sequences=[stop], **greedy
)
assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", stop), stopped

# Tools: forced, whole and streamed, and the result goes back.
weather = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
asked = {**greedy, "tools": [weather], "max_tokens": 60}
any_one = {"type": "any", "disable_parallel_tool_use": True}
forced = client.messages.create(tool_choice=any_one, **asked)
assert forced.stop_reason == "tool_use", forced
use = forced.content[-1]
assert use.type == "tool_use" and use.name == "get_weather", use
assert use.input["city"] in ("Oslo", "Rome"), use
with client.messages.stream(tool_choice={"type": "tool", "name": "get_weather"}, **asked) as stream:
    final = stream.get_final_message()
assert final.content[-1].input["city"] in ("Oslo", "Rome"), final
result = {"type": "tool_result", "tool_use_id": use.id, "content": "rain"}
after = client.messages.create(
    **{
        **asked,
        "messages": [
            *question,
            {"role": "assistant", "content": forced.content},
            {"role": "user", "content": [result]},
        ],
    }
)
assert after.usage.input_tokens > forced.usage.input_tokens, after

# JSON by a schema.
schema = {
    "type": "object",
    "properties": {"capital": {"enum": ["Paris", "Rome"]}, "large": {"type": "boolean"}},
    "required": ["capital", "large"],
    "additionalProperties": False,
}
output = {"format": {"type": "json_schema", "schema": schema}}
formatted = client.messages.create(output_config=output, **{**greedy, "max_tokens": 100})
assert list(json.loads(formatted.content[0].text)) == ["capital", "large"], formatted

# Errors have the types that the client knows.
for kind, arguments in [
    (anthropic.NotFoundError, {"model": "claude"}),
    (anthropic.BadRequestError, {"extra_body": {"temperature": 3}}),
    (anthropic.BadRequestError, {"messages": [{"role": "user", "content": "word " * 600}]}),
]:
    try:
        client.messages.create(**{**greedy, **arguments})
    except kind as error:
        assert error.body["error"]["message"], error.body
    else:
        raise AssertionError(f"no {kind.__name__} with {list(arguments)}")

print("all good")
