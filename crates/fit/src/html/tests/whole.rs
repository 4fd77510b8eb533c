//! Every page of the site: closed elements, unique anchors, links that lead somewhere, nothing
//! loaded from elsewhere, and no name that becomes markup.

use std::collections::{BTreeMap, HashSet};

use super::super::{page, site};
use crate::catalog::Catalog;
use crate::page::ComboPage;
use crate::speed::SpeedModel;
use crate::verdict::Ask;

/// Most bytes of a page, whatever the catalog has.
const MOST: usize = 80_000;

/// Elements without an end tag: void ones, and those whose end HTML lets one leave out.
const OPEN: [&str; 6] = ["meta", "link", "input", "tr", "td", "th"];

/// A tag: its name, its attributes as they stand, and which kind it is.
struct Tag<'a> {
    name: &'a str,
    attributes: &'a str,
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    Start,
    End,
    Empty,
}

/// The tags of a page. Text has no `<` of its own, as it is escaped; scripts and styles are left out.
fn tags(page: &str) -> Vec<Tag<'_>> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let tag = &rest[start + 1..];
        let end = tag.find('>').expect("a tag ends");
        let (inside, after) = (&tag[..end], &tag[end + 1..]);
        rest = after;
        if inside.starts_with('!') {
            continue;
        }
        let (kind, inside) = match (inside.strip_prefix('/'), inside.strip_suffix('/')) {
            (Some(name), _) => (Kind::End, name),
            (_, Some(empty)) => (Kind::Empty, empty),
            _ => (Kind::Start, inside),
        };
        let (name, attributes) = inside
            .split_once(|c: char| c.is_whitespace())
            .unwrap_or((inside, ""));
        assert!(
            name.chars().all(|c| c.is_ascii_alphanumeric()),
            "<{inside}>"
        );
        if kind == Kind::Start && matches!(name, "script" | "style") {
            let close = format!("</{name}>");
            rest = &rest[rest.find(&close).expect("it is closed")..];
        }
        tags.push(Tag {
            name,
            attributes,
            kind,
        });
    }
    tags
}

/// An attribute's value, quoted or not.
fn attribute<'a>(tag: &Tag<'a>, name: &str) -> Option<&'a str> {
    let sign = format!("{name}=");
    let spaced = tag.attributes.match_indices(&sign);
    let (at, _) = spaced
        .into_iter()
        .find(|(at, _)| *at == 0 || tag.attributes[..*at].ends_with(' '))?;
    let value = &tag.attributes[at + sign.len()..];
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split(' ').next(),
    }
}

/// All that holds for a page by itself; its anchors.
fn check(path: &str, page: &str) -> HashSet<String> {
    let mut stack: Vec<&str> = Vec::new();
    let mut anchors = HashSet::new();
    let mut heading = 0;
    for tag in tags(page) {
        match tag.kind {
            Kind::End if OPEN.contains(&tag.name) => {}
            Kind::End => assert_eq!(stack.pop(), Some(tag.name), "{path}: </{}>", tag.name),
            Kind::Start if !OPEN.contains(&tag.name) => stack.push(tag.name),
            Kind::Start | Kind::Empty => {}
        }
        if tag.kind == Kind::End {
            continue;
        }
        if let Some(id) = attribute(&tag, "id") {
            assert!(anchors.insert(id.to_owned()), "{path}: two of #{id}");
        }
        for harmful in ["src", "onclick", "onload", "onerror"] {
            assert_eq!(attribute(&tag, harmful), None, "{path}: <{}>", tag.name);
        }
        let level = match tag.name {
            "h1" => 1,
            "h2" => 2,
            "h3" => 3,
            _ => 0,
        };
        if level > 0 {
            assert!(level <= heading + 1, "{path}: h{level} after h{heading}");
            assert!(level > 1 || heading == 0, "{path}: two of h1");
            heading = level;
        }
        if attribute(&tag, "class").is_some_and(|all| all.split(' ').any(|c| c == "scroll")) {
            assert_eq!(attribute(&tag, "tabindex"), Some("0"), "{path}");
            assert!(attribute(&tag, "aria-label").is_some_and(|name| !name.is_empty()));
        }
        if tag.name == "pre" {
            assert_eq!(attribute(&tag, "tabindex"), Some("0"), "{path}");
        }
    }
    assert_eq!(stack, Vec::<&str>::new(), "{path}");
    let count = |name: &str| page.matches(name).count();
    assert_eq!(count("<table"), count("<caption>"), "{path}");
    assert!(!page.contains("<caption></caption>"), "{path}");
    for loads in ["@import", "url(", "<img", "<iframe", "fetch(", "http://"] {
        assert!(!page.contains(loads), "{path}: {loads}");
    }
    assert!(page.len() < MOST, "{path} has {} bytes", page.len());
    anchors
}

