//! One client: its bytes go to the server and the server's come back, unchanged.
//!
//! ```text
//! client ─► read ─► scan ─► stamps to the tee ─► write ─► server
//! client ◄─ write ◄─ scan ◄──────────────────── read ◄─ server
//! ```
//!
//! The two directions run side by side and share [`SessionState`]; a slow reader slows only itself.
//! What can't be scanned is passed on all the same: the server judges it.

mod replies;
mod requests;
mod state;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Buf as _, BytesMut};
use redtape_journal::Micros;
use redtape_wire::command::CommandTable;
use redtape_wire::resp::{Args, Parsed, ReplyScanner, parse_number, parse_request};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use self::replies::Intent;
use self::state::SessionState;
use crate::metrics::Metrics;
use crate::tee::{Tee, next_session_id};
use crate::upstream::Upstream;

/// A request that is not whole after this many bytes is passed on while it comes.
const STREAM_FROM: usize = 64 * 1024;
/// A longer bulk is refused by most servers: it is passed on at once, so that they can.
const BULK_MAX: usize = 512 * 1024 * 1024;
/// Requests of one session that may wait for their replies; then it is not read from.
const IN_FLIGHT_MAX: usize = 1 << 20;
/// How often a session with too many looks again.
const IN_FLIGHT_POLL: Duration = Duration::from_millis(1);
/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Largest buffer for one read of a busy connection.
const READ_BYTES_MAX: usize = 256 * 1024;
/// Errors given for requests in flight when the server goes away; the rest see the connection close.
const LOST_ERRORS_MAX: usize = 10_000;
/// A living server answers a PING within this time, or is busy.
const ALIVE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a draining session looks whether it is idle.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where requests go.
    pub upstream: Upstream,
    /// Where stamps go.
    pub tee: Arc<Tee>,
    /// The server's commands.
    pub table: Arc<ArcSwap<CommandTable>>,
    /// Counted here.
    pub metrics: Metrics,
}

/// Serves one client until either side closes, or until `drain` turns true and nothing is under way.
pub(crate) async fn serve<C>(client: C, addr: String, shared: Arc<Shared>, mut drain: watch::Receiver<bool>)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    shared.metrics.sessions.inc();
    shared.metrics.sessions_total.inc();
    let state = RefCell::new(SessionState::new(next_session_id(), addr));
    let id = state.borrow().id();
    let result = tokio::select! {
        r = run(client, &state, &shared) => r,
        () = drained(&state, &mut drain) => Ok(()),
    };
    state.borrow_mut().close(&shared.tee, Micros::now());
    if let Err(e) = result {
        tracing::debug!(session = id, error = %e, "session ended");
    }
    shared.metrics.sessions.dec();
}

async fn drained(state: &RefCell<SessionState>, drain: &mut watch::Receiver<bool>) {
    // The sender lives as long as the process serves.
    let _ = drain.wait_for(|on| *on).await;
    while !state.borrow().idle() {
        tokio::time::sleep(DRAIN_POLL).await;
    }
}

async fn run<C>(client: C, state: &RefCell<SessionState>, shared: &Shared) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let mut buf = BytesMut::with_capacity(READ_BYTES);
    let upstream = match shared.upstream.connect().await {
        Ok(stream) => stream,
        Err(_) => match wait_for_upstream(&mut from_client, &mut to_client, &mut buf, shared).await? {
            Some(stream) => stream,
            None => return Ok(()),
        },
    };
    let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
    {
        let up = forward_requests(&mut from_client, &mut to_upstream, buf, state, shared);
        let down = forward_replies(&mut from_upstream, &mut to_client, state, shared);
        tokio::pin!(up, down);
        tokio::select! {
            // Who ended it first? What is answered still goes out.
            ended = &mut up => {
                let ended = ended?;
                down.await?;
                if ended == EndedBy::Client {
                    return Ok(());
                }
            }
            r = &mut down => r?,
        }
    }
    say_what_was_lost(&mut to_client, state, shared).await
}

/// Which side of a session ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndedBy {
    Client,
    Server,
}

/// Whether the upstream answers. That it accepts a connection is not enough: the kernel does that for
/// a process that is just ending.
async fn is_alive(shared: &Shared) -> bool {
    let Ok(mut probe) = shared.upstream.connect().await else { return false };
    if probe.write_all(b"PING\r\n").await.is_err() {
        return false;
    }
    // One that is busy counts as alive.
    let answer = tokio::time::timeout(ALIVE_TIMEOUT, probe.read_u8()).await;
    answer.is_err() || matches!(answer, Ok(Ok(_)))
}

