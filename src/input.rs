//! What a person gives beside the arguments: a confirmation, and passwords from the environment or a file.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use redtape_wire::url::{RedisUrl, Secret};

use crate::exit::{Failure, IOERR, SOFTWARE, USAGE, io_code};

/// How long a password file that is a pipe is waited for: the user may have to unlock a password store first.
pub(crate) const PASSWORD_LIMIT: Duration = Duration::from_mins(1);

/// Asks the user at the terminal; without a terminal, fails with advice.
pub(crate) fn agreed(question: &str, without_terminal: impl std::fmt::Display) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(USAGE, without_terminal).into());
    }
    write!(std::io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Reads a URL; its password may come from the environment variable `NAME` or the file named by `NAME_FILE`.
pub(crate) fn url(text: &str, what: &str, password_env: &str) -> anyhow::Result<RedisUrl> {
    let url: RedisUrl = text.parse().map_err(|e| Failure::new(USAGE, format!("{what}: {e}")))?;
    if url.password.is_some() {
        return Ok(url);
    }
    let file_env = format!("{password_env}_FILE");
    if let Ok(password) = std::env::var(password_env) {
        return Ok(url.with_password(Secret::new(password)));
    }
    if let Ok(path) = std::env::var(&file_env) {
        return Ok(url.with_password(password_file(Path::new(&path), &file_env, PASSWORD_LIMIT)?));
    }
    Ok(url)
}

/// Reads the password in a file, which may be a pipe: then it is waited for, at most so long.
pub(crate) fn password_file(path: &Path, what: &str, limit: Duration) -> Result<Secret, Failure> {
    let failed = |code, why: &dyn std::fmt::Display| {
        Failure::new(code, format!("cannot read the password file {} ({what}): {why}", path.display()))
    };
    let (send, receive) = std::sync::mpsc::channel();
    let file = path.to_owned();
    let reader = move || {
        // The receiver may be gone.
        let _ = send.send(std::fs::read_to_string(file));
    };
    std::thread::Builder::new().name("password".to_owned()).spawn(reader).map_err(|e| failed(SOFTWARE, &e))?;
    match receive.recv_timeout(limit) {
        Ok(Ok(text)) => Ok(Secret::new(text.trim_end_matches(['\r', '\n']))),
        Ok(Err(e)) => Err(failed(io_code(&e), &e)),
        Err(_) => {
            Err(failed(IOERR, &format!("nothing came within {} s; is it a pipe without a writer?", limit.as_secs())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_from_a_file_and_a_pipe_is_not_waited_for_without_limit() {
        let dir = tempfile::tempdir().expect("a folder");
        let read = |name: &str| password_file(&dir.path().join(name), "VARIABLE", Duration::from_millis(300));
        std::fs::write(dir.path().join("file"), "se same \r\n").expect("a file");
        assert_eq!(read("file").expect("the password").expose(), "se same ");
        let missing = read("missing").expect_err("none").to_string();
        assert!(missing.contains("missing (VARIABLE): "), "{missing}");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        let silent = read("pipe").expect_err("a pipe without a writer").to_string();
        assert!(silent.contains("nothing came within"), "{silent}");
    }
}
