//! The check, on small trees.

use crate::check;
use crate::files::Files;
use crate::layers::{self, LAYERS};

const WIRE: &str = "[package]\nname = \"redtape-wire\"\n";

/// The complaints about a workspace of one crate with these files below `wire/src/`.
fn complaints_in_one_crate(sources: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<(String, &str)> = sources.iter().map(|&(path, text)| (format!("wire/src/{path}"), text)).collect();
    let mut files = vec![("Cargo.toml", "[workspace]\nmembers = [\"wire\"]\n"), ("wire/Cargo.toml", WIRE)];
    files.extend(sources.iter().map(|(path, text)| (path.as_str(), *text)));
    check(&Files::of(&files)).unwrap()
}

/// A workspace of `(directory, manifest below [package] name, lib.rs)`.
fn complaints_in(crates: &[(&str, &str, &str)]) -> Vec<String> {
    let members: Vec<String> = crates.iter().map(|(directory, ..)| format!("{directory:?}")).collect();
    let mut files = vec![("Cargo.toml".to_owned(), format!("[workspace]\nmembers = [{}]\n", members.join(", ")))];
    for (directory, manifest, source) in crates {
        files.push((
            format!("{directory}/Cargo.toml"),
            format!("[package]\nname = \"redtape-{directory}\"\n{manifest}"),
        ));
        files.push((format!("{directory}/src/lib.rs"), (*source).to_owned()));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    check(&Files::of(&files)).unwrap()
}

#[test]
fn a_cycle_of_two_is_shown_with_the_line_of_each_import() {
    let complaints = complaints_in_one_crate(&[
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a.rs", "//! A.\nuse crate::b::B;\npub struct A(B);\n"),
        ("b.rs", "pub struct B;\nfn back(_: super::a::A) {}\n"),
    ]);
    assert_eq!(
        complaints,
        ["import cycle: wire/src/a.rs -> wire/src/b.rs -> wire/src/a.rs\
          \n    wire/src/a.rs:2 names crate::b::B\
          \n    wire/src/b.rs:2 names super::a::A"]
    );
}

#[test]
fn without_the_way_back_there_is_no_cycle() {
    let sources =
        [("lib.rs", "mod a;\nmod b;\n"), ("a.rs", "use crate::b::B;\npub struct A(B);\n"), ("b.rs", "pub struct B;\n")];
    assert!(complaints_in_one_crate(&sources).is_empty());
}

/// `a` names what `b/mod.rs` re-exports: the cycle goes through the file behind it.
#[test]
fn a_cycle_of_three_behind_a_reexport() {
    let complaints = complaints_in_one_crate(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
        ("a.rs", "use crate::b::Inner;\npub struct A(Inner);\n"),
        ("b/mod.rs", "mod inner;\npub use inner::Inner;\n"),
        ("b/inner.rs", "use crate::c::C;\npub struct Inner(C);\n"),
        ("c.rs", "pub struct C;\nimpl From<crate::a::A> for C { fn from(_: crate::a::A) -> Self { C } }\n"),
    ]);
    assert_eq!(complaints.len(), 1);
    let first = complaints[0].lines().next();
    assert_eq!(
        first,
        Some("import cycle: wire/src/a.rs -> wire/src/b/inner.rs -> wire/src/c.rs -> wire/src/a.rs"),
        "{complaints:?}"
    );
}

#[test]
fn reexports_are_followed_under_another_name_through_globs_and_more_than_once() {
    for reexport in
        ["pub use inner::Inner as Shown;", "pub use again::*;\nmod again { pub use super::inner::Inner as Shown; }"]
    {
        let complaints = complaints_in_one_crate(&[
            ("lib.rs", "mod a;\nmod b;\npub use b::Shown as Outer;\n"),
            ("a.rs", "use crate::Outer;\npub struct A(Outer);\n"),
            ("b/mod.rs", &format!("mod inner;\n{reexport}\n")),
            ("b/inner.rs", "pub struct Inner;\npub fn back(_: crate::a::A) {}\n"),
        ]);
        assert_eq!(complaints.len(), 1, "{reexport}: {complaints:?}");
        assert!(complaints[0].contains("wire/src/a.rs -> wire/src/b/inner.rs -> wire/src/a.rs"), "{complaints:?}");
    }
}

