mod colours;
mod whole;

use super::linked;

#[test]
fn an_address_becomes_a_link_and_nothing_else_markup() {
    assert_eq!(
        linked("see https://a.org/b?x=1&y=2, <b>"),
        "see <a rel=\"noopener\" href=\"https://a.org/b?x=1&amp;y=2\">a.org/b?x=1&amp;y=2</a>, &lt;b&gt;"
    );
    assert_eq!(
        linked("https://a.org/\"onclick=x"),
        "<a rel=\"noopener\" href=\"https://a.org/\">a.org</a>&quot;onclick=x"
    );
    assert_eq!(linked("javascript:alert(1)"), "javascript:alert(1)");
    assert_eq!(linked("a\u{1b}[31m"), "a\u{fffd}[31m");
}
