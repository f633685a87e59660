//! Replies end at the same places however they are cut.
#![no_main]

use redtape_wire::resp::ReplyScanner;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert_eq!(ends(bytes, bytes.len()), ends(bytes, 1));
});

/// Where frames end, and whether an error ended it.
fn ends(bytes: &[u8], step: usize) -> (Vec<usize>, bool) {
    let (mut scanner, mut ends, mut at) = (ReplyScanner::new(), Vec::new(), 0);
    for chunk in bytes.chunks(step.max(1)) {
        let mut used = 0;
        while used < chunk.len() {
            match scanner.scan(&chunk[used..]) {
                Ok((n, frame)) => {
                    assert!(n > 0 && n <= chunk.len() - used);
                    used += n;
                    ends.extend(frame.map(|_| at + used));
                }
                Err(_) => return (ends, true),
            }
        }
        at += used;
    }
    (ends, false)
}
