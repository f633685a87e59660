//! Which commands may run on a shared connection. Pure.

use redtape_wire::command::CommandSpec;
use redtape_wire::word;

/// True if a command may run on a shared connection: it is complete in itself and leaves no state on the connection.
/// Administrative commands run on pinned connections, so that the server sees the right client.
pub(super) fn is_shareable(spec: &CommandSpec, args: &[&[u8]]) -> bool {
    match spec.name.as_bytes() {
        b"ping" | b"echo" | b"time" | b"publish" | b"spublish" | b"object" | b"xinfo" => true,
        b"xread" | b"xreadgroup" => !args.iter().any(|a| word::is(a, "block")),
        // While a script runs for long, the server reads other connections, but not this one. The other commands block,
        // return keys, or concern the connection itself.
        b"eval" | b"evalsha" | b"eval_ro" | b"evalsha_ro" | b"fcall" | b"fcall_ro" | b"exec" | b"migrate"
        | b"restore-asking" | b"function" | b"script" | b"pfdebug" | b"pfselftest" | b"asking" => false,
        // A module may block its client, and its commands' flags do not show it. Most have a dot in their names; those
        // shipped with the server (`VSIM`) do not.
        name if spec.module || name.contains(&b'.') => false,
        _ => (spec.write || spec.readonly) && !spec.blocking,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_modules_are_not_shared() {
        for (name, flags, shared) in [
            ("vsim", &["readonly", "module"][..], false),
            ("vadd", &["write", "module"], false),
            ("json.get", &["readonly"], false),
            ("get", &["readonly"], true),
            ("set", &["write"], true),
            ("blpop", &["write", "blocking"], false),
        ] {
            let spec = CommandSpec::new(name, -2, flags, 1, 1, 1);
            assert_eq!(is_shareable(&spec, &[name.as_bytes(), b"k"]), shared, "{name}");
        }
    }
}