/// The server is gone: requests in flight get an error that says that they may have run.
async fn say_what_was_lost<W: AsyncWrite + Unpin>(
    to_client: &mut W,
    state: &RefCell<SessionState>,
    shared: &Shared,
) -> io::Result<()> {
    let pending = {
        let state = state.borrow_mut();
        let told = state.replies.is_lost()
            || state.replies.farewell
            || state.mid_reply
            || state.replies.subscribed()
            || matches!(state.replies.front(), Some(Intent::Farewell));
        if told { 0 } else { state.replies.in_flight() }
    };
    // A server that lives has closed on purpose (QUIT behind a pipeline, CLIENT KILL, a protocol
    // error): then the client sees just that.
    if pending > 0 && !is_alive(shared).await {
        shared.metrics.error("upstream_lost");
        let line = "-ERR redtape: the connection to the upstream was lost; this command may or may not have run\r\n";
        to_client.write_all(line.repeat(pending.min(LOST_ERRORS_MAX)).as_bytes()).await?;
    }
    to_client.shutdown().await
}

/// Answers each request with the error until the server can be reached; `None` = the client left.
async fn wait_for_upstream<R, W>(
    from_client: &mut R,
    to_client: &mut W,
    buf: &mut BytesMut,
    shared: &Shared,
) -> io::Result<Option<Box<dyn crate::upstream::Stream + Send>>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut args = Args::new();
    loop {
        if from_client.read_buf(buf).await? == 0 {
            return Ok(None);
        }
        let sentence = match shared.upstream.connect().await {
            Ok(stream) => return Ok(Some(stream)),
            Err(sentence) => sentence,
        };
        let mut answers = String::new();
        loop {
            let (len, silent) = match parse_request(buf, &mut args) {
                Ok(Parsed::Whole { len }) => (len, args.is_empty()),
                Ok(Parsed::Inline { len, args }) => (len, args.is_some_and(|a| a.is_empty())),
                Ok(Parsed::Partial(_)) if buf.len() < STREAM_FROM => break,
                Ok(Parsed::Partial(_)) | Err(_) => {
                    to_client.write_all(format!("-ERR {sentence}\r\n").as_bytes()).await?;
                    return Ok(None);
                }
            };
            buf.advance(len);
            if !silent {
                shared.metrics.commands.inc();
                answers.push_str("-ERR ");
                answers.push_str(&sentence);
                answers.push_str("\r\n");
            }
        }
        to_client.write_all(answers.as_bytes()).await?;
    }
}

/// How far into the buffer may be forwarded, and what of a huge request is still to come.
#[derive(Debug, Default)]
struct RequestScan {
    args_left: usize,
    bytes_left: usize,
    /// Not RESP: the server will say so; nothing is looked at any more.
    opaque: bool,
}

impl RequestScan {
    /// Scans `buf`; gives how many bytes of it may be forwarded now.
    fn scan(&mut self, buf: &[u8], args: &mut Args, mut found: impl FnMut(&[&[u8]], usize)) -> usize {
        let mut at = 0;
        loop {
            if self.opaque {
                return buf.len();
            }
            if self.bytes_left > 0 {
                let take = self.bytes_left.min(buf.len() - at);
                self.bytes_left -= take;
                at += take;
                if self.bytes_left > 0 {
                    return at;
                }
            }
            if self.args_left > 0 {
                match (buf.get(at), parse_number(buf, at + 1)) {
                    (None, _) | (Some(b'$'), Ok(None)) => return at,
                    (Some(b'$'), Ok(Some((len, body)))) if len >= 0 => {
                        self.args_left -= 1;
                        self.bytes_left = len as usize + 2;
                        at = body;
                    }
                    _ => self.opaque = true,
                }
                continue;
            }
            let rest = &buf[at..];
            match parse_request(rest, args) {
                Ok(Parsed::Whole { len }) => {
                    let slices: SmallVec<[&[u8]; 8]> = args.iter().map(|(a, b)| &rest[*a..*b]).collect();
                    found(&slices, slices.len());
                    at += len;
                }
                Ok(Parsed::Inline { len, args }) => {
                    if let Some(args) = args {
                        let slices: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                        found(&slices, slices.len());
                    }
                    at += len;
                }
                Ok(Parsed::Partial(Some(r)))
                    if (rest.len() >= STREAM_FROM || r.bytes_left > BULK_MAX) && !args.is_empty() =>
                {
                    let slices: SmallVec<[&[u8]; 8]> = args.iter().map(|(a, b)| &rest[*a..*b]).collect();
                    found(&slices, slices.len() + r.args_left + usize::from(r.bytes_left > 0));
                    (self.args_left, self.bytes_left) = (r.args_left, r.bytes_left);
                    return at + r.consumed;
                }
                Ok(Parsed::Partial(_)) => return at,
                Err(_) => self.opaque = true,
            }
        }
    }
}

