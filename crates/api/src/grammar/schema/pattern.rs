//! The regular expressions of `pattern`, as rules for what stands in a JSON string.
//!
//! They are ECMAScript's: found anywhere in the string unless anchored, with `\d` and `\w` of
//! ASCII. `regex-syntax` reads them; what means something else there, or cannot be kept exactly, is
//! refused.

use regex_syntax::ast::{
    AssertionKind, Ast, ClassBracketed, ClassPerl, ClassPerlKind, ClassSet, ClassSetItem,
    GroupKind, HexLiteralKind, Literal, LiteralKind, RepetitionKind, RepetitionRange, Span,
    SpecialLiteralKind, parse::ParserBuilder,
};
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use super::{keywords::repeat, literal};

/// The longest pattern, in bytes.
const MAX_BYTES: usize = 2000;

/// Groups within groups.
const MAX_NESTING: u32 = 32;

/// Places in a pattern with its repetitions written out. llama.cpp follows at most that many at
/// once.
const MAX_PLACES: u64 = 1000;

/// Parts that may be left out, one after the other. After each character llama.cpp follows all of them
/// at once, for every token of the vocabulary: some dozens take it minutes, on the stage that every
/// request shares.
const MAX_SKIPS: u64 = 6;

/// Characters that JSON writes as another one after `\`. Other control characters are not written.
const ESCAPES: [(char, &str); 7] = [
    ('"', "\\\""),
    ('\\', "\\\\"),
    ('\u{8}', "\\b"),
    ('\u{c}', "\\f"),
    ('\n', "\\n"),
    ('\r', "\\r"),
    ('\t', "\\t"),
];

/// Characters that do not stand in a JSON string as they are.
const NOT_AS_IT_IS: [(char, char); 4] = [
    ('\0', '\u{1f}'),
    ('"', '"'),
    ('\\', '\\'),
    ('\u{7f}', '\u{7f}'),
];

const LINE_ENDS: [(char, char); 3] = [('\n', '\n'), ('\r', '\r'), ('\u{2028}', '\u{2029}')];

const SPACES: [(char, char); 9] = [
    ('\t', '\r'),
    (' ', ' '),
    ('\u{a0}', '\u{a0}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{2000}', '\u{200a}'),
    ('\u{2028}', '\u{2029}'),
    ('\u{202f}', '\u{202f}'),
    ('\u{205f}', '\u{205f}'),
    ('\u{3000}', '\u{3000}'),
];

/// What a part of a pattern has become.
struct Rule {
    text: String,
    may_be_empty: bool,
    places: u64,
    skips: Skips,
}

/// How many parts that may be left out follow each other.
#[derive(Clone, Copy, Default)]
struct Skips {
    /// Where it begins.
    head: u64,
    /// Where it ends.
    tail: u64,
    /// Anywhere.
    most: u64,
}

impl Skips {
    /// The whole may be left out.
    fn whole(most: u64) -> Self {
        Self {
            head: most,
            tail: most,
            most,
        }
    }
}

impl Rule {
    fn nothing() -> Self {
        Self {
            text: "\"\"".to_owned(),
            may_be_empty: true,
            places: 0,
            skips: Skips::default(),
        }
    }

    fn checked(self) -> Result<Self, String> {
        if self.skips.most > MAX_SKIPS {
            return Err(format!(
                "more than {MAX_SKIPS} parts that may be left out follow each other"
            ));
        }
        if self.places > MAX_PLACES {
            return Err(format!("its repetitions make more than {MAX_PLACES} parts"));
        }
        Ok(self)
    }
}

/// What stands between the quotes of a JSON string in which the pattern is found; or why that
/// cannot be said.
pub(super) fn body(pattern: &str) -> Result<String, String> {
    if pattern.len() > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    let ast = ParserBuilder::new()
        .nest_limit(MAX_NESTING)
        .build()
        .parse(pattern)
        .map_err(|error| error.kind().to_string())?;
    let source = Source(pattern);
    let ways = match &ast {
        Ast::Alternation(alternation) => alternation.asts.as_slice(),
        one => std::slice::from_ref(one),
    };
    let ways = ways.iter().map(|way| source.way(way));
    let rule = any(&ways.collect::<Result<Vec<_>, _>>()?).checked()?;
    Ok(format!("({})", rule.text))
}

fn any(rules: &[Rule]) -> Rule {
    let texts: Vec<_> = rules.iter().map(|rule| rule.text.as_str()).collect();
    Rule {
        text: texts.join(" | "),
        may_be_empty: rules.iter().any(|rule| rule.may_be_empty),
        places: rules.iter().map(|rule| rule.places).sum(),
        skips: Skips {
            head: rules.iter().map(|rule| rule.skips.head).sum(),
            tail: rules.iter().map(|rule| rule.skips.tail).sum(),
            most: rules.iter().map(|rule| rule.skips.most).max().unwrap_or(0),
        },
    }
}

