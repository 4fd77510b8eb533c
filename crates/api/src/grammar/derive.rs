//! Texts that a grammar derives, drawn at random, for tests.

use std::collections::HashMap;

/// Steps after which the first way is taken and nothing is repeated, so that a text ends.
const MAX_STEPS: usize = 300;

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Class(bool, Vec<(char, char)>),
    Rule(String),
    Any(Vec<Way>),
}

/// Nodes with how often each may come.
type Way = Vec<(Node, usize, usize)>;

struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn take(&mut self, text: &str) -> bool {
        self.0 = self.0.trim_start_matches(' ');
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn next(&mut self) -> char {
        let next = self.0.chars().next().expect("more of the grammar");
        self.0 = &self.0[next.len_utf8()..];
        next
    }

    fn character(&mut self) -> char {
        let next = self.next();
        if next != '\\' {
            return next;
        }
        let digits = match self.next() {
            'n' => return '\n',
            'r' => return '\r',
            't' => return '\t',
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return other,
        };
        let (code, rest) = self.0.split_at(digits);
        self.0 = rest;
        char::from_u32(u32::from_str_radix(code, 16).expect("digits")).expect("a character")
    }

    fn any(&mut self) -> Vec<Way> {
        let mut ways = vec![self.way()];
        while self.take("|") {
            ways.push(self.way());
        }
        ways
    }

    fn way(&mut self) -> Way {
        let mut way = Way::new();
        loop {
            let node = if self.take("\"") {
                let mut text = String::new();
                while !self.0.starts_with('"') {
                    text.push(self.character());
                }
                self.next();
                Node::Text(text)
            } else if self.take("[") {
                let negated = self.take("^");
                let mut ranges = Vec::new();
                while !self.0.starts_with(']') {
                    let first = self.character();
                    let last = if self.0.starts_with('-') {
                        self.next();
                        self.character()
                    } else {
                        first
                    };
                    ranges.push((first, last));
                }
                self.next();
                Node::Class(negated, ranges)
            } else if self.take("(") {
                let ways = self.any();
                assert!(self.take(")"), "a bracket before {:?}", self.0);
                Node::Any(ways)
            } else {
                let name = |c: char| c.is_ascii_alphanumeric() || c == '-';
                let end = self.0.find(|c| !name(c)).unwrap_or(self.0.len());
                let (name, rest) = self.0.split_at(end);
                if name.is_empty() {
                    return way;
                }
                self.0 = rest;
                Node::Rule(name.to_owned())
            };
            let (least, most) = self.count();
            way.push((node, least, most));
        }
    }

    fn count(&mut self) -> (usize, usize) {
        for (mark, least, most) in [("*", 0, usize::MAX), ("+", 1, usize::MAX), ("?", 0, 1)] {
            if self.take(mark) {
                return (least, most);
            }
        }
        if !self.take("{") {
            return (1, 1);
        }
        let (inner, rest) = self.0.split_once('}').expect("a count");
        self.0 = rest;
        let (least, most) = inner.split_once(',').unwrap_or((inner, inner));
        let least = least.parse().expect("a number");
        (least, most.parse().unwrap_or(usize::MAX))
    }
}

/// A text that `root` of this grammar derives.
pub(crate) fn derive(grammar: &str, seed: u64) -> String {
    let rules = grammar.lines().map(|line| {
        let (name, body) = line.split_once(" ::= ").expect("a rule");
        let mut reader = Reader(body);
        let ways = reader.any();
        assert_eq!(reader.0.trim(), "", "not read of {line}");
        (name, ways)
    });
    let mut deriver = Deriver {
        rules: rules.collect(),
        random: seed | 1,
        steps: 0,
        text: String::new(),
    };
    let root = deriver.rules["root"].clone();
    deriver.any(&root);
    deriver.text
}

struct Deriver<'a> {
    rules: HashMap<&'a str, Vec<Way>>,
    random: u64,
    steps: usize,
    text: String,
}

impl Deriver<'_> {
    /// Less than `count`; 0 once the text is long.
    fn choose(&mut self, count: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if self.steps > MAX_STEPS {
            return 0;
        }
        (self.random >> 16) as usize % count
    }

    fn any(&mut self, ways: &[Way]) {
        self.steps += 1;
        let way = self.choose(ways.len());
        for (node, least, most) in &ways[way] {
            let more = self.choose((most - least).min(3) + 1);
            for _ in 0..least + more {
                self.node(node);
            }
        }
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::Text(text) => self.text.push_str(text),
            Node::Rule(name) => {
                let ways = self.rules[name.as_str()].clone();
                self.any(&ways);
            }
            Node::Any(ways) => self.any(ways),
            Node::Class(false, ranges) => {
                let range = self.choose(ranges.len());
                let (first, last) = ranges[range];
                let span = last as usize - first as usize + 1;
                let code = first as u32 + self.choose(span) as u32;
                self.text.push(char::from_u32(code).unwrap_or(first));
            }
            Node::Class(true, ranges) => {
                const SOME: [char; 12] = [
                    'a',
                    'B',
                    '7',
                    ' ',
                    '/',
                    'é',
                    '日',
                    '\u{1F600}',
                    '<',
                    '-',
                    '\n',
                    '>',
                ];
                let within = |c: &char| ranges.iter().any(|r| (r.0..=r.1).contains(c));
                let free: Vec<char> = SOME.into_iter().filter(|c| !within(c)).collect();
                let free = free[self.choose(free.len())];
                self.text.push(free);
            }
        }
    }
}
