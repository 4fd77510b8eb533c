use proptest::prelude::*;

use super::*;

fn chat(extra: &str) -> ChatRequest {
    let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{extra}}}"#);
    ChatRequest::parse(body.as_bytes()).unwrap()
}

#[test]
fn defaults_are_openai_defaults() {
    let options = chat("").options;
    assert_eq!(options.model, None);
    assert_eq!(options.max_tokens, None);
    assert_eq!(options.delivery, Delivery::Whole);
    assert_eq!(
        SamplingParams {
            seed: 0,
            ..options.sampling
        },
        SamplingParams {
            temperature: 1.0,
            ..SamplingParams::default()
        }
    );
    let completion = CompletionRequest::parse(br#"{"prompt":"a"}"#).unwrap();
    assert_eq!(completion.options.max_tokens, Some(16));
}

#[test]
fn every_parameter_is_honoured() {
    let options = chat(
        r#","model":"m","max_completion_tokens":7,"temperature":0.5,"top_p":0.9,"top_k":40,
        "min_p":0.05,"seed":-1,"n":3,"logprobs":true,"top_logprobs":5,"logit_bias":{"7":-100},
        "stop":["a","b"],"presence_penalty":1,"frequency_penalty":-1,
        "repetition_penalty":1.5,"stream":true,"stream_options":{"include_usage":true}"#,
    )
    .options;
    assert_eq!(
        options,
        Options {
            model: Some("m".to_owned()),
            max_tokens: Some(7),
            sampling: SamplingParams {
                temperature: 0.5,
                top_k: 40,
                top_p: 0.9,
                min_p: 0.05,
                repetition_penalty: 1.5,
                presence_penalty: 1.0,
                frequency_penalty: -1.0,
                seed: u64::MAX,
                logit_bias: vec![(7, -100.0)],
                top_logprobs: 5,
                grammar: None,
            },
            stop: vec!["a".to_owned(), "b".to_owned()],
            choices: 3,
            logprobs: true,
            context_tokens: None,
            delivery: Delivery::StreamWithUsage,
        }
    );
    assert_eq!(chat(r#","stop":"x""#).options.stop, ["x"]);
    assert_eq!(chat(r#","max_tokens":3"#).options.max_tokens, Some(3));
    assert_eq!(
        chat(r#","seed":18446744073709551615"#)
            .options
            .sampling
            .seed,
        u64::MAX
    );
}

#[test]
fn a_missing_seed_is_random() {
    assert_ne!(
        chat("").options.sampling.seed,
        chat(r#","seed":null"#).options.sampling.seed
    );
}

/// JSON with the names and words of requests, mostly in the wrong place.
fn request_like() -> impl Strategy<Value = Value> {
    const WORDS: &[&str] = &[
        "messages",
        "role",
        "content",
        "user",
        "tool",
        "assistant",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "type",
        "text",
        "tools",
        "tool_choice",
        "response_format",
        "json_schema",
        "schema",
        "stop",
        "n",
        "logit_bias",
        "1",
        "seed",
        "stream",
        "stream_options",
        "max_tokens",
        "{",
        "",
    ];
    let word = || proptest::sample::select(WORDS);
    let leaf = prop_oneof![
        word().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let members = prop::collection::vec((word(), inner.clone()), 0..6);
        let object = members.prop_map(|members| {
            let members = members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value));
            Value::Object(members.collect())
        });
        prop_oneof![
            object,
            prop::collection::vec(inner, 0..4).prop_map(Value::from)
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_sent_is_a_request_or_an_error(mut body in request_like()) {
        let _ = ChatRequest::parse(body.to_string().as_bytes());
        // Further in: what the messages and the tools are made of.
        let inner = body.take();
        for name in ["messages", "tools", "response_format", "tool_choice"] {
            let mut chat = serde_json::json!({"messages": [{"role": "user", "content": "a"}]});
            chat[name] = inner.clone();
            let _ = ChatRequest::parse(chat.to_string().as_bytes());
        }
    }

    #[test]
    fn bytes_are_no_request(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let chat = ChatRequest::parse(&bytes);
        prop_assert!(chat.is_err());
        let completion = CompletionRequest::parse(&bytes);
        prop_assert!(completion.is_err());
    }
}
