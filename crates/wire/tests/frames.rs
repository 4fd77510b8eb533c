//! Frames as a well-behaved, a broken and a hostile peer would send them.

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use std::io::{self, Read};

use brigade_wire::frame::{FrameReader, FrameWriter, read_preamble, write_preamble};
use brigade_wire::{
    FrameError, FrameLimits, Hello, Hop, KvOp, MAX_GRAMMAR_BYTES, MAX_LOGIT_BIAS, MAX_TOP_LOGPROBS,
    Message, NodeKey, Output, PROTOCOL_VERSION, SamplingParams, SeqId, Span, StageParams, Step,
    StepId, StepResult, Want, WireError,
};
use proptest::prelude::*;

const LIMITS: FrameLimits = FrameLimits {
    head_bytes: 1 << 16,
    payload_floats: 1 << 12,
};

/// A stream that arrives a few bytes at a time and remembers the largest buffer it was offered.
struct Trickle<'a> {
    bytes: &'a [u8],
    most: usize,
    largest_buffer: usize,
}

impl<'a> Trickle<'a> {
    fn new(bytes: &'a [u8], most: usize) -> Self {
        Self {
            bytes,
            most,
            largest_buffer: 0,
        }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.largest_buffer = self.largest_buffer.max(buffer.len());
        let end = buffer.len().min(self.most);
        self.bytes.read(&mut buffer[..end])
    }
}

fn sampling() -> impl Strategy<Value = SamplingParams> {
    (
        prop::array::uniform6(-1e6f32..1e6),
        any::<u32>(),
        any::<u64>(),
        prop::collection::vec((any::<u32>(), -100f32..100.0), 0..4),
        0..=MAX_TOP_LOGPROBS,
        prop::option::of(".{0,40}"),
    )
        .prop_map(|(floats, top_k, seed, logit_bias, top_logprobs, grammar)| {
            let [temperature, top_p, min_p, repetition, presence, frequency] = floats;
            SamplingParams {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty: repetition,
                presence_penalty: presence,
                frequency_penalty: frequency,
                seed,
                logit_bias,
                top_logprobs,
                grammar,
            }
        })
}

fn span() -> impl Strategy<Value = Span> {
    (
        any::<u32>(),
        any::<u32>(),
        prop::collection::vec(any::<u32>(), 0..20),
        prop::sample::select(vec![Want::Nothing, Want::Token, Want::TokenAndLogits]),
        prop::option::of(sampling()),
        any::<u32>(),
    )
        .prop_map(
            |(seq, position, tokens, want, sampling, prompt_tokens)| Span {
                seq: SeqId(seq),
                position,
                tokens,
                want,
                sampling,
                prompt_tokens,
            },
        )
}

fn kv_op() -> impl Strategy<Value = KvOp> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(seq, from)| KvOp::Remove {
            seq: SeqId(seq),
            from
        }),
        any::<(u32, u32)>().prop_map(|(from, to)| KvOp::Copy {
            from: SeqId(from),
            to: SeqId(to)
        }),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    (
        ".{0,20}",
        ".{0,20}",
        any::<[u32; 6]>(),
        any::<bool>(),
        prop::collection::vec(any::<(std::net::SocketAddr, Option<[u8; 32]>)>(), 0..5),
        any::<u64>(),
    )
        .prop_map(|(build, model, numbers, flash_attention, route, session)| {
            let [
                hidden_size,
                context_tokens,
                sequences,
                batch_tokens,
                draft_tokens,
                stage,
            ] = numbers;
            Hello {
                build,
                model,
                hidden_size,
                params: StageParams {
                    context_tokens,
                    sequences,
                    batch_tokens,
                    flash_attention,
                    draft_tokens,
                },
                stage,
                // A flow label and a scope mean nothing to another machine and do not travel.
                route: route
                    .into_iter()
                    .map(|(address, key)| Hop {
                        address: (address.ip(), address.port()).into(),
                        key: key.map(NodeKey),
                    })
                    .collect(),
                session,
            }
        })
}

fn message() -> impl Strategy<Value = Message> {
    let output = (
        any::<u32>(),
        any::<u32>(),
        -1e3f32..0.0,
        prop::collection::vec((any::<u32>(), -1e3f32..0.0), 0..4),
        prop::option::of(".{0,20}"),
    )
        .prop_map(|(seq, token, logprob, top, fault)| Output {
            seq: SeqId(seq),
            token,
            logprob,
            top,
            fault,
        });
    prop_oneof![
        hello().prop_map(Message::Hello),
        Just(Message::Accepted),
        (any::<u32>(), ".{0,40}")
            .prop_map(|(stage, reason)| Message::Failed(WireError { stage, reason })),
        any::<u64>().prop_map(Message::Return),
        (
            any::<u64>(),
            prop::collection::vec(kv_op(), 0..5),
            any::<Option<u64>>(),
            prop::collection::vec(span(), 0..5),
            prop::collection::vec(any::<u32>(), 0..5),
        )
            .prop_map(
                |(id, kv, kv_digest, spans, compute_us)| Message::Step(Step {
                    id: StepId(id),
                    kv,
                    kv_digest,
                    spans,
                    compute_us,
                })
            ),
        (
            any::<u64>(),
            prop::collection::vec(output, 0..5),
            prop::collection::vec(any::<u32>(), 0..5),
        )
            .prop_map(|(id, outputs, compute_us)| Message::Result(StepResult {
                id: StepId(id),
                outputs,
                compute_us,
            })),
    ]
}