fn all(rules: &[Rule]) -> Rule {
    if rules.is_empty() {
        return Rule::nothing();
    }
    let texts: Vec<_> = rules.iter().map(|rule| rule.text.as_str()).collect();
    Rule {
        text: texts.join(" "),
        may_be_empty: rules.iter().all(|rule| rule.may_be_empty),
        places: rules.iter().map(|rule| rule.places).sum(),
        skips: in_a_row(rules),
    }
}

fn in_a_row(rules: &[Rule]) -> Skips {
    let (mut all, mut run, mut begins) = (Skips::default(), 0, true);
    for rule in rules {
        all.most = all.most.max(run + rule.skips.head).max(rule.skips.most);
        if begins {
            all.head = run + rule.skips.head;
        }
        if rule.may_be_empty {
            run += rule.skips.tail;
        } else {
            (run, begins) = (rule.skips.tail, false);
        }
    }
    Skips { tail: run, ..all }
}

/// The text of a pattern, which tells apart what is one in its tree.
struct Source<'a>(&'a str);

impl Source<'_> {
    fn at(&self, span: &Span) -> &str {
        self.0
            .get(span.start.offset..span.end.offset)
            .unwrap_or_default()
    }

    /// One of the outermost alternatives, with its anchors.
    fn way(&self, ast: &Ast) -> Result<Rule, String> {
        let mut parts = match ast {
            Ast::Concat(concat) => concat.asts.as_slice(),
            one => std::slice::from_ref(one),
        };
        let is =
            |ast: &Ast, kind: AssertionKind| matches!(ast, Ast::Assertion(a) if a.kind == kind);
        let whole = parts.len();
        while let [first, rest @ ..] = parts
            && is(first, AssertionKind::StartLine)
        {
            parts = rest;
        }
        let begins = parts.len() < whole;
        let whole = parts.len();
        while let [rest @ .., last] = parts
            && is(last, AssertionKind::EndLine)
        {
            parts = rest;
        }
        let ends = parts.len() < whole;
        let anything = || Rule {
            text: "char*".to_owned(),
            may_be_empty: true,
            places: 1,
            skips: Skips::whole(1),
        };
        let mut rules = Vec::with_capacity(parts.len() + 2);
        if !begins {
            rules.push(anything());
        }
        for part in parts {
            rules.push(self.rule(part)?);
        }
        if !ends {
            rules.push(anything());
        }
        Ok(all(&rules))
    }

    fn rule(&self, ast: &Ast) -> Result<Rule, String> {
        match ast {
            Ast::Empty(_) => Ok(Rule::nothing()),
            Ast::Literal(one) => {
                let character = character(one)?;
                written(&set(&[(character, character)]))
            }
            Ast::Dot(_) => {
                let mut others = set(&LINE_ENDS);
                others.negate();
                written(&others)
            }
            Ast::ClassPerl(class) => written(&perl(class)),
            Ast::ClassBracketed(class) => written(&self.class(class)?),
            Ast::Repetition(repetition) => {
                if matches!(*repetition.ast, Ast::Repetition(_)) {
                    return Err("it repeats a repetition".to_owned());
                }
                let operator = self.at(&repetition.op.span);
                // Text in ECMAScript.
                if operator.contains(char::is_whitespace) {
                    return Err(format!("'{operator}' is no repetition"));
                }
                repeated(&self.rule(&repetition.ast)?, &repetition.op.kind)
            }
            Ast::Group(group) => {
                if matches!(&group.kind, GroupKind::NonCapturing(flags) if !flags.items.is_empty())
                {
                    return Err("flags are not supported".to_owned());
                }
                let inner = self.rule(&group.ast)?;
                Ok(Rule {
                    text: format!("({})", inner.text),
                    ..inner
                })
            }
            Ast::Alternation(alternation) => {
                let ways = alternation.asts.iter().map(|way| self.rule(way));
                Ok(any(&ways.collect::<Result<Vec<_>, _>>()?))
            }
            Ast::Concat(concat) => {
                let parts = concat.asts.iter().map(|part| self.rule(part));
                Ok(all(&parts.collect::<Result<Vec<_>, _>>()?))
            }
            Ast::Assertion(assertion) => Err(format!(
                "'{}' is supported only where the whole begins or ends",
                self.at(&assertion.span)
            )),
            Ast::Flags(_) => Err("flags are not supported".to_owned()),
            Ast::ClassUnicode(class) => Err(format!("'{}' is not supported", self.at(&class.span))),
        }
    }

    fn class(&self, class: &ClassBracketed) -> Result<ClassUnicode, String> {
        let text = self.at(&class.span);
        let unclear = || Err(format!("the class '{text}' is not supported"));
        let inner = text.trim_start_matches('[').trim_start_matches('^');
        if inner.starts_with(']') || inner.starts_with("--") {
            return unclear();
        }
        let ClassSet::Item(item) = &class.kind else {
            return unclear();
        };
        let items = match item {
            ClassSetItem::Union(union) => union.items.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut found = ClassUnicode::empty();
        for item in items {
            match item {
                ClassSetItem::Literal(one) => {
                    let one = character(one)?;
                    found.push(ClassUnicodeRange::new(one, one));
                }
                ClassSetItem::Range(range) => {
                    let (first, last) = (character(&range.start)?, character(&range.end)?);
                    found.push(ClassUnicodeRange::new(first, last));
                }
                ClassSetItem::Perl(class) => found.union(&perl(class)),
                _ => return unclear(),
            }
        }
        if class.negated {
            found.negate();
        }
        Ok(found)
    }
}