#[test]
fn a_module_and_its_descendants_may_name_each_other() {
    let complaints = complaints_in_one_crate(&[
        ("lib.rs", "mod a;\npub struct Root(a::A);\n"),
        ("a/mod.rs", "mod child;\nmod other;\npub struct A(child::Child, other::Other);\n"),
        ("a/child.rs", "mod deep;\nuse super::other::Other;\npub struct Child(Other, deep::Deep);\n"),
        ("a/child/deep.rs", "pub struct Deep(Option<Box<crate::a::A>>);\n"),
        ("a/other.rs", "pub struct Other(Option<Box<super::A>>, Option<Box<crate::Root>>);\n"),
    ]);
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[test]
fn siblings_that_name_each_other_are_a_cycle() {
    let complaints = complaints_in_one_crate(&[
        ("lib.rs", "mod a;\n"),
        ("a/mod.rs", "mod x;\nmod y;\n"),
        ("a/x.rs", "pub struct X(Option<Box<super::y::Y>>);\n"),
        ("a/y.rs", "pub struct Y(super::x::X);\n"),
    ]);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
}

/// The parent is in the same connected set of files; its children's own cycle is seen all the same.
#[test]
fn siblings_are_a_cycle_also_where_both_name_their_parent() {
    let complaints = complaints_in_one_crate(&[
        ("lib.rs", "mod a;\npub struct Root(a::A);\n"),
        ("a/mod.rs", "mod x;\nmod y;\npub struct A(x::X, y::Y);\n"),
        ("a/x.rs", "pub struct X(Option<Box<super::y::Y>>, Option<Box<super::A>>);\n"),
        ("a/y.rs", "pub struct Y(Option<Box<super::x::X>>, Option<Box<crate::Root>>);\n"),
    ]);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("wire/src/a/x.rs -> wire/src/a/y.rs -> wire/src/a/x.rs"), "{complaints:?}");
}

#[test]
fn every_cycle_is_shown_that_no_earlier_cut_removes() {
    let complaints = complaints_in_one_crate(&[
        ("lib.rs", "mod x;\nmod y;\nmod z;\n"),
        ("x.rs", "pub struct X(Option<Box<crate::y::Y>>);\n"),
        ("y.rs", "pub struct Y(Option<Box<crate::x::X>>, Option<Box<crate::z::Z>>);\n"),
        ("z.rs", "pub struct Z(Option<Box<crate::y::Y>>);\n"),
    ]);
    assert_eq!(complaints.len(), 2, "{complaints:?}");
}

/// A child that names its parent closes a cycle with a third file.
#[test]
fn a_third_file_makes_a_cycle_of_a_child_and_its_parent() {
    let complaints = complaints_in_one_crate(&[
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a/mod.rs", "mod child;\npub use child::Child;\npub struct A(crate::b::B);\n"),
        ("a/child.rs", "pub struct Child(super::A);\n"),
        ("b.rs", "use crate::a::Child;\npub struct B(Option<Box<Child>>);\n"),
    ]);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("wire/src/a/child.rs -> wire/src/a/mod.rs -> wire/src/b.rs -> wire/src/a/child.rs"));
}

