//! Tools and thoughts, in OpenAI's form.

use axum::http::StatusCode;
use brigade_api::Prompt;
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, chat};

/// A template of the Hermes family whose models think aloud.
pub(crate) const HERMES: &str = "{% for t in tools or [] %}[{{ t.function.name }}:\
    {{ t.function.parameters | tojson }}]{% endfor %}{% for m in messages %}<{{ m.role }}>\
    {{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.arguments | tojson }}\
    </tool_call>{% endfor %}{% endfor %}<assistant>\
    {% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}";

pub(crate) const CALLING: &[&str] = &[
    "<think>\n",
    "hm",
    "m</th",
    "ink>\n\n",
    "I look.",
    "\n<tool",
    "_call>\n{\"name\": \"weather\", ",
    "\"arguments\": {\"city\": \"Oslo\"}}",
    "\n</tool_call>",
];

fn weather() -> Value {
    json!([{"type": "function", "function": {
        "name": "weather",
        "description": "The weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    }}])
}

fn ok(reply: &Reply) -> Value {
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    reply.json()
}

#[tokio::test]
async fn a_call_is_taken_out_of_the_answer() {
    let fake = Fake::saying(HERMES, CALLING);
    let reply = ok(&chat(fake.router(), json!({"tools": weather()})).await);
    let choice = &reply["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let message = &choice["message"];
    assert_eq!(message["content"], "I look.");
    assert_eq!(message["reasoning_content"], "hmm");
    let call = &message["tool_calls"][0];
    assert_eq!(call["type"], "function");
    assert_eq!(
        call["function"],
        json!({"name": "weather", "arguments": "{\"city\":\"Oslo\"}"})
    );
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    let requests = fake.requests.lock().unwrap();
    let Prompt::Rendered(prompt) = &requests[0].prompt else {
        panic!("not rendered");
    };
    assert!(
        prompt.starts_with("[weather:{\"type\": \"object\", \"properties\": {\"city\""),
        "{prompt}"
    );
    assert_eq!(requests[0].visible, ["<tool_call>", "</tool_call>"]);
    assert_eq!(requests[0].sampling.grammar, None);
}

#[tokio::test]
async fn a_call_is_streamed_as_deltas() {
    let extra = json!({"tools": weather(), "stream": true});
    let events = chat(Fake::saying(HERMES, CALLING).router(), extra)
        .await
        .events();
    let deltas: Vec<&Value> = events
        .iter()
        .map(|event| &event["choices"][0]["delta"])
        .collect();
    let joined = |name: &str| {
        deltas
            .iter()
            .filter_map(|d| d[name].as_str())
            .collect::<String>()
    };
    assert_eq!(joined("content"), "I look.");
    assert_eq!(joined("reasoning_content"), "hmm");
    let calls: Vec<&Value> = deltas
        .iter()
        .map(|d| &d["tool_calls"][0])
        .filter(|c| !c.is_null())
        .collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["index"], 0);
    assert_eq!(calls[0]["function"]["arguments"], "{\"city\":\"Oslo\"}");
    let finish = events
        .iter()
        .find_map(|e| e["choices"][0]["finish_reason"].as_str());
    assert_eq!(finish, Some("tool_calls"));
}

#[tokio::test]
async fn a_forced_call_has_a_grammar() {
    for (choice, name) in [
        (json!("required"), "any"),
        (
            json!({"type": "function", "function": {"name": "weather"}}),
            "named",
        ),
    ] {
        let fake = Fake::saying(HERMES, CALLING);
        ok(&chat(
            fake.router(),
            json!({"tools": weather(), "tool_choice": choice}),
        )
        .await);
        let grammar = fake.requests.lock().unwrap()[0]
            .sampling
            .grammar
            .clone()
            .unwrap();
        assert!(
            grammar.contains("::= \"<tool_call>\" "),
            "{name}: {grammar}"
        );
        assert!(
            grammar.contains("\"\\\"city\\\"\" space"),
            "{name}: {grammar}"
        );
    }
    let fake = Fake::saying(HERMES, CALLING);
    let mut strict = weather();
    strict[0]["function"]["strict"] = json!(true);
    ok(&chat(fake.router(), json!({"tools": strict})).await);
    let grammar = fake.requests.lock().unwrap()[0]
        .sampling
        .grammar
        .clone()
        .unwrap();
    assert!(grammar.starts_with("root ::= scan-"), "{grammar}");
}

#[tokio::test]
async fn without_tools_marks_are_text() {
    for extra in [
        json!({}),
        json!({"tools": weather(), "tool_choice": "none"}),
    ] {
        let fake = Fake::saying(HERMES, CALLING);
        let reply = ok(&chat(fake.router(), extra).await);
        let content = reply["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(content.contains("<tool_call>"), "{content}");
        assert_eq!(reply["choices"][0]["finish_reason"], "stop");
        let prompt = format!("{:?}", fake.requests.lock().unwrap()[0].prompt);
        assert!(!prompt.contains("weather"), "{prompt}");
    }
}

#[tokio::test]
async fn calls_and_results_go_back_through_the_template() {
    let fake = Fake::saying(HERMES, CALLING);
    let call = json!({"id": "call_1", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}});
    let messages = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]);
    ok(&chat(
        fake.router(),
        json!({"messages": messages, "tools": weather()}),
    )
    .await);
    let prompt = format!("{:?}", fake.requests.lock().unwrap()[0].prompt);
    let end =
        r#"<user>hi<assistant><tool_call>{\"city\": \"Oslo\"}</tool_call><tool>rain<assistant>")"#;
    assert!(prompt.ends_with(end), "{prompt}");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let base = weather();
    for (extra, param, message) in [
        (
            json!({"tools": [{"type": "web_search"}]}),
            "tools[0].type",
            "tools[0].type 'web_search' is not supported; only 'function' is",
        ),
        (
            json!({"tools": [{"type": "function", "function": {}}]}),
            "tools[0].function.name",
            "tools[0].function.name is required",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}),
            "tools[0].function.name",
            "tools[0].function.name must have 1 to 64 letters, digits, '_', '-' or '.'",
        ),
        (
            json!({"tools": [base[0], base[0]]}),
            "tools",
            "tools has two functions 'weather'",
        ),
        (
            json!({"tool_choice": "required"}),
            "tool_choice",
            "tool_choice 'required' needs tools",
        ),
        (
            json!({"tools": base, "tool_choice": {"type": "function", "function": {"name": "x"}}}),
            "tool_choice",
            "tool_choice names 'x', which is not in tools",
        ),
        (
            json!({"tools": base, "response_format": {"type": "json_object"}}),
            "response_format",
            "response_format cannot be kept while tools may be called; leave out tools or set \
             tool_choice to 'none'",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "a"}]}),
            "messages[0].tool_call_id",
            "messages[0].tool_call_id is required",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]}),
            "messages[0].tool_calls[0].function",
            "messages[0].tool_calls[0].function must be an object",
        ),
    ] {
        let fake = Fake::saying(HERMES, CALLING);
        let reply = chat(fake.router(), extra).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.body);
        let error = &reply.json()["error"];
        assert_eq!(
            (error["param"].as_str(), error["message"].as_str()),
            (Some(param), Some(message))
        );
        assert!(fake.requests.lock().unwrap().is_empty());
    }
    let reply = chat(Fake::hello().router(), json!({"tools": base})).await;
    assert_eq!(
        reply.json()["error"]["message"],
        "the model's chat template has no tools"
    );
}

