use proptest::prelude::*;

use super::*;

fn example(scope: Scope) -> Service {
    let text = str::to_owned;
    Service {
        program: text("/opt/my tools/100% $brigade/brigade"),
        arguments: ["up", "--name", "$HOME & <co>", "--listen", "10.0.0.1:8810"]
            .map(text)
            .to_vec(),
        environment: vec![(text("BRIGADE_CACHE"), text("/big disk/50%/\\c&a"))],
        scope,
        account: Account {
            name: text("ann"),
            home: text("/home/ann"),
        },
    }
}

#[test]
fn units_and_property_lists() {
    for (name, scope) in [("user", Scope::User), ("system", Scope::System)] {
        let service = example(scope);
        insta::assert_snapshot!(
            format!("systemd-{name}"),
            systemd::render(&service).unwrap()
        );
        insta::assert_snapshot!(format!("launchd-{name}"), launchd::render(&service));
    }
}

/// The words of a value, as systemd.syntax(7) and systemd.service(5) read it: quotes, escapes,
/// then specifiers. `None` where it is malformed.
fn systemd_words(value: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        if character == ' ' {
            continue;
        }
        if character != '"' {
            return None;
        }
        let mut word = String::new();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => match characters.next()? {
                    escape @ ('\\' | '"') => word.push(escape),
                    _ => return None,
                },
                '%' => match characters.next()? {
                    '%' => word.push('%'),
                    _ => return None,
                },
                other => word.push(other),
            }
        }
        words.push(word);
    }
    Some(words)
}

/// What a process gets where variables are replaced: a single `$` would begin one.
fn without_variables(word: &str) -> Option<String> {
    let literal = word.replace("$$", "\0");
    (!literal.contains('$')).then(|| literal.replace('\0', "$"))
}

fn xml_strings(list: &str) -> Vec<String> {
    let parts = list.split("<string>").skip(1);
    parts
        .map(|part| {
            let text = part.split("</string>").next().unwrap();
            assert!(!text.contains(['<', '>']));
            text.replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&amp;", "&")
        })
        .collect()
}

proptest! {
    #[test]
    fn whatever_the_words_are_they_arrive(
        folder in r"[ !#-&(-\[\]-~äß日%$]{0,12}",
        arguments in prop::collection::vec(r#"[ -~äß日"'%$\\&<>;#]{0,16}"#, 0..5),
        value in r#"[ -~"'%$\\&<>]{0,16}"#,
    ) {
        let service = Service {
            program: format!("/{folder}/brigade"),
            arguments,
            environment: vec![("BRIGADE_HOME".to_owned(), value.clone())],
            ..example(Scope::User)
        };
        let unit = systemd::render(&service).unwrap();
        let line = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let words = systemd_words(line("ExecStart=")).unwrap();
        prop_assert_eq!(&words[0], &service.program);
        let arguments: Option<Vec<_>> =
            words[1..].iter().map(|word| without_variables(word)).collect();
        prop_assert_eq!(arguments.as_ref(), Some(&service.arguments));
        let environment = systemd_words(line("Environment=")).unwrap();
        prop_assert_eq!(environment, [format!("BRIGADE_HOME={value}")]);

        let strings = xml_strings(&launchd::render(&service));
        let words = &strings[1..2 + service.arguments.len()];
        prop_assert_eq!(&words[0], &service.program);
        prop_assert_eq!(&words[1..], &service.arguments);
        prop_assert_eq!(&strings[words.len() + 1], &value);
    }
}

#[test]
fn what_no_file_can_hold_is_refused() {
    let mut service = example(Scope::User);
    service.must_be_writable().unwrap();
    service.arguments.push("two\nlines".to_owned());
    let error = service.must_be_writable().unwrap_err().to_string();
    assert!(error.contains(r#""two\nlines""#), "{error}");
}

#[test]
fn a_program_that_systemd_does_not_start_is_refused() {
    for name in ["o'clock", "a\"b", "a\\b"] {
        let service = Service {
            program: format!("/opt/{name}/brigade"),
            ..example(Scope::User)
        };
        let error = systemd::render(&service).unwrap_err().to_string();
        assert!(error.contains(&service.program), "{error}");
        assert!(launchd::render(&service).contains("/brigade</string>"));
    }
}

#[test]
fn options_that_a_service_cannot_have_are_refused() {
    let said = |up: &[&str]| {
        let args = InstallArgs {
            scope: ScopeArgs {
                user: true,
                system: false,
            },
            run_as: None,
            dry_run: true,
            up: up.iter().map(|&word| word.to_owned()).collect(),
        };
        service(&args, Scope::User).map_or_else(|error| error.to_string(), |_| String::new())
    };
    assert_eq!(said(&["--name", "mini"]), "");
    let typo = said(&["--lisden", "1"]);
    assert!(typo.contains("`brigade up`: unexpected argument"), "{typo}");
    let relative = said(&["--api-key-file", "keys"]);
    assert!(relative.contains("keys"), "{relative}");
    assert!(relative.contains("absolute"), "{relative}");
}

#[test]
fn a_shell_gets_the_words_back() {
    assert_eq!(
        example(Scope::User).command_line(),
        "'/opt/my tools/100% $brigade/brigade' up --name '$HOME & <co>' --listen 10.0.0.1:8810"
    );
    assert_eq!(shell_word("it's"), r"'it'\''s'");
    assert_eq!(shell_word(""), "''");
}

#[test]
fn what_managers_say() {
    // As systemctl(1) of systemd 252 has it; no running systemd was at hand.
    let runs = "MainPID=4711\nResult=success\nActiveState=active\nSubState=running\n";
    assert_eq!(systemd::status(runs), Status::Runs(4711));
    let waits = "MainPID=0\nResult=exit-code\nActiveState=activating\nSubState=auto-restart\n";
    assert_eq!(
        systemd::status(waits).to_string(),
        "not running: activating (auto-restart, exit-code)"
    );
    // launchctl of macOS 14, shortened, as its manual and reports show it; not seen here.
    let printed = "gui/501/brigade.node = {\n\tactive count = 1\n\tstate = running\n\n\
                   \tprogram = /opt/homebrew/bin/brigade\n\truns = 1\n\tpid = 4711\n}\n";
    assert_eq!(launchd::status(printed), Status::Runs(4711));
    let ended = "\tstate = spawn scheduled\n\tlast exit code = 1\n";
    assert_eq!(
        launchd::status(ended).to_string(),
        "not running: spawn scheduled, last exit code 1"
    );
    assert_eq!(launchd::status("").to_string(), "not running: not loaded");
}

#[test]
fn home_folders() {
    let entry = "ann:x:1000:1000:Ann,,,:/home/ann:/bin/bash\n";
    assert_eq!(manager::home_of_passwd(entry), Some("/home/ann"));
    assert_eq!(manager::home_of_passwd("ann"), None);
    let read = "NFSHomeDirectory: /Users/ann\n";
    assert_eq!(manager::home_of_dscl(read), Some("/Users/ann"));
    let blanks = "NFSHomeDirectory:\n /Users/ann b\n";
    assert_eq!(manager::home_of_dscl(blanks), Some("/Users/ann b"));
}
