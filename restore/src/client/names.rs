//! Command names of a server whose configuration renames some (`rename-command`), as managed services do.

use std::collections::BTreeMap;

use redtape_wire::resp::encode_command;

/// The renamed commands: usual name in upper case, and the server's name. A subcommand uses its container's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandNames(BTreeMap<Vec<u8>, Vec<u8>>);

impl CommandNames {
    /// Adds `OLD=NEW`.
    pub fn add(&mut self, pair: &str) -> Result<(), String> {
        let (old, new) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is not OLD=NEW"))?;
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
        if !is_name(old) || !is_name(new) {
            return Err(format!("{pair:?} is not OLD=NEW, two names of one command"));
        }
        match self.0.insert(old.to_ascii_uppercase().into_bytes(), new.as_bytes().to_vec()) {
            Some(other) if other != new.as_bytes() => Err(format!("{old} is given two new names")),
            _ => Ok(()),
        }
    }

    /// The server's name of a command. `usual`: in upper case, or a name that is never renamed.
    pub fn get<'a>(&'a self, usual: &'a [u8]) -> &'a [u8] {
        self.0.get(usual).map_or(usual, Vec::as_slice)
    }

    /// The usual names, in upper case, of all renamed commands.
    pub fn renamed(&self) -> impl Iterator<Item = &[u8]> {
        self.0.keys().map(Vec::as_slice)
    }

    /// Appends a command under the server's name.
    pub fn encode<A: AsRef<[u8]>>(&self, into: &mut Vec<u8>, args: &[A]) {
        let renamed = args.split_first().and_then(|(name, rest)| Some((self.0.get(name.as_ref())?, rest)));
        let Some((name, rest)) = renamed else { return encode_command(into, args) };
        let mut all: Vec<&[u8]> = vec![name];
        all.extend(rest.iter().map(AsRef::as_ref));
        encode_command(into, &all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_commands_go_under_their_new_names() {
        let mut names = CommandNames::default();
        names.add("restore=R1").expect("a pair");
        names.add("CONFIG=secret=config").expect("a pair");
        names.add("RESTORE=R1").expect("the same again");
        let encoded = |args: &[&str]| {
            let mut bytes = Vec::new();
            names.encode(&mut bytes, args);
            String::from_utf8(bytes).expect("text")
        };
        assert_eq!(encoded(&["RESTORE", "k"]), "*2\r\n$2\r\nR1\r\n$1\r\nk\r\n");
        assert_eq!(encoded(&["CONFIG", "GET"]), "*2\r\n$13\r\nsecret=config\r\n$3\r\nGET\r\n");
        assert_eq!(encoded(&["GET", "RESTORE"]), "*2\r\n$3\r\nGET\r\n$7\r\nRESTORE\r\n");
        assert_eq!(names.get(b"RESTORE"), b"R1");
        assert_eq!(names.renamed().count(), 2);
        for bad in ["RESTORE", "=x", "x=", "a b=c", "RESTORE=R2"] {
            assert!(names.clone().add(bad).is_err(), "{bad}");
        }
    }
}
