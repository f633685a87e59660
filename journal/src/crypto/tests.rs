use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

/// For each key that encrypted something in this thread or one that it started: what that was.
static SEEN: std::sync::Mutex<Option<HashMap<[u8; KEY_LEN], blake3::Hash>>> = std::sync::Mutex::new(None);

/// Called for each piece: the nonce is always zero, so a key must never meet another piece.
pub(super) fn seen(key: [u8; KEY_LEN], place: &[u8], piece: &[u8]) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(place.len() as u64).to_le_bytes()).update(place).update(piece);
    let what = hasher.finalize();
    let mut all = SEEN.lock().unwrap();
    let before = all.get_or_insert_default().insert(key, what);
    assert!(before.is_none_or(|before| before == what), "a key and its nonce were used for two pieces");
}

const TEXT: &str = "# keys\nold:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n\n  new:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

#[expect(clippy::unnecessary_wraps, reason = "a `Random` may fail")]
fn count(bytes: &mut [u8]) -> std::io::Result<()> {
    bytes.iter_mut().enumerate().for_each(|(n, byte)| *byte = n as u8);
    Ok(())
}

#[test]
fn keys_are_read_and_never_shown() {
    let keyring = Keyring::parse(TEXT).unwrap();
    assert_eq!(keyring.current(), Some("new"));
    assert_eq!(format!("{keyring:?}"), r#"{"old": "***", "new": "***"}"#);
    let one = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(Keyring::parse(&format!("*a:{one},b:{one}")).unwrap().current(), Some("a"));
    assert_eq!(Keyring::default().current(), None);
    for wrong in ["", "# none", one, "a:AAAA", &format!(":{one}"), &format!("ä:{one}"), &format!("a:{one},a:{one}")] {
        let error = Keyring::parse(wrong).unwrap_err().to_string();
        assert!(error.contains("`id:key`") && !error.contains("AAAA"), "{error}");
    }
}

#[test]
fn a_key_file_that_all_can_read_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), TEXT).unwrap();
    for (mode, right) in [(0o600, true), (0o640, true), (0o644, false), (0o602, false)] {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let read = Keyring::from_file(file.path());
        assert_eq!(read.is_ok(), right, "{mode:o}");
        if let Err(error) = read {
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
}

#[test]
fn a_data_key_is_opened_by_its_own_key_and_place_only() {
    let keyring = Keyring::parse(TEXT).unwrap();
    let (sealer, mut wrapped) = keyring.new_sealer(count, b"place").unwrap().unwrap();
    assert_eq!(wrapped.key_id, "new");
    assert_eq!(keyring.unwrap(&wrapped, b"place"), Ok(sealer));
    let wrong = Err(KeyFault::Wrong("new".to_owned()));
    assert_eq!(keyring.unwrap(&wrapped, b"other"), wrong);
    for bit in 0..WRAPPED_LEN * 8 {
        wrapped.bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(keyring.unwrap(&wrapped, b"place"), wrong);
        wrapped.bytes[bit / 8] ^= 1 << (bit % 8);
    }
    wrapped.key_id = "old".to_owned();
    assert_eq!(keyring.unwrap(&wrapped, b"place"), Err(KeyFault::Wrong("old".to_owned())));
    let missing = Keyring::default().unwrap(&wrapped, b"place").unwrap_err();
    assert!(missing.to_string().contains("`old`"), "{missing}");
    assert!(Keyring::default().new_sealer(count, b"place").unwrap().is_none());
}

proptest! {
    #[test]
    fn a_piece_comes_back_and_only_from_its_place(piece: Vec<u8>, place: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
        let sealer = Sealer::new(&[7; KEY_LEN]);
        let sealed = sealer.seal(&place, &piece);
        prop_assert_eq!(sealed.len(), piece.len() + OVERHEAD);
        prop_assert_eq!(sealer.open(&place, &sealed), Some(piece.clone()));
        prop_assert_eq!(Sealer::new(&[8; KEY_LEN]).open(&place, &sealed), None);
        prop_assert_eq!(sealer.open(&[&place[..], b"x"].concat(), &sealed), None);
        let mut damaged = sealed.clone();
        damaged[at.index(sealed.len())] ^= 1 << bit;
        prop_assert_eq!(sealer.open(&place, &damaged), None);
        prop_assert_eq!(sealer.open(&place, &sealed[..at.index(sealed.len())]), None);
        prop_assert_eq!(sealer.open(&place, &piece), None);
    }
}
