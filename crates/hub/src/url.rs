//! Parts of URLs, as far as files on web servers need them.

use crate::FetchError;

/// Whether this names a file on a web server.
pub fn is_url(name: &str) -> bool {
    let scheme = name.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    })
}

/// The name of the file that a URL ends in.
pub fn file_name(url: &str) -> &str {
    let path = split_query(url).0;
    path.rsplit('/').next().unwrap_or(path)
}

/// A URL without the name, the password and the query that may stand in it: a query may be a
/// signature.
pub fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or(host);
    format!("{scheme}://{host}{}", split_query(path).0)
}

/// Hugging Face shows a file's page under `/blob/`, and the file itself under `/resolve/`.
pub(crate) fn direct(url: &str) -> String {
    let page = ["https://huggingface.co/", "https://hf.co/"]
        .iter()
        .any(|host| url.starts_with(host));
    if page {
        url.replacen("/blob/", "/resolve/", 1)
    } else {
        url.to_owned()
    }
}

/// A URL up to its file's name, and what follows it.
pub(crate) fn split_query(url: &str) -> (&str, &str) {
    url.split_at(url.find(['?', '#']).unwrap_or(url.len()))
}

/// Whether two URLs lead to the same server by the same scheme.
pub(crate) fn same_server(one: &str, other: &str) -> bool {
    fn origin(url: &str) -> Option<(String, String)> {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let host = rest[..end].to_ascii_lowercase();
        let scheme = scheme.to_ascii_lowercase();
        let usual = if scheme == "https" { ":443" } else { ":80" };
        let host = host.strip_suffix(usual).unwrap_or(&host).to_owned();
        // Who has a name and password in the address has one way to log in already.
        (!host.contains('@')).then_some((scheme, host))
    }
    origin(one).is_some_and(|one| Some(one) == origin(other))
}

/// A piece of a path as it stands in a URL; slashes stay.
pub(crate) fn encode_path(path: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Where a redirect leads: never to another scheme, but from HTTP to HTTPS.
pub(crate) fn redirected(from: &str, to: &str) -> Result<String, FetchError> {
    let to = to.split('#').next().unwrap_or_default();
    let (from, _) = split_query(from);
    let (scheme, rest) = from.split_once("://").unwrap_or(("", from));
    let host = &rest[..rest.find('/').unwrap_or(rest.len())];
    // A colon after a slash or a question mark is a name's.
    if let Some((other_scheme, _)) = to.split_once(':')
        && !other_scheme.contains(['/', '?'])
    {
        let secure = |scheme: &str| scheme.eq_ignore_ascii_case("https");
        if !is_url(to) || (secure(scheme) && !secure(other_scheme)) {
            return Err(FetchError::lasting(format!(
                "the server redirects from {scheme} to another scheme, {other_scheme}: not followed"
            )));
        }
        return Ok(to.to_owned());
    }
    if to.starts_with("//") {
        return Ok(format!("{scheme}:{to}"));
    }
    if to.starts_with('/') {
        return Ok(format!("{scheme}://{host}{to}"));
    }
    if to.starts_with('?') {
        return Ok(format!("{from}{to}"));
    }
    let mut folder = rest[host.len()..]
        .rsplit_once('/')
        .map_or("", |split| split.0);
    let mut to = to;
    loop {
        if let Some(below) = to.strip_prefix("./") {
            to = below;
        } else if let Some(below) = to.strip_prefix("../") {
            folder = folder.rsplit_once('/').map_or("", |split| split.0);
            to = below;
        } else {
            return Ok(format!("{scheme}://{host}{folder}/{to}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert!(is_url("HTTPS://host/file") && is_url("http://host"));
        assert!(!is_url("file.gguf") && !is_url("ftp://host") && !is_url("http"));
        assert_eq!(file_name("https://h/a/b.gguf?download=true"), "b.gguf");
        assert_eq!(
            direct("https://huggingface.co/o/r/blob/main/m.gguf"),
            "https://huggingface.co/o/r/resolve/main/m.gguf"
        );
        assert_eq!(direct("https://h/o/blob/m.gguf"), "https://h/o/blob/m.gguf");
        assert_eq!(shown("https://me:pw@h/a@b?c@d"), "https://h/a@b");
        assert_eq!(encode_path("refs/pr/1 ä"), "refs/pr/1%20%C3%A4");
    }

    #[test]
    fn whose_token_it_is() {
        let hub = "https://huggingface.co";
        for same in [
            "https://huggingface.co/x",
            "HTTPS://HuggingFace.co:443/x?y",
            "https://huggingface.co?x",
        ] {
            assert!(same_server(hub, same), "{same}");
        }
        for other in [
            "http://huggingface.co/x",
            "https://cdn.huggingface.co/x",
            "https://huggingface.co:8443/x",
            "https://huggingface.co@evil/x",
            "https://evil/https://huggingface.co/",
            "https://evil\\@huggingface.co/",
            "x",
        ] {
            assert!(!same_server(hub, other), "{other}");
        }
    }

    #[test]
    fn where_redirects_lead() {
        let from = "https://h:1/a/b/c.gguf?x=1";
        for (to, expected) in [
            ("https://other/d?y#z", Some("https://other/d?y")),
            ("HTTPS://other/d", Some("HTTPS://other/d")),
            ("//other/d", Some("https://other/d")),
            ("/d:e", Some("https://h:1/d:e")),
            ("?y=2", Some("https://h:1/a/b/c.gguf?y=2")),
            ("d", Some("https://h:1/a/b/d")),
            ("./../d", Some("https://h:1/a/d")),
            ("../../../d", Some("https://h:1/d")),
            ("http://h:1/a", None),
            ("ftp://h/a", None),
        ] {
            assert_eq!(redirected(from, to).ok().as_deref(), expected, "{to}");
        }
        assert_eq!(redirected("http://h", "d").unwrap(), "http://h/d");
        assert!(redirected("http://h/a", "https://h/a").is_ok());
    }
}
