//! Classifies a server's error replies. Redis identifies them only by the first word of the text: no other place
//! examines it.
//!
//! Source: `shared.*err` and `addReplyError` in Redis 7.0 `server.c`, `acl.c`, `cluster.c`; the words are the same in Valkey.

/// The classes that callers distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The user may not run the command, or not on that key.
    Denied,
    /// There is no user, or the password is wrong.
    Login,
    /// A node of a cluster that does not hold the key, or is migrating it.
    OtherNode,
    /// `RESTORE` found the key in place.
    KeyExists,
    /// The key holds another type.
    WrongType,
    /// The server is loading its data.
    Loading,
    /// The server knows the command and refuses it in its present state.
    State,
    /// An error without a word of its own.
    Plain,
    /// Any other word.
    Other,
}

/// The class, by the first word of the reply. Pure.
pub(crate) fn meaning(code: &str) -> Refusal {
    match code {
        "NOPERM" => Refusal::Denied,
        "NOAUTH" | "WRONGPASS" => Refusal::Login,
        "MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT" => Refusal::OtherNode,
        "BUSYKEY" => Refusal::KeyExists,
        "WRONGTYPE" => Refusal::WrongType,
        "LOADING" => Refusal::Loading,
        "ERR" => Refusal::Plain,
        code if advice(code).is_some() => Refusal::State,
        _ => Refusal::Other,
    }
}

/// Advice for a server that refuses a command in its present state.
pub(crate) fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "OOM" => {
            "its memory is used up: raise maxmemory there (CONFIG SET maxmemory), or restore to a server with more memory"
        }
        "MISCONF" => {
            "it takes no writes because it could not save to its own disk: make room or repair what its log names, or CONFIG SET stop-writes-on-bgsave-error no"
        }
        "NOREPLICAS" => "it takes no writes with so few replicas: connect them, or CONFIG SET min-replicas-to-write 0",
        "READONLY" => {
            "it has become a replica: its role was changed by another client. Find the cause, and restore again"
        }
        "LOADING" => "it is loading its data: wait until it has, and look whether it is the target that you want",
        "BUSY" => "a script runs there: wait for its end, or SCRIPT KILL",
        "MASTERDOWN" => "it is a replica whose master is gone: restore to its master or to another server",
        "DENIED" => {
            "it is in protected mode, in which it takes clients of its own machine only: set a password or an ACL there (requirepass) and give it here, or restore from that machine"
        }
        "CLUSTERDOWN" => {
            "the cluster is down: some slots have no node (redis-cli --cluster check); restore again when all have one"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_decides_and_no_other() {
        for (text, want) in [
            ("NOPERM this user has no permissions", Refusal::Denied),
            ("WRONGPASS invalid username-password pair", Refusal::Login),
            ("BUSYKEY Target key name already exists.", Refusal::KeyExists),
            ("BUSY Redis is busy running a script", Refusal::State),
            ("LOADING Redis is loading the dataset in memory", Refusal::Loading),
            ("DENIED Redis is running in protected mode because", Refusal::State),
            ("ERR unknown command 'LOADING'", Refusal::Plain),
            ("ERRNO NOPERM", Refusal::Other),
        ] {
            assert_eq!(meaning(text.split(' ').next().unwrap_or_default()), want, "{text}");
        }
    }
}