/// A parent that only re-exports its children does not tie them together.
#[test]
fn a_reexport_of_a_child_is_no_import() {
    let complaints = complaints_in_one_crate(&[
        ("lib.rs", "mod a;\nmod b;\n"),
        ("a/mod.rs", "mod high;\npub use high::High;\npub struct Low;\n"),
        ("a/high.rs", "pub struct High(crate::b::B);\n"),
        ("b.rs", "pub struct B(crate::a::Low);\n"),
    ]);
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[test]
fn imports_of_modules_and_inside_functions_macros_and_attributes_are_seen() {
    for body in [
        "use crate::b;\nfn f() { b::g(); }",
        "use crate::b::{self as other};\nfn f() { other::g(); }",
        "fn f() { use crate::b::g; g(); }",
        "fn f() { use crate::b; b::g(); }",
        "fn f() { println!(\"{}\", crate::b::g()); }",
        "#[serde(with = \"crate::b\")]\nstruct S;",
        "#[serde(default = \"crate::b::g\")]\nstruct S;",
        "macro_rules! m { () => { $crate::b::g() } }",
        "fn f(x: u8) { match x { crate::b::MAX => {} _ => {} } }",
        "impl crate::b::T for u8 {}",
        "use super::b::*;\nfn f() { g(); }",
        "fn f() { use super::b::*; g(); }",
    ] {
        let complaints = complaints_in_one_crate(&[
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a.rs", &format!("{body}\npub struct A;\n")),
            ("b.rs", "pub fn g() {}\npub const MAX: u8 = 1;\npub trait T {}\nstruct B(crate::a::A);\n"),
        ]);
        assert_eq!(complaints.len(), 1, "{body}: {complaints:?}");
    }
}

#[test]
fn code_for_tests_does_not_count() {
    for body in [
        "#[cfg(test)]\nmod tests { use crate::b::B; }",
        "#[cfg(test)]\nmod tests;",
        "#[cfg(test)]\nuse crate::b::B;",
        "#[cfg(all(test, unix))]\nfn f(_: crate::b::B) {}",
        "pub struct S { #[cfg(test)] b: crate::b::B }",
        "impl S { #[cfg(test)]\nfn f(_: crate::b::B) {} }\npub struct S;",
    ] {
        let complaints = complaints_in_one_crate(&[
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a.rs", &format!("{body}\npub struct A;\n")),
            ("b.rs", "pub struct B(crate::a::A);\n"),
        ]);
        assert!(complaints.is_empty(), "{body}: {complaints:?}");
    }
}

/// One misplaced constant closes two cycles: one line says so.
#[test]
fn the_import_that_most_cycles_share_is_shown_once() {
    let complaints = complaints_in_one_crate(&[
        ("lib.rs", "mod low;\nmod x;\nmod y;\nmod top;\n"),
        ("low.rs", "pub struct Low;\nconst N: usize = crate::top::N;\n"),
        ("x.rs", "pub struct X(crate::low::Low);\n"),
        ("y.rs", "pub struct Y(crate::low::Low);\n"),
        ("top.rs", "pub const N: usize = 1;\nstruct Top(crate::x::X, crate::y::Y);\n"),
    ]);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("wire/src/low.rs:2 names crate::top::N    (in 2 cycles)"), "{complaints:?}");
}

#[test]
fn an_upward_arrow_is_shown_with_its_line() {
    let complaints = complaints_in(&[
        ("wire", "[dependencies]\nredtape-journal = { path = \"../journal\" }\n", ""),
        ("journal", "", ""),
    ]);
    assert_eq!(complaints, ["upward arrow: redtape-wire -> redtape-journal\n    wire/Cargo.toml:4"]);
}

#[test]
fn proxy_and_restore_never_see_each_other_not_even_in_tests() {
    for (from, to) in [("proxy", "restore"), ("restore", "proxy")] {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"] {
            let manifest = format!("[{kind}]\nredtape-{to}.workspace = true\n");
            let complaints = complaints_in(&[(from, &manifest, ""), (to, "", "")]);
            assert_eq!(complaints.len(), 1, "{from} {kind}: {complaints:?}");
        }
    }
}

#[test]
fn arrows_down_are_allowed_and_a_crate_without_a_row_is_not() {
    let down = ("capture", "[dependencies]\nredtape-journal.workspace = true\n", "");
    assert!(complaints_in(&[down, ("journal", "", "")]).is_empty());
    assert_eq!(complaints_in(&[("unheard-of", "", "")]).len(), 1);
}

