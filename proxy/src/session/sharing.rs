//! Which commands may run on a connection that others use as well: pure.

use redtape_wire::command::CommandSpec;
use redtape_wire::word;

/// Whether a command may run on a connection that others use as well: all that it needs comes with it, and it
/// leaves nothing behind there. What only administrators use runs on their own connections, so that the server
/// sees who it was.
pub(super) fn is_shareable(spec: &CommandSpec, args: &[&[u8]]) -> bool {
    match spec.name.as_bytes() {
        b"ping" | b"echo" | b"time" | b"publish" | b"spublish" | b"object" | b"xinfo" => true,
        b"xread" | b"xreadgroup" => !args.iter().any(|a| word::is(a, "block")),
        // While a script runs for long the server hears other connections, and nothing more of this one. The others wait
        // for somebody, hand keys over, or are about the connection itself.
        b"eval" | b"evalsha" | b"eval_ro" | b"evalsha_ro" | b"fcall" | b"fcall_ro" | b"exec" | b"migrate"
        | b"restore-asking" | b"function" | b"script" | b"pfdebug" | b"pfselftest" | b"asking" => false,
        // A module may block its client for as long as it likes, and the flags of its commands do not say so.
        name if name.contains(&b'.') => false,
        _ => (spec.write || spec.readonly) && !spec.blocking,
    }
}
