//! The table of members and the tokens, with what strangers may send.

use brigade_wire::NodeKey;
use brigade_wire::frame::{receive_value, send_value};
use brigade_wire::members::{FindError, MEMBERS_LIMIT, Member, Members, is_name};
use brigade_wire::token::{BadToken, Side, Token, TokenSecret};
use proptest::prelude::*;

fn key(number: u8) -> NodeKey {
    NodeKey([number; 32])
}

fn member() -> impl Strategy<Value = Member> {
    (
        0..4u8,
        0..3u64,
        any::<bool>(),
        0..3u64,
        "[a-c]{0,2}",
        prop::collection::vec(0..3u16, 1..3),
    )
        .prop_map(
            |(number, admission, forgotten, revision, name, ports)| Member {
                key: key(number),
                name,
                addresses: ports
                    .iter()
                    .map(|&port| ([127, 0, 0, 1], port).into())
                    .collect(),
                admission,
                forgotten,
                revision,
            },
        )
}

fn table() -> impl Strategy<Value = Members> {
    prop::collection::vec(member(), 0..8).prop_map(Members::from)
}

fn merged(a: &Members, b: &Members) -> Members {
    let mut all = a.clone();
    all.merge(&b.entries(), None);
    all
}

proptest! {
    #[test]
    fn whatever_the_order_all_end_with_one_table(a in table(), b in table(), c in table()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a.clone());
        prop_assert_eq!(merged(&a, &b).digest() == a.digest(), merged(&a, &b) == a);
    }

    #[test]
    fn a_forgotten_node_stays_forgotten_whatever_it_says_itself(
        table in table(), own in prop::collection::vec(member(), 0..6), number in 0..4u8,
    ) {
        let mut table = table;
        table.forget(key(number));
        let trusted = table.trusts(key(number));
        table.merge(&own, Some(key(number)));
        if table.get(key(number)).is_some_and(|member| member.forgotten) || trusted {
            prop_assert_eq!(table.trusts(key(number)), trusted);
        }
    }

    #[test]
    fn tokens_read_back(inviter in any::<[u8; 32]>(), secret in any::<[u8; 16]>(),
                        ports in prop::collection::vec(any::<u16>(), 1..4)) {
        let token = Token {
            inviter: NodeKey(inviter),
            addresses: ports.iter().map(|&port| ([10, 0, 0, 1], port).into()).collect(),
            secret: TokenSecret(secret),
        };
        let text = token.to_string();
        prop_assert_eq!(text.parse(), Ok(token.clone()));
        prop_assert_eq!(format!(" {text}\n").parse(), Ok(token));
    }

    #[test]
    fn a_changed_token_is_damaged(secret in any::<[u8; 16]>(), at in any::<prop::sample::Index>()) {
        let mut text = example(secret).to_string().into_bytes();
        let at = 9 + at.index(text.len() - 9);
        text[at] = if text[at] == b'a' { b'b' } else { b'a' };
        let text = String::from_utf8(text).unwrap();
        prop_assert_eq!(text.parse::<Token>(), Err(BadToken::Damaged));
    }

    #[test]
    fn arbitrary_text_is_no_token(text in ".{0,80}", body in "[a-z2-7]{0,1100}") {
        prop_assert!(text.parse::<Token>().is_err());
        let marked = ["brigade1-", &body].concat();
        prop_assert!(marked.parse::<Token>().is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused_within_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = receive_value::<Vec<Member>>(&mut &bytes[..], 100);
    }
}

fn example(secret: [u8; 16]) -> Token {
    Token {
        inviter: key(1),
        addresses: vec![([10, 0, 0, 1], 8810).into()],
        secret: TokenSecret(secret),
    }
}

