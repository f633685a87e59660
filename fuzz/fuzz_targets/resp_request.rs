//! A request ends where it ends, whatever follows, and not before its last byte.
#![no_main]

use redtape_wire::resp::{Args, Parsed, parse_request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut args = Args::default();
    let whole = parse_request(bytes, &mut args);
    let arguments = args.clone();
    let (Ok(Parsed::Whole { len }) | Ok(Parsed::Inline { len, .. })) = whole else { return };
    assert!(len <= bytes.len() && len > 0);
    assert!(arguments.iter().all(|(from, to)| from <= to && *to <= len));
    assert_eq!(parse_request(&bytes[..len], &mut args), whole, "what follows is of no matter");
    assert!(args == arguments);
    for cut in [1, len / 2, len - 1].into_iter().filter(|cut| *cut > 0 && *cut < len) {
        assert!(matches!(parse_request(&bytes[..cut], &mut args), Ok(Parsed::Partial(_))), "cut at {cut}");
    }
});