#[tokio::test]
async fn calls_as_tags_are_read_whole_and_streamed() {
    const CODER: &str = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}\
        {% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>\
        <function={{ c.function.name }}>{% for k, v in c.function.arguments | items %}\
        <parameter={{ k }}>{{ v }}</parameter>{% endfor %}</function></tool_call>{% endfor %}\
        {% endfor %}";
    const CODER_CALL: &[&str] = &[
        "I look.\n<tool_call>\n<function=wea",
        "ther>\n<parameter=city>\nOs",
        "lo\n</parameter>\n<parameter=days>\n2\n</para",
        "meter>\n</function>\n</tool_call>",
    ];
    const GLM: &str = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}\
        {% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>\
        {{ c.function.name }}{% for k, v in c.function.arguments | items %}<arg_key>{{ k }}\
        </arg_key><arg_value>{{ v }}</arg_value>{% endfor %}</tool_call>{% endfor %}{% endfor %}";
    const GLM_CALL: &[&str] = &[
        "I look.\n<tool_call>wea",
        "ther\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_",
        "value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_",
        "call>",
    ];
    for (template, answer) in [(CODER, CODER_CALL), (GLM, GLM_CALL)] {
        let expected = json!({"name": "weather", "arguments": "{\"city\":\"Oslo\",\"days\":2}"});
        let asked = json!({"tools": weather(), "tool_choice": "required"});
        let fake = Fake::saying(template, answer);
        let reply = ok(&chat(fake.router(), asked).await);
        let choice = &reply["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls");
        assert_eq!(choice["message"]["content"], "I look.");
        assert_eq!(choice["message"]["tool_calls"][0]["function"], expected);
        let grammar = fake.requests.lock().unwrap()[0].sampling.grammar.clone();
        assert!(grammar.unwrap().contains("::= \"<tool_call>\" "));

        let extra = json!({"tools": weather(), "stream": true});
        let events = chat(Fake::saying(template, answer).router(), extra)
            .await
            .events();
        let calls: Vec<&Value> = events
            .iter()
            .map(|event| &event["choices"][0]["delta"]["tool_calls"][0]["function"])
            .filter(|function| !function.is_null())
            .collect();
        assert_eq!(calls, [&expected]);
    }
}