#[test]
fn a_table_of_members_is_kept_by_its_rules() {
    let mut table = Members::default();
    let at = |port: u16| [([127, 0, 0, 1], port).into()];
    table.admit(key(1), "one", &at(1));
    table.admit(key(2), "two", &at(2));
    assert!(table.trusts(key(1)) && !table.trusts(key(3)));
    assert!(table.renew(key(2), "two", &at(3)) && !table.renew(key(2), "two", &at(3)));
    assert_eq!(table.find("two").unwrap().addresses, at(3));
    let id = key(1).id().to_string();
    assert_eq!(table.find(&id[..5]).unwrap().name, "one");
    assert_eq!(table.find("three"), Err(FindError::Unknown("three".into())));
    table.admit(key(3), "two", &at(4));
    assert!(matches!(
        table.find("two"),
        Err(FindError::Ambiguous { .. })
    ));

    assert!(table.forget(key(2)) && !table.forget(key(2)));
    assert!(!table.trusts(key(2)));
    assert_eq!(table.find("two").unwrap().key, key(3));
    // Another invitation lets it in again, everywhere.
    let before = table.clone();
    table.admit(key(2), "two", &at(5));
    assert!(merged(&before, &table).trusts(key(2)));
}

#[test]
fn a_table_takes_neither_bad_entries_nor_more_than_its_limit() {
    let mut table = Members::default();
    let entry = |number: u64, name: &str| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Member {
            key: NodeKey(bytes),
            name: name.to_owned(),
            addresses: vec![([127, 0, 0, 1], 1).into()],
            admission: 1,
            forgotten: false,
            revision: 1,
        }
    };
    for name in ["", "two words", "\u{1b}[2J", &"x".repeat(65)] {
        assert!(!is_name(name));
        assert!(!table.merge(&[entry(1, name)], None));
    }
    for count in [0, 17] {
        let addresses = vec![([127, 0, 0, 1], 1).into(); count];
        let entry = Member {
            addresses,
            ..entry(1, "n")
        };
        assert!(!table.merge(&[entry], None));
    }
    let many: Vec<_> = (0..2000).map(|number| entry(number, "n")).collect();
    assert!(table.merge(&many, None));
    assert_eq!(table.entries().len(), MEMBERS_LIMIT);
}

#[test]
fn a_proof_is_good_for_one_side_of_one_connection_of_two_keys() {
    let secret = TokenSecret([5; 16]);
    let proof = secret.proof(Side::Joiner, &[1; 32], key(1), key(2));
    assert_eq!(proof, secret.proof(Side::Joiner, &[1; 32], key(1), key(2)));
    for other in [
        secret.proof(Side::Inviter, &[1; 32], key(1), key(2)),
        secret.proof(Side::Joiner, &[2; 32], key(1), key(2)),
        secret.proof(Side::Joiner, &[1; 32], key(3), key(2)),
        secret.proof(Side::Joiner, &[1; 32], key(1), key(3)),
        TokenSecret([6; 16]).proof(Side::Joiner, &[1; 32], key(1), key(2)),
    ] {
        assert_ne!(proof, other);
    }
}

#[test]
fn a_token_hides_its_secret_in_logs_and_says_what_it_is_not() {
    let token = example([0xab; 16]);
    let shown = format!("{token:?} {:?}", token.secret);
    assert!(!shown.contains("171") && !shown.contains("abab"), "{shown}");
    assert_eq!("hello".parse::<Token>(), Err(BadToken::Foreign));
    let text = token.to_string();
    assert_eq!(
        text[..text.len() - 1].parse::<Token>(),
        Err(BadToken::Damaged)
    );
}

#[test]
fn values_are_read_whole_or_refused() {
    let mut bytes = Vec::new();
    send_value(&mut bytes, &"hello").unwrap();
    assert_eq!(
        receive_value::<String>(&mut &bytes[..], 100).unwrap(),
        "hello"
    );
    let error = receive_value::<String>(&mut &bytes[..], 3).unwrap_err();
    assert!(error.to_string().contains("larger than agreed"), "{error}");
    assert!(receive_value::<String>(&mut &bytes[..bytes.len() - 1], 100).is_err());
    assert!(receive_value::<u8>(&mut &bytes[..], 100).is_err());
}
