"""Holds a conversation with a lab through the official client: openai_client.py BASE_URL.

The lab serves one model with a context of 512 tokens. Prints "all good", or fails.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=60)


def raised(kind, **arguments):
    """The error of that type that a chat request with these arguments raises."""
    defaults = {"model": model, "messages": question, "max_tokens": 4}
    try:
        client.chat.completions.create(**{**defaults, **arguments})
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} with {arguments}")


# Models.
models = client.models.list().data
assert len(models) == 1, models
model = models[0].id
assert client.models.retrieve(model).id == model
question = [{"role": "user", "content": "What is the capital of France?"}]
greedy = {"model": model, "temperature": 0, "max_tokens": 24}

# A conversation of two turns, each whole and streamed.
messages = [{"role": "system", "content": "You answer in one sentence."}, *question]
prompt_tokens = []
for turn in range(2):
    whole = client.chat.completions.create(messages=messages, **greedy)
    choice = whole.choices[0]
    assert choice.message.role == "assistant" and choice.message.content, whole
    assert choice.finish_reason in ("stop", "length"), whole
    usage = whole.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
    prompt_tokens.append(usage.prompt_tokens)

    text, finish, streamed_usage = "", None, None
    stream = client.chat.completions.create(
        messages=messages, stream=True, stream_options={"include_usage": True}, **greedy
    )
    for chunk in stream:
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        streamed_usage = chunk.usage or streamed_usage
    assert text == choice.message.content, (text, choice.message.content)
    assert finish == choice.finish_reason, (finish, choice.finish_reason)
    assert streamed_usage == usage, (streamed_usage, usage)

    # The message goes back as the client gave it.
    messages.append(choice.message)
    messages.append({"role": "user", "content": "And of Italy?"})
assert prompt_tokens[1] > prompt_tokens[0] + 10, prompt_tokens

# A limit, a stop string, and the older kind of request.
short = client.chat.completions.create(messages=question, **{**greedy, "max_tokens": 3})
assert short.choices[0].finish_reason == "length", short
assert short.usage.completion_tokens == 3, short
completion = client.completions.create(prompt="One, two, three,", **greedy)
assert completion.choices[0].text, completion
stop = completion.choices[0].text.split()[1]
stopped = client.completions.create(prompt="One, two, three,", stop=stop, **greedy)
assert stopped.choices[0].finish_reason == "stop", stopped
assert stop not in stopped.choices[0].text, stopped

# Errors have the types that the client knows.
error = raised(openai.BadRequestError, messages=[{"role": "user", "content": "word " * 600}])
assert error.code == "context_length_exceeded", error
assert "512" in error.message, error
error = raised(openai.BadRequestError, audio={"voice": "a", "format": "wav"})
assert (error.code, error.param) == ("unsupported_parameter", "audio"), error
image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
error = raised(openai.BadRequestError, messages=[{"role": "user", "content": [image]}])
assert error.param == "messages[0].content[0].type", error
error = raised(openai.BadRequestError, n=99)
assert error.param == "n", error
error = raised(openai.BadRequestError, temperature=3)
assert error.param == "temperature", error
error = raised(openai.NotFoundError, model="gpt-4o")
assert error.code == "model_not_found" and model in error.message, error

# Four at once, each with the answer that it gets alone.
questions = ["Name a colour.", "Count to five.", "Say hello.", "What is water?"]


def ask(content):
    messages = [{"role": "user", "content": content}]
    return client.chat.completions.create(messages=messages, **greedy).choices[0].message.content


alone = [ask(content) for content in questions]
with ThreadPoolExecutor(4) as pool:
    together = list(pool.map(ask, questions))
assert together == alone, (together, alone)

print("all good")
