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
        // A module may block its client for as long as it likes, and the flags of its commands do not say so. Most have a dot
        // in their names; those that come with the server (`VSIM`) do not.
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
