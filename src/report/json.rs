//! The report as one JSON object: a stable contract, described in `docs/json.md`.

use redtape_journal::Micros;
use redtape_restore::json::{Object, point, put, time};
use redtape_restore::report::{Asked, BigKey, Contents, LIVES, PrefixRow, Report, Tally};
use serde_json::{Value as Json, json};

/// The object. `asked.top`: rows of prefixes.
pub(crate) fn object(report: &Report, asked: Asked) -> Json {
    let contents = &report.contents;
    let base = &report.point.base.manifest;
    let mut of_base = time(base.ts);
    of_base.insert("lsn".to_owned(), json!(base.lsn.0));
    json!({
        "point": point(&report.point),
        "source": if report.is_base { "base" } else { "rebuilt" },
        "base": of_base,
        "server": report.server,
        "used_memory_bytes": report.used_memory,
        "rdb_bytes": report.rdb_bytes,
        "all": tally(&contents.all),
        "databases": contents.databases.iter().map(|(db, sum)| with("db", json!(db), sum)).collect::<Vec<_>>(),
        "other_databases": some(&contents.other_databases),
        "types": contents.types().iter().map(|(name, sum)| with("type", json!(name), sum)).collect::<Vec<_>>(),
        "encodings": encodings(contents),
        "ttl": ttl(contents),
        "biggest": contents.biggest.iter().map(|key| big_key(key, report.point.clock)).collect::<Vec<_>>(),
        "prefixes": prefixes(contents, asked),
        "libraries": contents.libraries.map(|found| json!({
            "count": found.count, "serialized_bytes": found.serialized_bytes,
        })),
        "warnings": report.point.warnings,
    })
}

fn tally(sum: &Tally) -> Object {
    Object::from_iter([
        ("keys".to_owned(), json!(sum.keys)),
        ("with_ttl".to_owned(), json!(sum.with_ttl)),
        ("memory_bytes".to_owned(), json!(sum.memory_bytes)),
        ("serialized_bytes".to_owned(), json!(sum.serialized_bytes)),
        ("elements".to_owned(), json!(sum.elements)),
    ])
}

fn with(name: &str, value: Json, sum: &Tally) -> Json {
    let mut object = tally(sum);
    object.insert(name.to_owned(), value);
    Json::Object(object)
}

/// Null if there is nothing in it.
fn some(sum: &Tally) -> Json {
    if sum.keys > 0 { Json::Object(tally(sum)) } else { Json::Null }
}

fn encodings(contents: &Contents) -> Vec<Json> {
    let row = |(row, sum): (&redtape_restore::report::Encoding, &Tally)| {
        let mut object = tally(sum);
        object.insert("type".to_owned(), json!(row.type_name));
        object.insert("encoding".to_owned(), json!(row.encoding));
        Json::Object(object)
    };
    contents.encodings.iter().map(row).collect()
}

fn ttl(contents: &Contents) -> Json {
    let class = |(life, sum): (&redtape_restore::report::Life, &Tally)| {
        let mut object = tally(sum);
        object.insert("class".to_owned(), json!(life.name));
        object.insert("within_ms".to_owned(), json!(life.within_ms.map(|ms| ms.max(0))));
        Json::Object(object)
    };
    let classes: Vec<Json> = LIVES.iter().zip(&contents.lives.classes).map(class).collect();
    json!({"classes": classes, "never": tally(&contents.lives.forever)})
}

fn big_key(key: &BigKey, now: Micros) -> Json {
    let mut object = Object::new();
    put(&mut object, "key", &key.key);
    object.insert("key_bytes".to_owned(), json!(key.key_bytes));
    object.insert("key_whole".to_owned(), json!(key.is_whole()));
    object.insert("db".to_owned(), json!(key.db));
    object.insert("type".to_owned(), json!(key.type_name));
    object.insert("encoding".to_owned(), json!(key.encoding));
    object.insert("memory_bytes".to_owned(), json!(key.memory_bytes));
    object.insert("serialized_bytes".to_owned(), json!(key.serialized_bytes));
    object.insert("elements".to_owned(), json!(key.elements));
    object.insert("largest".to_owned(), json!(key.largest));
    let expires = key.expires_at_ms.map(|at| {
        let at = Micros(at.saturating_mul(1000));
        let mut object = time(at);
        object.insert("left_us".to_owned(), json!(at.0.saturating_sub(now.0)));
        object
    });
    object.insert("expires".to_owned(), json!(expires));
    Json::Object(object)
}

fn prefixes(contents: &Contents, asked: Asked) -> Json {
    let found = &contents.prefixes;
    let row = |row: &PrefixRow| {
        let mut object = tally(&row.tally);
        put(&mut object, "prefix", &row.prefix);
        object.insert("lacks_at_most_bytes".to_owned(), json!(row.lacks_at_most));
        Json::Object(object)
    };
    json!({
        "depth": asked.depth,
        "separator": char::from(asked.separator).to_string(),
        "rows": found.rows.iter().take(asked.top).map(row).collect::<Vec<_>>(),
        "rows_left_out": found.rows.len().saturating_sub(asked.top),
        "none": some(&found.none),
        "others": some(&found.others),
        "exact": !found.folded,
    })
}
