//! Compiles `clock/clock.c`, which the scratch server preloads, into a shared object that the crate
//! embeds. The C compiler is the one that Rust links with; `CC` names another.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=clock/clock.c");
    println!("cargo:rerun-if-env-changed=CC");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("clock.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-nostdlib", "-O2", "-fno-builtin", "-fno-stack-protector", "-Wall"])
        .args(["-Wl,-soname,redtape-clock.so", "-o"])
        .arg(&out)
        .arg("clock/clock.c")
        .status()
        .unwrap_or_else(|e| panic!("cannot run the C compiler {compiler:?} (set CC to one): {e}"));
    assert!(status.success(), "{compiler} could not compile clock/clock.c");
}
