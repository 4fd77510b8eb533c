//! Text from token pieces: the cut of the bytes must not matter.

use brigade_engine::text::TextStream;
use proptest::prelude::*;

/// The whole text at once: ends before the stop string that is complete first.
fn reference(bytes: &[u8], stops: &[String]) -> (String, bool) {
    let text = String::from_utf8_lossy(bytes);
    for end in 0..=text.len() {
        let Some(head) = text.get(..end) else {
            continue;
        };
        let found = stops
            .iter()
            .filter(|stop| !stop.is_empty() && head.ends_with(stop.as_str()))
            .max_by_key(|stop| stop.len());
        if let Some(stop) = found {
            return (head[..end - stop.len()].to_owned(), true);
        }
    }
    (text.into_owned(), false)
}

fn streamed<'a>(pieces: impl Iterator<Item = &'a [u8]>, stops: &[String]) -> (String, bool) {
    let mut stream = TextStream::new(stops.to_vec());
    let mut text = String::new();
    let mut stopped = false;
    for bytes in pieces {
        let piece = stream.push(bytes);
        assert!(!stopped || piece.text.is_empty());
        text.push_str(&piece.text);
        stopped = piece.stopped;
    }
    text.push_str(&stream.finish());
    (text, stopped)
}

/// Bytes that are mostly text, of few characters so that stop strings occur, and partly broken.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "ab", "\n", "é", "世", "🦀"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
        1 => prop::sample::select(vec![&b"\xe4\xb8"[..], b"\xf0\x9f", b"\xff", b"\xc3"])
            .prop_map(<[u8]>::to_vec),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        bytes in bytes(),
        stops in prop::collection::vec("[ab\né世🦀]{0,4}", 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
    ) {
        let (text, stopped) = reference(&bytes, &stops);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let random = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
        let (streamed_text, streamed_stop) = streamed(random, &stops);
        prop_assert_eq!(&streamed_text, &text);
        // A broken last character may complete a stop string only when the stream ends.
        prop_assert!(!streamed_stop || stopped);
        prop_assert_eq!(streamed(bytes.chunks(1), &stops).0, text);
    }

    #[test]
    fn text_without_stops_comes_at_once(text in "\\PC{0,40}") {
        let mut stream = TextStream::new(vec![]);
        for c in text.chars() {
            let piece = stream.push(c.to_string().as_bytes());
            prop_assert_eq!(piece.text, c.to_string());
        }
    }
}

#[test]
fn only_what_may_begin_a_stop_string_is_held_back() {
    let mut stream = TextStream::new(vec!["<end>".to_owned(), "\n\n".to_owned()]);
    let mut push = |text: &str| {
        let piece = stream.push(text.as_bytes());
        (piece.text, piece.stopped)
    };
    assert_eq!(push("one <"), ("one ".to_owned(), false));
    assert_eq!(push("en"), (String::new(), false));
    assert_eq!(push("try\n"), ("<entry".to_owned(), false));
    assert_eq!(push("x<end"), ("\nx".to_owned(), false));
    assert_eq!(push("> more"), (String::new(), true));
    assert_eq!(push("and more"), (String::new(), true));
}

#[test]
fn the_first_complete_stop_string_wins() {
    let stops = ["abc".to_owned(), "b".to_owned()];
    assert_eq!(
        streamed([&b"xabcx"[..]].into_iter(), &stops),
        ("xa".to_owned(), true)
    );
    assert_eq!(
        streamed(b"xabcx".chunks(1), &stops),
        ("xa".to_owned(), true)
    );
}

#[test]
fn an_unfinished_character_is_replaced_at_the_end() {
    let mut stream = TextStream::new(vec![]);
    assert_eq!(stream.push(b"a\xf0\x9f").text, "a");
    assert_eq!(stream.clone().finish(), "\u{fffd}");
    assert_eq!(stream.push(b"\xa6\x80").text, "🦀");
}
