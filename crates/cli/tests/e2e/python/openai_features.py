"""What a model is made to do, through the official client: openai_features.py BASE_URL [KEY].

The server has one small model, with a chat template that knows tools. What is checked holds
whatever the model makes of a question. Prints "all good", or fails.
"""

import json
import math
import sys

import openai

key = sys.argv[2] if len(sys.argv) > 2 else "none"
client = openai.OpenAI(base_url=sys.argv[1], api_key=key, max_retries=0, timeout=120)
model = client.models.list().data[0].id
question = [{"role": "user", "content": "What is the weather in Oslo?"}]


def ask(**arguments):
    defaults = {"model": model, "messages": question, "max_tokens": 60, "temperature": 0}
    return client.chat.completions.create(**{**defaults, **arguments})


# Several choices: the first is what the seed gives alone, and all can be had again.
three = ask(n=3, temperature=1, seed=5, max_tokens=12)
alone = ask(temperature=1, seed=5, max_tokens=12)
again = ask(n=3, temperature=1, seed=5, max_tokens=12)
texts = [choice.message.content for choice in three.choices]
assert len(set(texts)) > 1, texts
assert texts[0] == alone.choices[0].message.content, (texts, alone)
assert texts == [choice.message.content for choice in again.choices], (texts, again)
assert three.usage.completion_tokens >= 3, three.usage

# Log-probabilities: the greedy token is the likeliest, and the tokens are the text.
answer = ask(logprobs=True, top_logprobs=3, max_tokens=8).choices[0]
tokens = answer.logprobs.content
assert "".join(token.token for token in tokens) == answer.message.content, answer
for token in tokens:
    assert token.top_logprobs[0].token == token.token, token
    logprobs = [likely.logprob for likely in token.top_logprobs]
    assert logprobs == sorted(logprobs, reverse=True) and len(logprobs) == 3, token
    assert sum(math.exp(logprob) for logprob in logprobs) < 1.0001, token
older = client.completions.create(model=model, prompt="One, two,", logprobs=2, max_tokens=4)
assert len(older.choices[0].logprobs.tokens) == 4, older

# A bias decides: one token is forced, and then ruled out.
def one_token(**bias):
    prompt = {"prompt": "Once upon a", "max_tokens": 1, "temperature": 0}
    return client.completions.create(model=model, **prompt, **bias).choices[0].text


forced, banned = one_token(logit_bias={"253": 100}), one_token(logit_bias={"253": -100})
assert forced != banned, (forced, banned)
assert one_token() in (forced, banned), (forced, banned)

# JSON, and JSON by a schema, whatever the temperature.
plain = [{"role": "user", "content": 'Write this: {"city": "Oslo"}'}]
answer = ask(messages=plain, response_format={"type": "json_object"}).choices[0]
assert answer.finish_reason == "stop", answer
assert isinstance(json.loads(answer.message.content), dict), answer
schema = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "sky": {"enum": ["clear", "cloudy", "rain"]},
        "degrees": {"type": "integer"},
        "hours": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
        "note": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/note"}]},
    },
    "required": ["city", "sky", "degrees", "hours", "note"],
    "additionalProperties": False,
    "$defs": {
        "note": {
            "type": "object",
            "properties": {"on": {"type": "string", "format": "date"}},
            "required": ["on"],
            "additionalProperties": False,
        }
    },
}
formatted = {"type": "json_schema", "json_schema": {"name": "w", "strict": True, "schema": schema}}
for seed in range(4):
    answer = ask(response_format=formatted, temperature=1, seed=seed, max_tokens=300).choices[0]
    assert answer.finish_reason == "stop", answer
    value = json.loads(answer.message.content)
    assert list(value) == ["city", "sky", "degrees", "hours", "note"], value
    assert value["sky"] in ("clear", "cloudy", "rain") and len(value["city"]) <= 12, value
    assert isinstance(value["degrees"], int) and 2 <= len(value["hours"]) <= 3, value
    assert value["note"] is None or list(value["note"]) == ["on"], value
bad = {"type": "json_schema", "json_schema": {"name": "w", "schema": {"type": "string", "pattern": "a(?=b)"}}}
try:
    ask(response_format=bad)
    raise AssertionError("a look-ahead is not kept")
except openai.BadRequestError as error:
    assert "'pattern'" in error.message, error

# Tools: forced, whole and streamed, and the result goes back.
weather = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Oslo", "Rome"]},
                "days": {"type": "integer"},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
clock = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
named = {"type": "function", "function": {"name": "get_weather"}}
forced = ask(tools=[clock, weather], tool_choice=named).choices[0]
assert forced.finish_reason == "tool_calls", forced
(call,) = forced.message.tool_calls
assert call.function.name == "get_weather", call
assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome"), call

calls, finish = {}, None
stream = ask(tools=[clock, weather], tool_choice=named, stream=True)
for chunk in stream:
    for delta in chunk.choices[0].delta.tool_calls or []:
        so_far = calls.setdefault(delta.index, {"name": "", "arguments": ""})
        so_far["name"] += delta.function.name or ""
        so_far["arguments"] += delta.function.arguments or ""
    finish = chunk.choices[0].finish_reason or finish
assert finish == "tool_calls", finish
assert calls == {0: {"name": "get_weather", "arguments": call.function.arguments}}, calls

either = ask(tools=[clock, weather], tool_choice="required", parallel_tool_calls=False)
assert len(either.choices[0].message.tool_calls) == 1, either
assert either.choices[0].message.tool_calls[0].function.name in ("get_time", "get_weather"), either
free = ask(tools=[weather], tool_choice="auto").choices[0]
assert free.message.content or free.message.tool_calls, free
unused = ask(tools=[weather], tool_choice="none").choices[0]
assert unused.message.content and not unused.message.tool_calls, unused

result = {"role": "tool", "tool_call_id": call.id, "content": "rain, 7 degrees"}
after = ask(messages=[*question, forced.message, result], tools=[weather])
assert after.usage.prompt_tokens > either.usage.prompt_tokens, after

print("all good")
