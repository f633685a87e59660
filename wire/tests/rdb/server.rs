//! A real server on a free port, and a connection to it. `REDTAPE_TEST_SERVER` chooses which one, else `redis-server`;
//! `make compat` sets it to each server of `scripts/install-servers.sh all` in turn.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Killed on drop, its folder removed.
pub(crate) struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

fn binary() -> String {
    std::env::var("REDTAPE_TEST_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With more arguments.
    pub(crate) fn with(extra: &[&str]) -> Self {
        let banner = Command::new(binary()).arg("--version").output().expect("a server; scripts/install-servers.sh");
        let banner = String::from_utf8_lossy(&banner.stdout).into_owned();
        // DEBUG must be allowed by name since Redis 7.0; before, the option is not known.
        let debug: &[&str] = if banner.contains("v=6.") { &[] } else { &["--enable-debug-command", "yes"] };
        // Another test may take the port between the look and the start: then try with the next.
        for _ in 0..5 {
            let dir = tempfile::Builder::new().prefix("redtape-test-rdb-").tempdir().expect("a folder");
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port").port();
            let child = Command::new(binary())
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
                .arg(dir.path())
                .args(debug)
                .args(extra)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap_or_else(|e| panic!("{}: {e}", binary()));
            let mut server = Self { child, port, dir };
            if server.answers() {
                return server;
            }
        }
        panic!("{} does not start", binary());
    }

    fn answers(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if self.child.try_wait().expect("its state").is_some() {
                return false;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return self.conn().call(&["PING"]) == Reply::Bytes(b"PONG".to_vec());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub(crate) fn conn(&self) -> Conn {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        Conn { from: BufReader::new(stream) }
    }

    /// Where `SAVE` writes, and `DEBUG RELOAD NOSAVE` reads.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("dump.rdb")
    }

    /// Replaces everything that the server holds by this RDB.
    pub(crate) fn load(&self, rdb: &[u8]) {
        std::fs::write(self.file(), rdb).expect("the file");
        self.conn().must(&["DEBUG", "RELOAD", "NOSAVE"]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    Nil,
    Int(i64),
    Bytes(Vec<u8>),
    Error(String),
    Array(Vec<Reply>),
}

impl Reply {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Int(number) => number.to_string().into_bytes(),
            other => panic!("a string was expected: {other:?}"),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    pub(crate) fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            other => panic!("a number was expected: {other:?}"),
        }
    }

    pub(crate) fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            other => panic!("an array was expected: {other:?}"),
        }
    }

    /// The value of `name` in a flat list of names and values.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.items().chunks(2).find(|pair| pair[0].text() == name).map(|pair| &pair[1])
    }
}

pub(crate) struct Conn {
    from: BufReader<TcpStream>,
}

impl Conn {
    pub(crate) fn call(&mut self, args: &[impl AsRef<[u8]>]) -> Reply {
        let mut out = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            out.extend_from_slice(format!("${}\r\n", arg.as_ref().len()).as_bytes());
            out.extend_from_slice(arg.as_ref());
            out.extend_from_slice(b"\r\n");
        }
        self.from.get_mut().write_all(&out).expect("a server that reads");
        self.reply()
    }

    /// Like `call`, for what must work.
    #[track_caller]
    pub(crate) fn must(&mut self, args: &[impl AsRef<[u8]>]) -> Reply {
        match self.call(args) {
            Reply::Error(e) => {
                let words: Vec<_> = args.iter().take(6).map(|a| a.as_ref().escape_ascii().to_string()).collect();
                panic!("{}: {e}", words.join(" "))
            }
            reply => reply,
        }
    }

    /// Whether the server has this command.
    pub(crate) fn knows(&mut self, command: &str) -> bool {
        self.must(&["COMMAND", "INFO", command]).items().first().is_some_and(|r| matches!(r, Reply::Array(_)))
    }

    fn reply(&mut self) -> Reply {
        let mut line = Vec::new();
        self.from.read_until(b'\n', &mut line).expect("a reply");
        let text = String::from_utf8_lossy(&line[1..]).trim_end().to_owned();
        match line[0] {
            b'+' => Reply::Bytes(text.into_bytes()),
            b'-' => Reply::Error(text),
            b':' => Reply::Int(text.parse().expect("a number")),
            b'$' if text == "-1" => Reply::Nil,
            b'*' if text == "-1" => Reply::Nil,
            b'$' => {
                let mut bytes = vec![0; text.parse::<usize>().expect("a length") + 2];
                self.from.read_exact(&mut bytes).expect("a string");
                bytes.truncate(bytes.len() - 2);
                Reply::Bytes(bytes)
            }
            b'*' => Reply::Array((0..text.parse::<usize>().expect("a length")).map(|_| self.reply()).collect()),
            other => panic!("no reply begins with {other}"),
        }
    }
}
