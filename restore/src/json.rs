//! JSON as redtape prints it (`docs/json.md`): names and forms shared by all outputs.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use redtape_journal::Micros;
use redtape_wire::rdb::Score;
use serde_json::{Map, Value as Json, json};

use crate::point::RestorePoint;

/// A JSON object.
pub type Object = Map<String, Json>;

/// Suffix of the name of bytes that are not text.
pub(crate) const BASE64_SUFFIX: &str = "_base64";

/// Text under its name; bytes that are not UTF-8 under `NAME_base64`.
pub fn put(object: &mut Object, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), json!(text)),
        Err(_) => object.insert(format!("{name}{BASE64_SUFFIX}"), json!(BASE64.encode(bytes))),
    };
}

/// A list of texts under its name; if one of them is not UTF-8, all in Base64 under `NAME_base64`.
pub(crate) fn put_all(object: &mut Object, name: &str, all: &[Vec<u8>]) {
    let texts: Result<Vec<&str>, _> = all.iter().map(|bytes| std::str::from_utf8(bytes)).collect();
    if let Ok(texts) = texts {
        object.insert(name.to_owned(), json!(texts));
    } else {
        let coded = all.iter().map(|bytes| Json::String(BASE64.encode(bytes)));
        object.insert(format!("{name}{BASE64_SUFFIX}"), coded.collect());
    }
}

/// Bytes that are never text.
pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Decodes Base64.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// A time: `time` and `time_us`.
pub fn time(at: Micros) -> Object {
    Object::from_iter([("time".to_owned(), json!(at.to_string())), ("time_us".to_owned(), json!(at.0))])
}

/// A restore point.
pub fn point(point: &RestorePoint) -> Json {
    let mut object = time(point.asked);
    object.insert("before".to_owned(), json!(point.before));
    object.insert("lsn".to_owned(), json!(point.lsn.0));
    object.insert("timeline".to_owned(), json!(point.timeline.0));
    Json::Object(object)
}

/// A field and its value.
pub fn pair(name: &[u8], value: &[u8]) -> Json {
    let mut object = Object::new();
    put(&mut object, "field", name);
    put(&mut object, "value", value);
    Json::Object(object)
}

/// A number; JSON has none for infinity.
pub fn score(score: Score) -> Json {
    match score.get() {
        f64::INFINITY => json!("inf"),
        f64::NEG_INFINITY => json!("-inf"),
        number => json!(number),
    }
}
