//! The plan where the target is a file. Pure.

use redtape_journal::query::Filter;
use redtape_wire::rdb::{Family, RdbVersion};
use serde::Serialize;

use super::{Dataset, Method, Plan};
use crate::point::RestorePoint;
use crate::slice::SliceReport;
use crate::source::binary::Binary;
use crate::source::journal_range::RangeFacts;
use crate::target::{FileFormat, Output};

/// The file, as the plan shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FilePlan {
    /// Its form.
    pub format: FileFormat,
    /// Its name; `-` = standard output.
    pub path: String,
    /// Of an RDB, also that in an append-only file: its version.
    pub rdb: Option<String>,
    /// Of an RDB that is not saved by the scratch server: the server that saves it.
    pub saved_by: Option<String>,
    /// Of an append-only file: whether the history since the base is in it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub history: bool,
}

/// What the plan is made from.
pub(crate) struct FileFacts<'a> {
    pub(crate) point: &'a RestorePoint,
    pub(crate) rdb: RdbVersion,
    pub(crate) range: &'a RangeFacts,
    pub(crate) slice: Option<&'a SliceReport>,
    pub(crate) filter: &'a Filter,
    pub(crate) base_bytes: u64,
    pub(crate) format: FileFormat,
    pub(crate) to: &'a Output,
    pub(crate) history: bool,
    /// The scratch server.
    pub(crate) scratch: &'a Binary,
    /// The server that saves, if it is another one.
    pub(crate) saver: Option<&'a Binary>,
}

/// Makes the plan.
pub(crate) fn make_for_file(facts: &FileFacts<'_>) -> Plan {
    let FileFacts { point, rdb, range, slice, filter, base_bytes, format, to, history, scratch, saver } = *facts;
    let dataset = Dataset { point, rdb, range, slice, filter, base_bytes };
    let reason = match (format, saver) {
        _ if history => {
            "the base and each record behind it are written; a scratch server replays them first".to_owned()
        }
        (FileFormat::JsonLines, _) => "the values of a scratch server are written down".to_owned(),
        (FileFormat::Rdb | FileFormat::Aof, None) => "a scratch server holds the data and saves it".to_owned(),
        (FileFormat::Rdb | FileFormat::Aof, Some(saver)) => {
            format!(
                "{} does not load {rdb}: the values go from a scratch server into one of it, which saves them",
                saver.version
            )
        }
    };
    let plan = dataset.plan((Method::Scratch, reason), facts.filter.is_everything(), Some(scratch));
    let saved_as = if history { rdb } else { saver.unwrap_or(scratch).version.writes() };
    let version = (format != FileFormat::JsonLines).then_some(saved_as);
    let mut warnings = plan.warnings;
    warnings.extend(version.and_then(|version| newer_than_base(version, rdb)));
    let path = to.to_string();
    let saved_by = saver.map(ToString::to_string);
    let target_version = version.map_or_else(
        || "JSON lines".to_owned(),
        |version| match format {
            FileFormat::Aof if history => format!("append-only file, base {version}, with the history since"),
            FileFormat::Aof => format!("append-only file, base {version}"),
            _ => format!("RDB, {version}"),
        },
    );
    let file =
        FilePlan { format, path: path.clone(), rdb: version.map(|version| version.to_string()), saved_by, history };
    Plan { target: path, target_version, file: Some(file), warnings, ..plan }
}

fn newer_than_base(version: RdbVersion, base: RdbVersion) -> Option<String> {
    let newer = version.family == Family::Redis && base.family == Family::Redis && version.version > base.version;
    let other_family = version.family != base.family;
    (newer || other_family).then(|| {
        format!(
            "the file is {version}, the base {base}: a server that loads the base may not load the file. With --server-bin a server of another version saves it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_servers_of_the_base_may_not_load_is_named() {
        let version = |text: &str| redtape_wire::rdb::parse_header(text.as_bytes()).expect(text);
        for (file, base, warned) in [
            ("REDIS0010", "REDIS0010", false),
            ("REDIS0009", "REDIS0010", false),
            ("REDIS0012", "REDIS0010", true),
            ("VALKEY080", "REDIS0010", true),
            ("REDIS0010", "VALKEY080", true),
        ] {
            let warning = newer_than_base(version(file), version(base));
            assert_eq!(warning.is_some(), warned, "{file} of {base}");
            assert!(warning.is_none_or(|text| text.contains("--server-bin")));
        }
    }
}