/// The journal may use `wire`, but nothing that comes from its RESP, by whatever name.
#[test]
fn the_journal_never_sees_resp() {
    let wire = "pub mod resp { }\npub use codec::shown;\nmod codec;\npub mod units;\n";
    for (source, expected) in [
        ("use redtape_wire::resp::Frame;", 1),
        ("use redtape_wire::shown;", 1),
        ("fn f() { redtape_wire::codec::shown(); }", 1),
        ("use redtape_wire::units::bytes;", 0),
    ] {
        let files = Files::of(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"wire\", \"journal\"]\n"),
            ("wire/Cargo.toml", WIRE),
            ("wire/src/lib.rs", &wire.replace("pub mod resp { }", "pub mod resp;")),
            ("wire/src/resp/mod.rs", "pub mod frame;\npub use frame::Frame;\n"),
            ("wire/src/resp/frame.rs", "pub struct Frame;\npub fn shown() {}\n"),
            ("wire/src/codec.rs", "pub use crate::resp::frame::shown;\n"),
            ("wire/src/units.rs", "pub fn bytes() {}\n"),
            (
                "journal/Cargo.toml",
                "[package]\nname = \"redtape-journal\"\n[dependencies]\nredtape-wire.workspace = true\n",
            ),
            ("journal/src/lib.rs", source),
        ]);
        assert_eq!(check(&files).unwrap().len(), expected, "{source}");
    }
}

#[test]
fn targets_beside_the_library_are_looked_at() {
    for (root, folder) in [("wire/tests/it.rs", "wire/tests/"), ("wire/benches/speed/main.rs", "wire/benches/speed/")] {
        let a = format!("{folder}a.rs");
        let b = format!("{folder}b.rs");
        let files = Files::of(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"wire\"]\n"),
            ("wire/Cargo.toml", WIRE),
            ("wire/src/lib.rs", ""),
            (root, "mod a;\nmod b;\n"),
            (&a, "pub struct A(crate::b::B);\n"),
            (&b, "pub struct B(Option<Box<crate::a::A>>);\n"),
        ]);
        assert_eq!(check(&files).unwrap().len(), 1, "{root}");
    }
}

#[test]
fn a_module_without_a_file_is_an_error() {
    let files = Files::of(&[
        ("Cargo.toml", "[workspace]\nmembers = [\"wire\"]\n"),
        ("wire/Cargo.toml", WIRE),
        ("wire/src/lib.rs", "mod gone;\n"),
    ]);
    assert_eq!(check(&files).unwrap_err().to_string(), "wire/src/lib.rs: there is no file for `mod gone`");
}

#[test]
fn source_folders_may_have_the_name_of_the_build_folder() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    };
    for path in ["src/lib.rs", "src/target/mod.rs", "target/CACHEDIR.TAG", "target/debug/made.rs", ".git/x.rs", "a.txt"]
    {
        write(path);
    }
    let files = Files::read(root.path()).unwrap();
    assert_eq!(files.below("").collect::<Vec<_>>(), ["src/lib.rs", "src/target/mod.rs"]);
}

/// A row names only rows below it, so the table itself has no cycle.
#[test]
fn the_table_points_down_only() {
    for (at, (name, allowed)) in LAYERS.iter().enumerate() {
        for below in *allowed {
            assert!(LAYERS[at + 1..].iter().any(|(row, _)| row == below), "{name} -> {below}");
        }
    }
    let row = |name: &str| LAYERS.iter().find(|(row, _)| *row == name).map(|(_, allowed)| *allowed).unwrap();
    assert!(!row("redtape-proxy").contains(&"redtape-restore") && !row("redtape-restore").contains(&"redtape-proxy"));
    assert!(row("redtape-wire").is_empty() && row("redtape-telemetry").is_empty());
    assert!(layers::check_dependencies(&[]).is_empty());
}