async fn forward_requests<R, W>(
    from_client: &mut R,
    to_upstream: &mut W,
    mut buf: BytesMut,
    state: &RefCell<SessionState>,
    shared: &Shared,
) -> io::Result<EndedBy>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut scan = RequestScan::default();
    let mut args = Args::new();
    let mut read_bytes = READ_BYTES;
    // What came while the server was away is forwarded first.
    let mut first = !buf.is_empty();
    loop {
        while state.borrow().replies.in_flight() > IN_FLIGHT_MAX {
            tokio::time::sleep(IN_FLIGHT_POLL).await;
        }
        if !first {
            buf.reserve(read_bytes);
            let n = from_client.read_buf(&mut buf).await?;
            if n == 0 {
                // A server that has closed already needs no end.
                let _ = to_upstream.shutdown().await;
                return Ok(EndedBy::Client);
            }
            shared.metrics.client_received_bytes.inc_by(n as u64);
            read_bytes = if n >= read_bytes { (read_bytes * 2).min(READ_BYTES_MAX) } else { READ_BYTES.max(n * 2) };
        }
        first = false;
        let ready = {
            let mut state = state.borrow_mut();
            let table = shared.table.load();
            let mut commands = 0;
            let was_opaque = scan.opaque;
            let ready = scan.scan(&buf, &mut args, |args, argc| {
                commands += u64::from(!args.is_empty());
                state.request(&table, args, argc);
            });
            if scan.opaque && !was_opaque {
                shared.metrics.error("client_protocol");
                state.close(&shared.tee, Micros::now());
            }
            shared.metrics.commands.inc_by(commands);
            state.leave_stamps(&shared.tee, Micros::now());
            ready
        };
        if ready > 0 {
            if to_upstream.write_all(&buf[..ready]).await.is_err() {
                // The server has closed: what it said before still goes to the client.
                return Ok(EndedBy::Server);
            }
            buf.advance(ready);
        }
    }
}

async fn forward_replies<R, W>(
    from_upstream: &mut R,
    to_client: &mut W,
    state: &RefCell<SessionState>,
    shared: &Shared,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut scanner = ReplyScanner::new();
    let mut buf = BytesMut::with_capacity(READ_BYTES);
    let mut read_bytes = READ_BYTES;
    loop {
        buf.clear();
        buf.reserve(read_bytes);
        // A server that is killed resets the connection: it ended, as with an orderly close.
        let n = from_upstream.read_buf(&mut buf).await.unwrap_or(0);
        if n == 0 {
            return Ok(());
        }
        read_bytes = if n >= read_bytes { (read_bytes * 2).min(READ_BYTES_MAX) } else { READ_BYTES.max(n * 2) };
        {
            let mut state = state.borrow_mut();
            state.unsent = true;
            let now = Micros::now();
            let mut used = 0;
            while used < n && !state.replies.is_lost() {
                match scanner.scan(&buf[used..]) {
                    Ok((len, frame)) => {
                        used += len;
                        if let Some(frame) = frame {
                            state.reply(&frame, &shared.tee, now);
                        }
                    }
                    Err(_) => state.close(&shared.tee, now),
                }
            }
            state.mid_reply = !scanner.at_boundary();
        }
        to_client.write_all(&buf).await?;
        state.borrow_mut().unsent = false;
        shared.metrics.client_sent_bytes.inc_by(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use redtape_wire::resp::encode_command;

    use super::*;

    #[test]
    fn every_split_forwards_everything_once_and_finds_every_command() {
        let mut wire = Vec::new();
        encode_command(&mut wire, &[b"SET".as_slice(), b"k", &vec![b'x'; 3 * STREAM_FROM]]);
        encode_command(&mut wire, &[b"MSET".as_slice(), b"a", &vec![b'y'; STREAM_FROM], b"b", &[b'z'; 100]]);
        wire.extend_from_slice(b"PING\r\n*0\r\n");
        encode_command(&mut wire, &["GET", "k"]);
        for step in [1, 7, 100, 1000, 65_535, 65_536, 65_537, 200_000, wire.len()] {
            let (mut scan, mut args, mut buf) = (RequestScan::default(), Args::new(), BytesMut::new());
            let (mut sent, mut names) = (Vec::new(), Vec::new());
            for chunk in wire.chunks(step) {
                buf.extend_from_slice(chunk);
                let ready = scan.scan(&buf, &mut args, |a, argc| {
                    names.push((a.first().map(|n| String::from_utf8_lossy(n).into_owned()), argc));
                });
                sent.extend_from_slice(&buf[..ready]);
                buf.advance(ready);
                assert!(buf.len() <= STREAM_FROM + step, "step {step}: {} bytes kept", buf.len());
            }
            assert!(sent == wire, "step {step}");
            let want = [(Some("SET"), 3), (Some("MSET"), 5), (Some("PING"), 1), (None, 0), (Some("GET"), 2)];
            let want = want.map(|(n, c)| (n.map(str::to_owned), c));
            assert_eq!(names, want, "step {step}");
        }
    }

    #[test]
    fn what_is_not_resp_goes_to_the_server_as_it_is() {
        let (mut scan, mut args) = (RequestScan::default(), Args::new());
        let bytes = b"*1\r\n$4\r\nPING\r\n*1\r\n!oops\r\nanything";
        assert_eq!(scan.scan(bytes, &mut args, |_, _| {}), bytes.len());
        assert!(scan.opaque);
    }
}
