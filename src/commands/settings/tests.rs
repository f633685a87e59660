//! Flags over file over defaults.

use clap::{Command, FromArgMatches as _};

use redtape_capture::Thresholds;
use redtape_journal::Keyring;

use super::*;

fn settings(args: &[&str], toml: &str) -> anyhow::Result<Config> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("redtape.toml");
    std::fs::write(&path, toml)?;
    let command = ProxySettings::augment_args(Command::new("redtape").no_binary_name(true));
    let matches = command.try_get_matches_from(args)?;
    let mut settings = ProxySettings::from_arg_matches(&matches)?;
    settings.follow.file.config = Some(path);
    settings.config()
}

#[test]
fn flags_win_over_the_file_and_that_over_defaults() {
    let toml = r#"
        upstream = "redis://file:1"
        listen = ["127.0.0.1:1", "unix:///run/r.sock"]
        unixsocketperm = 770
        maxclients = 7
        timeout = 30
        client-output-buffer-limit = "256mb"
        client-memory = 0
        admin-users = "ops"
        sharing = "off"
        automatic-marks = "off"
        mass-delete-keys = 7
        mass-delete-seconds = 20
    "#;
    let config = settings(&[], toml).expect("the file");
    assert_eq!(config.upstream.address(), "file:1");
    assert_eq!(config.listen.len(), 2);
    assert_eq!((config.max_clients, config.timeout), (7, Some(Duration::from_secs(30))));
    assert_eq!((config.output_limit.0, config.client_memory.0), (256 << 20, 0));
    assert_eq!(config.unix_socket_mode.map(|m| m.0), Some(0o770));
    assert_eq!(config.admin_users, ["ops"]);
    assert_eq!(config.handshake_timeout, Duration::from_secs(10), "the default");
    let marks = Thresholds { enabled: false, mass_keys: 7, mass_time: Duration::from_secs(20) };
    assert_eq!(config.marks, marks);
    let flags = [
        "--upstream",
        "redis://flag:2",
        "--listen",
        "127.0.0.1:2",
        "--maxclients",
        "9",
        "--timeout",
        "0",
        "--tcp-keepalive=0",
        "--client-memory=64mb",
        "--automatic-marks=on",
        "--mass-delete-keys=0",
    ];
    let config = settings(&flags, toml).expect("both");
    assert_eq!(config.upstream.address(), "flag:2");
    assert_eq!(config.listen, ["127.0.0.1:2".parse().expect("an address")]);
    assert_eq!((config.max_clients, config.timeout, config.tcp_keepalive), (9, None, None));
    assert_eq!((&config.admin_users[..], config.client_memory.0), (&["ops".to_owned()][..], 64 << 20));
    assert_eq!(config.marks, Thresholds { enabled: true, mass_keys: 0, ..marks });
}

#[test]
fn every_option_may_be_in_the_file() {
    let toml = "upstream = 'rediss://h'\ntls-listen = '[::1]:6401'\ntls-cert-file = 'c'\ntls-key-file = 'k'\n";
    let config = settings(&[], toml).expect("settings");
    assert!(config.listen.is_empty(), "no second way in without TLS");
    for setting in config.settings().into_iter().filter(|s| !s.value.is_null()) {
        let value = toml::Value::try_from(&setting.value).expect("TOML");
        let result = settings(&["--upstream", "redis://h"], &format!("{} = {value}\n", setting.name));
        // Some need others beside them; none is unknown, and each is read as it is shown.
        let message = result.map_or_else(|e| e.to_string(), |_| String::new());
        assert!(!message.contains("redtape.toml"), "{message}");
    }
    let sni = "upstream = 'h'\ntls-cert-file='c'\ntls-key-file='k'\n[[tls-sni-cert]]\nname='a'\ncert-file='b'\nkey-file='c'\n";
    assert_eq!(settings(&[], sni).expect("SNI").tls.map(|t| t.sni.len()), Some(1));
}

#[test]
fn the_example_names_every_option_and_its_default() {
    let example = include_str!("../../../redtape.example.toml");
    let defaults =
        Config { upstream: "h".parse().expect("a URL"), ..settings(&[], "upstream = 'h'").expect("defaults") };
    let mut from_example = settings(&[], example).expect("the example");
    from_example.upstream = defaults.upstream.clone();
    assert_eq!(from_example.settings(), defaults.settings());
    // What is commented out is right, too: prose has a blank behind the #.
    let mut all = String::new();
    for line in example.lines() {
        let option = line.strip_prefix('#').filter(|l| !l.starts_with(' ') || l.starts_with("    {"));
        all += option.unwrap_or(line);
        all.push('\n');
    }
    // A key file is read at once.
    let keys = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(keys.path(), Keyring::new_line("a").expect("a key")).expect("written");
    let all = all.replace("/etc/redtape/journal.keys", keys.path().to_str().expect("text"));
    let all = settings(&[], &all).expect("every option of the example");
    let unset: Vec<_> = all.settings().into_iter().filter(|s| s.value.is_null()).map(|s| s.name).collect();
    assert_eq!(unset, [""; 0], "options that the example does not show");
}

#[test]
fn halves_and_wrong_values_are_refused_by_name() {
    for (toml, words) in [
        ("upstream = 'http://h'", ["redtape.toml:1: upstream", "redis://"]),
        ("upstream = 'h'\ntls-cert-file = 'c'", ["tls-cert-file", "tls-key-file"]),
        ("upstream = 'h'\ntls-auth-clients = 'no'", ["tls-cert-file", "tls-key-file"]),
        ("upstream = 'h'\ntls-auth-clients = 'maybe'", ["redtape.toml:2: tls-auth-clients", "optional"]),
        ("upstream = 'h'\nupstream-tls-key-file = 'k'", ["upstream-tls-cert-file", "upstream-tls-key-file"]),
        (
            "upstream = 'h'\n\nclient-output-buffer-limit = '1 GB'",
            ["redtape.toml:3: client-output-buffer-limit", "256mb"],
        ),
        ("upstream = 'h'\ntls-protocols = 'TLSv1.1'", ["tls-protocols", "TLSv1.2"]),
        ("upstream = 'h'\nmaxclient = 5", ["redtape.toml:2: maxclient:", "did you mean maxclients?"]),
        ("upstream = 'h'\nlisten = []", ["listen", "redtape follow"]),
    ] {
        let message = settings(&[], toml).expect_err(toml).to_string();
        assert!(words.iter().all(|w| message.contains(w)), "{toml}: {message}");
    }
}
