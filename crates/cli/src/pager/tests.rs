use super::*;

/// The command with these variables set.
fn with(variables: &[(&str, &str)]) -> Option<String> {
    let words = chosen(|name| {
        let found = variables.iter().find(|(own, _)| *own == name);
        found.map(|(_, value)| value.into())
    });
    words.map(|words| words.join("|"))
}

#[test]
fn who_chooses_the_pager() {
    let some = |command: &str| Some(command.to_owned());
    assert_eq!(with(&[]), some("less"));
    assert_eq!(with(&[("PAGER", "more")]), some("more"));
    assert_eq!(with(&[("PAGER", " most  -s ")]), some("most|-s"));
    let both = [("BRIGADE_PAGER", "less -S"), ("PAGER", "more")];
    assert_eq!(with(&both), some("less|-S"));
    for off in ["", " ", "cat"] {
        assert_eq!(with(&[("PAGER", off)]), None, "{off}");
        assert_eq!(with(&[("BRIGADE_PAGER", off), ("PAGER", "more")]), None);
    }
}

#[cfg(unix)]
#[test]
fn what_a_shell_has_to_read() {
    let line = "less -R | head";
    assert_eq!(with(&[("PAGER", line)]), Some(format!("sh|-c|{line}")));
    let line = "'/opt/my pager' -R";
    assert_eq!(with(&[("PAGER", line)]), Some(format!("sh|-c|{line}")));
}

#[test]
fn a_pager_that_is_not_there() {
    assert!(show("text", &["/nowhere/a-pager".to_owned()]).is_err());
    assert!(show("text", &[]).is_err());
}
