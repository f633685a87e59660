//! One restore at a time for a target, agreed on at the target itself.
//!
//! A restore names its connection [`NAME`] and then looks at the server's list of clients. The server runs both one after the
//! other, so of two restores at least one sees the other:
//!
//! | the list shows | then |
//! | --- | --- |
//! | no other connection of that name | the target is ours, until our connection ends |
//! | one with a lower client id | it may be about to end: we look again for `END_LIMIT`, then withdraw |
//! | only ones with higher ids | they may be about to withdraw: we look again for `YIELD_LIMIT`, then withdraw |
//!
//! A restore continues only after a check that showed no other restore. A restore that names itself after that look sees our name, so two can
//! never both go on. Nothing is left behind: the name ends with the connection, however the process ends.

use std::time::{Duration, Instant};

use crate::client::{Reply, Server, Value, text};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;

/// The name of the connection that restores; deliveries show under it in `CLIENT LIST` and `MONITOR`.
pub const NAME: &str = "redtape-restore";
/// How long a restore with a lower id waits for those that came later to withdraw.
const YIELD_LIMIT: Duration = Duration::from_secs(2);
/// How long one that has ended may still be in the list: the server sees its end a moment later.
const END_LIMIT: Duration = Duration::from_millis(500);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Other restores at a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtherRestores {
    /// None.
    Absent,
    /// At least this one, in words.
    Seen(String),
    /// The server does not let us look, for this reason.
    Unknown(String),
}

/// A connection in `CLIENT LIST`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Client {
    id: u64,
    addr: String,
    age: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Alone,
    Wait,
    Withdraw,
}

/// What to do in the face of these other restores. Pure.
fn decide(own: u64, others: &[Client]) -> Verdict {
    match others.iter().map(|c| c.id).min() {
        None => Verdict::Alone,
        Some(lowest) if lowest < own => Verdict::Withdraw,
        Some(_) => Verdict::Wait,
    }
}

/// Looks for other restores; takes no part itself.
pub fn others(server: &mut Server) -> Result<OtherRestores, RestoreError> {
    Ok(match look(server, None)? {
        Clients::Listed(found) => {
            found.first().map_or(OtherRestores::Absent, |client| OtherRestores::Seen(client.to_string()))
        }
        Clients::Hidden(why) => OtherRestores::Unknown(why),
    })
}

/// Takes the target for this restore, or fails with [`RestoreError::Busy`]. [`OtherRestores::Unknown`] = it could not be asked.
pub(crate) fn take(server: &mut Server, interrupt: &Interrupt) -> Result<OtherRestores, RestoreError> {
    let own = match server.try_call(&["CLIENT", "ID"])? {
        Reply::Value(Value::Int(id)) if id > 0 => id as u64,
        Reply::Value(_) => return Ok(OtherRestores::Unknown("CLIENT ID gave no number".to_owned())),
        Reply::Error(e) => return Ok(OtherRestores::Unknown(e.text)),
    };
    if let Some(why) = server.set_name(NAME)? {
        return Ok(OtherRestores::Unknown(why));
    }
    let start = Instant::now();
    loop {
        interrupt.check()?;
        let found = match look(server, Some(own))? {
            Clients::Listed(found) => found,
            Clients::Hidden(why) => return Ok(OtherRestores::Unknown(why)),
        };
        match decide(own, &found) {
            Verdict::Alone => return Ok(OtherRestores::Absent),
            Verdict::Wait if start.elapsed() < YIELD_LIMIT => std::thread::sleep(LOOK_EVERY),
            Verdict::Withdraw if start.elapsed() < END_LIMIT => std::thread::sleep(LOOK_EVERY),
            Verdict::Wait | Verdict::Withdraw => {
                server.clear_name()?;
                let who = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(RestoreError::Busy { address: server.address.clone(), who });
            }
        }
    }
}

/// The restores in a server's list of clients.
enum Clients {
    Listed(Vec<Client>),
    /// The server does not let us look, in its words.
    Hidden(String),
}

/// Looks at the list, but for the connection `own`.
fn look(server: &mut Server, own: Option<u64>) -> Result<Clients, RestoreError> {
    Ok(match server.try_call(&["CLIENT", "LIST", "TYPE", "normal"])? {
        Reply::Value(list) => {
            Clients::Listed(restores(&text(&list)).into_iter().filter(|client| Some(client.id) != own).collect())
        }
        Reply::Error(e) => Clients::Hidden(e.text),
    })
}

/// The connections named [`NAME`] in a reply to `CLIENT LIST`. Pure.
fn restores(list: &str) -> Vec<Client> {
    let of_line = |line: &str| {
        let field = |name: &str| line.split(' ').find_map(|f| f.strip_prefix(name)?.strip_prefix('='));
        (field("name")? == NAME).then_some(())?;
        let words = |name| field(name).unwrap_or("?").to_owned();
        Some(Client { id: field("id")?.parse().ok()?, addr: words("addr"), age: words("age") })
    };
    list.lines().filter_map(of_line).collect()
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "client {} at {}, connected for {} s", self.id, self.addr, self.age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_clients_is_read() {
        let list = "id=6 addr=127.0.0.1:45000 laddr=127.0.0.1:7911 fd=8 name= age=0 idle=0 flags=N cmd=client|list user=default\n\
                    id=9 addr=10.0.0.5:4242 fd=9 name=redtape-restore age=12 idle=0 flags=N db=0\n\
                    id=10 addr=/run/s:0 fd=9 name=redtape-restore-2 age=12 flags=U db=0\n\
                    id=11 name=redtape-restore\nid=x name=redtape-restore\n\n";
        let found = restores(list);
        assert_eq!(found.iter().map(|c| c.id).collect::<Vec<_>>(), [9, 11]);
        assert_eq!(found[0].to_string(), "client 9 at 10.0.0.5:4242, connected for 12 s");
        assert_eq!(found[1].addr, "?");
    }

    #[test]
    fn the_lowest_id_waits_and_the_others_withdraw() {
        let others = |ids: &[u64]| {
            ids.iter().map(|&id| Client { id, addr: String::new(), age: String::new() }).collect::<Vec<_>>()
        };
        for (own, seen, verdict) in [
            (5, &[][..], Verdict::Alone),
            (5, &[6], Verdict::Wait),
            (5, &[6, 7], Verdict::Wait),
            (5, &[4], Verdict::Withdraw),
            (5, &[6, 4], Verdict::Withdraw),
        ] {
            assert_eq!(decide(own, &others(seen)), verdict, "{own} {seen:?}");
        }
    }
}