fn character(one: &Literal) -> Result<char, String> {
    match one.kind {
        LiteralKind::Octal
        | LiteralKind::HexBrace(_)
        | LiteralKind::HexFixed(HexLiteralKind::UnicodeLong)
        | LiteralKind::Special(SpecialLiteralKind::Bell) => {
            Err(format!("its escape for {:?} is not supported", one.c))
        }
        _ => Ok(one.c),
    }
}

fn set(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(
        ranges
            .iter()
            .map(|&(first, last)| ClassUnicodeRange::new(first, last)),
    )
}

fn perl(class: &ClassPerl) -> ClassUnicode {
    let mut found = match class.kind {
        ClassPerlKind::Digit => set(&[('0', '9')]),
        ClassPerlKind::Word => set(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        ClassPerlKind::Space => {
            let mut spaces = set(&SPACES);
            spaces.push(ClassUnicodeRange::new('\u{feff}', '\u{feff}'));
            spaces
        }
    };
    if class.negated {
        found.negate();
    }
    found
}

/// One character of a set, as JSON has it in a string.
fn written(set: &ClassUnicode) -> Result<Rule, String> {
    let mut plain = set.clone();
    plain.difference(&self::set(&NOT_AS_IT_IS));
    let mut ways = Vec::new();
    match plain.ranges() {
        [] => {}
        [one] if one.start() == one.end() => ways.push(literal(&one.start().to_string())),
        ranges => {
            let mut class = String::from("[");
            for range in ranges {
                class.push_str(&in_class(range.start()));
                if range.end() > range.start() {
                    class.push('-');
                    class.push_str(&in_class(range.end()));
                }
            }
            ways.push(class + "]");
        }
    }
    for (character, escaped) in ESCAPES {
        let has = |range: &ClassUnicodeRange| (range.start()..=range.end()).contains(&character);
        if set.ranges().iter().any(has) {
            ways.push(literal(escaped));
        }
    }
    let text = match ways.as_slice() {
        [] => return Err("it asks for characters that are not written".to_owned()),
        [one] => one.clone(),
        ways => format!("({})", ways.join(" | ")),
    };
    Ok(Rule {
        text,
        may_be_empty: false,
        places: 1,
        skips: Skips::default(),
    })
}

fn in_class(character: char) -> String {
    let code = u32::from(character);
    match code {
        _ if character.is_ascii_alphanumeric() => character.to_string(),
        0..=0xff => format!("\\x{code:02X}"),
        0x100..=0xffff => format!("\\u{code:04X}"),
        _ => format!("\\U{code:08X}"),
    }
}

fn repeated(inner: &Rule, kind: &RepetitionKind) -> Result<Rule, String> {
    let (least, most) = match *kind {
        RepetitionKind::ZeroOrOne => (0, Some(1)),
        RepetitionKind::ZeroOrMore => (0, None),
        RepetitionKind::OneOrMore => (1, None),
        RepetitionKind::Range(RepetitionRange::Exactly(count)) => (count, Some(count)),
        RepetitionKind::Range(RepetitionRange::AtLeast(least)) => (least, None),
        RepetitionKind::Range(RepetitionRange::Bounded(least, most)) => (least, Some(most)),
    };
    if most == Some(0) {
        return Ok(Rule::nothing());
    }
    // llama.cpp would go round in it without end, or follow each way to be empty.
    if inner.may_be_empty && most != Some(1) {
        return Err("it repeats what may be empty".to_owned());
    }
    let times = u64::from(most.unwrap_or(least.saturating_add(1)));
    let operator = repeat(least.into(), most.map(u64::from));
    let may_be_empty = inner.may_be_empty || least == 0;
    let Skips {
        head,
        tail,
        most: own,
    } = inner.skips;
    // Where one time ends, the next may begin or not.
    let seam = if times > 1 { tail + head } else { 0 };
    let ends = u64::from(u64::from(least) < times || most.is_none());
    Rule {
        text: format!("{}{operator}", inner.text),
        may_be_empty,
        places: inner.places.saturating_mul(times),
        skips: if may_be_empty {
            Skips::whole(own.max(seam).max(1))
        } else {
            Skips {
                head,
                tail: tail + ends,
                most: own.max(seam + ends),
            }
        },
    }
    .checked()
}

#[cfg(test)]
mod tests;