#[test]
fn every_page_of_the_site_is_whole() {
    let catalog = Catalog::embedded().expect("the catalog is whole");
    let speed = SpeedModel::new(&catalog);
    let test = crate::calibrate::backtest_all(&catalog);
    let files = site(&catalog, &Ask::default(), &speed, Some(test)).expect("a site");
    let pages: BTreeMap<&str, &str> = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    assert_eq!(pages.len(), files.len(), "a path is taken twice");
    let html = || pages.iter().filter(|(path, _)| **path != "style.css");
    let anchors: BTreeMap<&str, HashSet<String>> = html()
        .map(|(path, text)| (*path, check(path, text)))
        .collect();
    for (path, text) in html() {
        let links = tags(text);
        let links = links.iter().filter_map(|tag| attribute(tag, "href"));
        for link in links.filter(|link| !link.starts_with("https://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = match (file, path.split_once('/')) {
                ("", _) => (*path).to_owned(),
                (file, Some(_)) if file.starts_with("../") => file[3..].to_owned(),
                (file, Some((folder, _))) => format!("{folder}/{file}"),
                (file, None) => file.to_owned(),
            };
            assert!(pages.contains_key(file.as_str()), "{path}: {link}");
            let there = anchors.get(file.as_str());
            let known = there.is_none_or(|all| all.contains(anchor));
            assert!(anchor.is_empty() || known, "{path}: {link}");
        }
    }
}

/// Names of a folder's catalog are text, whatever they are.
#[test]
fn a_hostile_name_stays_text() {
    let long = "x".repeat(300);
    let name = format!("<script>alert(1)</script>'\\\"</style>{long}");
    let text = name.replace('\\', "\\\\").replace('"', "\\\"");
    let files = BTreeMap::from([
        (
            "links.toml".to_owned(),
            format!(
                "[[link]]\nid = \"tb5\"\nname = \"{text}\"\nkind = \"thunderbolt\"\nlatency_ms = 0.3\nbandwidth_gb_s = 3.0\nevidence = \"community\"\nsource = \"{text}\"\ndate = \"2026-11\"\nnote = \"{text}\\u001B[31m\"\n"
            ),
        ),
        (
            "combos.toml".to_owned(),
            format!(
                "[[combo]]\nid = \"quad-mac-mini-m4-pro-64gb\"\ntitle = \"{text}\"\nrole = \"{text}\"\ntopology = \"{text}\"\nmachines = \"4x mac-mini-m4-pro-64gb, link=tb5\"\nsources = [\"{text}\"]\ndate = \"2026-11\"\n"
            ),
        ),
    ]);
    let mut catalog = Catalog::from_files(&files).expect("any name is read");
    for model in catalog.models.iter_mut().take(3) {
        model.name.clone_from(&name);
    }
    let combo = catalog.combo("quad-mac-mini-m4-pro-64gb").expect("a combo");
    let speed = SpeedModel::new(&catalog);
    let made = ComboPage::new(&catalog, &combo.cluster, &Ask::default(), &speed);
    let html = page(&made.expect("a page")).expect("a page");
    assert_eq!(html.matches("<script>").count(), 1, "the filter's own");
    assert_eq!(html.matches("</style>").count(), 1, "the page's own");
    assert!(html.contains("&lt;script&gt;alert(1)"));
    assert!(!html.contains('\u{1b}'));
    let alone = html.replace(&long, "");
    check("a page of its own", &alone);
}