/// A message with floats of any bits.
fn frame() -> impl Strategy<Value = (Message, Vec<f32>)> {
    let floats = prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..40);
    (message(), floats)
}

fn encode<'a>(frames: impl IntoIterator<Item = &'a (Message, Vec<f32>)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = FrameWriter::new(&mut bytes);
    for (message, payload) in frames {
        writer.send(message, payload).unwrap();
    }
    bytes
}

fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|float| float.to_bits()).collect()
}

proptest! {
    #[test]
    fn frames_arrive_as_they_were_sent(
        frames in prop::collection::vec(frame(), 0..6),
        most in 1usize..50,
    ) {
        let bytes = encode(&frames);
        let mut reader = FrameReader::new(Trickle::new(&bytes, most));
        reader.set_limits(LIMITS);
        for (message, payload) in &frames {
            prop_assert_eq!(&reader.receive().unwrap(), message);
            // Not-a-number has many bit patterns, and they must survive too.
            prop_assert_eq!(bits(reader.payload()), bits(payload));
        }
        prop_assert!(matches!(reader.receive(), Err(FrameError::Closed)));
    }

    #[test]
    fn a_frame_cut_short_is_an_error(frame in frame(), cut in any::<prop::sample::Index>()) {
        let bytes = encode([&frame]);
        let cut = cut.index(bytes.len());
        let mut reader = FrameReader::new(&bytes[..cut]);
        reader.set_limits(LIMITS);
        match reader.receive() {
            Err(FrameError::Closed) => prop_assert_eq!(cut, 0),
            Err(FrameError::Io(error)) => {
                prop_assert!(cut > 0);
                prop_assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_ask_for_memory(
        lengths in prop_oneof![
            any::<[u32; 2]>(),
            [0u32..200, 0u32..20].prop_map(|lengths: [u32; 2]| lengths),
        ],
        body in prop::collection::vec(any::<u8>(), 0..300),
        most in 1usize..50,
    ) {
        let mut bytes: Vec<u8> = lengths.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.extend(body);
        let mut stream = Trickle::new(&bytes, most);
        let mut reader = FrameReader::new(&mut stream);
        reader.set_limits(LIMITS);
        while reader.receive().is_ok() {}
        drop(reader);
        let allowed = LIMITS.head_bytes as usize + 4 * LIMITS.payload_floats as usize;
        prop_assert!(stream.largest_buffer <= allowed);
    }

    /// One byte of a good frame changed: another message or an error.
    #[test]
    fn a_flipped_byte_does_not_panic(
        frame in frame(),
        at in any::<prop::sample::Index>(),
        with in 1u8..,
    ) {
        let mut bytes = encode([&frame]);
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        let mut reader = FrameReader::new(&bytes[..]);
        reader.set_limits(LIMITS);
        if let Ok(message) = reader.receive() {
            prop_assert!(message != frame.0 || bits(reader.payload()) != bits(&frame.1));
        }
    }

    #[test]
    fn only_the_preamble_is_a_preamble(bytes in prop::collection::vec(any::<u8>(), 0..10)) {
        prop_assume!(!bytes.starts_with(b"BRGD"));
        let error = read_preamble(&mut &bytes[..]).unwrap_err();
        match error {
            FrameError::Foreign => prop_assert!(bytes.len() >= 6),
            FrameError::Io(_) => prop_assert!(bytes.len() < 6),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn a_frame_beyond_the_limits_is_refused_before_it_is_read() {
    for lengths in [
        [LIMITS.head_bytes + 1, 0],
        [0, LIMITS.payload_floats + 1],
        [u32::MAX; 2],
    ] {
        let bytes: Vec<u8> = lengths.iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut stream = Trickle::new(&bytes, 8);
        let mut reader = FrameReader::new(&mut stream);
        reader.set_limits(LIMITS);
        let error = reader.receive().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "a frame of {} bytes and {} floats is larger than agreed",
                lengths[0], lengths[1]
            )
        );
        assert_eq!(stream.largest_buffer, 8);
    }
}

/// One address, one form: a byte that nothing reads would let two frames mean the same.
#[test]
fn an_address_of_ipv4_has_no_scope() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Wrapped(#[serde(with = "brigade_wire::scoped")] std::net::SocketAddr);

    let address = Wrapped(([127, 0, 0, 1], 8800).into());
    let mut bytes = postcard::to_stdvec(&address).unwrap();
    assert_eq!(postcard::from_bytes::<Wrapped>(&bytes).unwrap(), address);
    *bytes.last_mut().unwrap() = 3;
    postcard::from_bytes::<Wrapped>(&bytes).unwrap_err();
}

/// Lengths within a head that promise more than the head holds.
#[test]
fn a_head_that_promises_too_much_is_malformed() {
    // Step 0, no KV operations, then 2^63 spans, as postcard writes them.
    let step = postcard::to_stdvec(&Message::Step(Step::default())).unwrap();
    let mut head = step[..step.len() - 1].to_vec();
    head.extend([0xff; 9]);
    head.push(0x01);
    let mut bytes = (head.len() as u32).to_le_bytes().to_vec();
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(head);
    let error = FrameReader::new(&bytes[..]).receive().unwrap_err();
    assert!(matches!(error, FrameError::Malformed(_)), "{error:?}");
}

#[test]
fn bytes_after_the_message_are_malformed() {
    let mut bytes = encode([&(Message::Accepted, vec![])]);
    bytes[0] += 1;
    bytes.push(0);
    let error = FrameReader::new(&bytes[..]).receive().unwrap_err();
    assert!(matches!(error, FrameError::Malformed(_)), "{error:?}");
}

#[test]
fn no_payload_before_the_handshake() {
    let bytes = encode([&(Message::Accepted, vec![1.0])]);
    let error = FrameReader::new(&bytes[..]).receive().unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { .. }), "{error:?}");
}

#[test]
fn limits_do_not_overflow() {
    let limits = FrameLimits::for_rows(u32::MAX, u32::MAX);
    assert_eq!(limits.head_bytes, u32::MAX);
    assert_eq!(limits.payload_floats, u32::MAX);
    let limits = FrameLimits::for_rows(64, 576);
    assert_eq!(limits.payload_floats, 64 * 576);
}

/// The largest step of a small batch fits the limits made for it.
#[test]
fn a_full_step_fits() {
    let mut spans = (0..256)
        .map(|i| Span {
            seq: SeqId(u32::MAX - i),
            position: u32::MAX,
            tokens: vec![u32::MAX],
            want: Want::TokenAndLogits,
            sampling: Some(SamplingParams {
                top_k: u32::MAX,
                seed: u64::MAX,
                ..SamplingParams::default()
            }),
            prompt_tokens: u32::MAX,
        })
        .collect::<Vec<_>>();
    let largest = SamplingParams {
        grammar: Some("x".repeat(MAX_GRAMMAR_BYTES)),
        logit_bias: vec![(u32::MAX, 100.0); MAX_LOGIT_BIAS],
        ..SamplingParams::default()
    };
    spans[0].sampling = Some(largest);
    let removal = KvOp::Remove {
        seq: SeqId(u32::MAX),
        from: u32::MAX,
    };
    let step = Message::Step(Step {
        id: StepId(u64::MAX),
        kv: vec![removal; 256],
        kv_digest: Some(u64::MAX),
        spans,
        compute_us: vec![u32::MAX; 256],
    });
    let bytes = encode([&(step.clone(), vec![0.5; 256 * 8])]);
    let mut reader = FrameReader::new(&bytes[..]);
    reader.set_limits(FrameLimits::for_rows(256, 8));
    assert_eq!(reader.receive().unwrap(), step);
}

#[test]
fn preambles() {
    let mut ours = Vec::new();
    write_preamble(&mut ours).unwrap();
    assert_eq!(ours.len(), 6);
    read_preamble(&mut &ours[..]).unwrap();

    let version = |version: u16| {
        let mut bytes = ours.clone();
        bytes[4..].copy_from_slice(&version.to_le_bytes());
        read_preamble(&mut &bytes[..]).unwrap_err().to_string()
    };
    assert_eq!(
        version(PROTOCOL_VERSION + 1),
        format!(
            "the peer speaks protocol version {}, this side {PROTOCOL_VERSION}: upgrade this side",
            PROTOCOL_VERSION + 1
        )
    );
    assert_eq!(
        version(PROTOCOL_VERSION - 1),
        format!(
            "the peer speaks protocol version {}, this side {PROTOCOL_VERSION}: upgrade the peer",
            PROTOCOL_VERSION - 1
        )
    );
    let error = read_preamble(&mut &b"GET / HTTP/1.1\r\n"[..]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer does not speak Brigade's protocol"
    );
}
