//! What a server sends as a full copy: framing, header, checksum.
#![no_main]

use redtape_wire::psync::{RdbReceiver, parse_psync_reply};
use redtape_wire::rdb::{RdbVerifier, parse_aux, parse_header};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = parse_header(bytes);
    let _ = parse_aux(bytes);
    let _ = parse_psync_reply(&String::from_utf8_lossy(bytes));
    let whole = verdict(bytes, bytes.len());
    assert_eq!(whole, verdict(bytes, 7), "however it is cut");
    // A framed copy, in pieces.
    let (mut receiver, mut out, mut rest) = (RdbReceiver::new(), Vec::new(), bytes);
    while !rest.is_empty() {
        let piece = &rest[..rest.len().min(13)];
        match receiver.feed(piece, &mut out) {
            Ok((used, done)) => {
                assert!(used <= piece.len());
                if done || used == 0 {
                    break;
                }
                rest = &rest[used..];
            }
            Err(_) => break,
        }
    }
    assert!(out.len() <= bytes.len());
});

fn verdict(bytes: &[u8], step: usize) -> bool {
    let mut verifier = RdbVerifier::new();
    bytes.chunks(step.max(1)).for_each(|chunk| verifier.update(chunk));
    verifier.finish().is_ok()
}
