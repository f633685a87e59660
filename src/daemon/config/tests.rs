//! Which options go together.

use std::time::Duration;

use redtape_capture::Thresholds;

use super::*;

fn config(upstream: &str) -> Config {
    Config {
        listen: vec!["127.0.0.1:6400".parse().expect("an address")],
        ..Config::new(upstream.parse().expect("a URL"))
    }
}

fn refusal(config: &Config) -> String {
    config.check().expect_err("refused").to_string()
}

#[test]
fn the_defaults_are_good() {
    assert_eq!(config("redis://h").check().expect("good"), Vec::<String>::new());
}

#[test]
fn what_does_not_go_together_is_named() {
    let base = || config("redis://127.0.0.1:6379");
    let cases = [
        (Config { tls_listen: vec!["127.0.0.1:6401".parse().expect("a")], ..base() }, "tls-cert-file"),
        (Config { max_clients: 0, ..base() }, "maxclients"),
        (Config { output_limit: ByteSize(10), ..base() }, "client-output-buffer-limit"),
        (Config { client_memory: ByteSize(1 << 20), ..base() }, "client-memory"),
        (
            Config { snapshot_every: "6h".parse().ok(), snapshot_at: "03:00".parse().ok(), ..base() },
            "snapshot-every and snapshot-at",
        ),
        (Config { snapshot_rate: Some(ByteSize(10)), ..base() }, "snapshot-rate"),
        (
            Config { marks: Thresholds { mass_time: Duration::ZERO, ..Thresholds::default() }, ..base() },
            "mass-delete-seconds",
        ),
        (Config { metrics: Some("127.0.0.1:6400".parse().expect("a")), ..base() }, "given twice"),
        (Config { listen: vec!["127.0.0.1:6379".parse().expect("a")], ..base() }, "upstream's own address"),
        (Config { upstream_tls: ClientTls { insecure: true, ..ClientTls::default() }, ..base() }, "rediss://"),
        (
            Config {
                upstream_tls: ClientTls { sni: Some("no name!".into()), insecure: true, ..ClientTls::default() },
                ..config("rediss://h")
            },
            "upstream-tls-sni",
        ),
    ];
    for (config, word) in cases {
        let message = refusal(&config);
        assert!(message.contains(word), "{word}: {message}");
    }
    assert!(Config { client_memory: ByteSize(0), ..base() }.check().is_ok(), "no limit");
    let any_port = vec!["127.0.0.1:0".parse().expect("a"); 2];
    assert!(Config { listen: any_port, ..base() }.check().is_ok());
}

#[test]
fn retention_without_new_snapshots_is_surely_not_meant() {
    let mut config = config("redis://h");
    config.retention = "7d".parse().ok();
    assert!(config.check().expect("allowed")[0].contains("snapshot-every"));
    config.snapshot_every = "6h".parse().ok();
    assert_eq!(config.check().expect("good"), Vec::<String>::new());
}

#[test]
fn settings_show_no_password() {
    let mut config = config("rediss://u:hunter2@h");
    config.follow = Some("redis://:hunter3@h".parse().expect("a URL"));
    let text = format!("{:?}", config.settings());
    assert!(!text.contains("hunter") && text.contains("***"), "{text}");
    let names: HashSet<_> = config.settings().iter().map(|s| s.name).collect();
    assert_eq!(names.len(), config.settings().len(), "each once");
}
