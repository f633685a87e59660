//! What a process did to its files, event by event (`record.c`, preloaded into redtape), and what a power loss may
//! leave of it.
//!
//!     redtape ─► log ─► Disk: after each event, what is certainly on the disk, and what may be
//!                         └─► image: certainly, and of the rest whatever chance wants
//!
//! What a power loss may do here, which is more than most file systems do:
//! - a file that was synced has what it had then; a directory that was synced has the names that it had then;
//! - of everything since, any subset may be there: writes in any order, each in sectors of 512 bytes that
//!   may be missing alone (zeros, or what was there before), a file's length with or without its bytes, names that were
//!   made, changed or removed, each for itself.

use super::Dir;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a disk writes as a whole.
const SECTOR: usize = 512;
/// A smaller file is written anew for each image.
const LINK_FROM: usize = 64 << 10;

/// The log of processes, and the folder that is watched.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    _dir: Option<Dir>,
}

impl Recorder {
    pub fn new() -> Self {
        let dir = Dir::in_memory("record");
        let recorder = Self { folder: dir.path().to_owned(), _dir: Some(dir) };
        fs::create_dir(recorder.watched()).expect("the folder that is watched");
        recorder
    }

    /// One that was made earlier, in this folder.
    pub fn again(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), _dir: None }
    }

    /// Empty at first.
    pub fn watched(&self) -> PathBuf {
        self.folder.join("disk")
    }

    /// For a copy of what is watched.
    pub fn reference(&self, n: u32) -> PathBuf {
        self.folder.join(format!("reference-{n}"))
    }

    /// For images, and in `kept` for what they share.
    pub fn images(&self, purpose: &str, thread: usize) -> PathBuf {
        let folder = self.folder.join(format!("{purpose}/{thread}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("kept")).expect("a folder for images");
        folder
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// What a process needs to be recorded.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text(library())),
            ("REDTAPE_TEST_RECORD".to_owned(), text(&self.log())),
            ("REDTAPE_TEST_RECORD_UNDER".to_owned(), text(&self.watched())),
        ]
    }

    /// Writes something into the log, behind all that has happened so far.
    pub fn note(&self, text: &str) {
        let mut event = Vec::new();
        event.extend_from_slice(&(HEADER_LEN as u32 + text.len() as u32).to_ne_bytes());
        event.extend_from_slice(&u32::from(b'N').to_ne_bytes());
        // A note has no time of its own: it happens with the event before it.
        event.resize(HEADER_LEN, 0);
        event.extend_from_slice(text.as_bytes());
        self.locked_log().write_all(&event).expect("a note");
    }

    /// Does something while no process is between a call and its note: a `SIGKILL` there would leave the one without
    /// the other, or half a note.
    pub fn between_calls<T>(&self, act: impl FnOnce() -> T) -> T {
        let _log = self.locked_log();
        act()
    }

    fn locked_log(&self) -> File {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(self.log()).expect("the log");
        rustix::fs::flock(&log, rustix::fs::FlockOperation::LockExclusive).expect("the log's lock");
        log
    }

    pub fn events(&self) -> Vec<Event> {
        let bytes = fs::read(self.log()).expect("the log");
        let (mut events, mut rest) = (Vec::new(), &bytes[..]);
        let mut at_ns = 0;
        while !rest.is_empty() {
            let len = u32::from_ne_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            let (event, behind) = rest.split_at(len);
            let event = Event::read(event, &self.watched(), at_ns);
            at_ns = event.at_ns;
            events.push(event);
            rest = behind;
        }
        events
    }
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| super::clock::build_preloaded("record", &["-shared", "-fPIC", "-O2", "-pthread"]))
}

const HEADER_LEN: usize = 48;

#[derive(Debug, Clone)]
pub struct Event {
    /// Monotonic.
    pub at_ns: u64,
    pub what: What,
}

/// Paths are relative to the folder that is watched.
#[derive(Debug, Clone)]
pub enum What {
    Create {
        path: PathBuf,
        inode: u64,
    },
    Write {
        inode: u64,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        inode: u64,
        len: usize,
    },
    Sync {
        path: PathBuf,
        inode: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    MakeDir {
        path: PathBuf,
    },
    /// A process has sent this by one of its sockets.
    Send {
        connection: u64,
        bytes: Vec<u8>,
    },
    Note(String),
}

impl Event {
    fn read(event: &[u8], under: &Path, before_ns: u64) -> Self {
        let u32_at = |at: usize| u32::from_ne_bytes(event[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_ne_bytes(event[at..at + 8].try_into().expect("eight bytes"));
        let (path_len, other_len) = (u32_at(40) as usize, u32_at(44) as usize);
        let (path, rest) = event[HEADER_LEN..].split_at(path_len);
        let (other, bytes) = rest.split_at(other_len);
        let inside = |path: &[u8]| {
            let path = PathBuf::from(std::str::from_utf8(path).expect("a plain path"));
            path.strip_prefix(under).unwrap_or_else(|_| panic!("{} is elsewhere", path.display())).to_owned()
        };
        let (inode, offset) = (u64_at(24), u64_at(32) as usize);
        let what = match u8::try_from(u32_at(4)).expect("a kind") {
            b'C' => What::Create { path: inside(path), inode },
            b'W' => What::Write { inode, offset, bytes: bytes.to_vec() },
            b'T' => What::Truncate { inode, len: offset },
            b'F' => What::Sync { path: inside(path), inode },
            b'R' => What::Rename { from: inside(path), to: inside(other) },
            b'U' => What::Unlink { path: inside(path) },
            b'M' => What::MakeDir { path: inside(path) },
            b'S' => What::Send { connection: u64_at(16), bytes: bytes.to_vec() },
            b'N' => What::Note(String::from_utf8(bytes.to_vec()).expect("a text")),
            other => panic!("event {other}"),
        };
        let at_ns = if matches!(what, What::Note(_)) { before_ns } else { u64_at(8) };
        Self { at_ns, what }
    }

    /// It changes what a power loss may leave.
    pub fn concerns_files(&self) -> bool {
        !matches!(self.what, What::Send { .. } | What::Note(_))
    }

    /// It is one of the rarer ones: files come, go or change their name or length.
    pub fn concerns_names(&self) -> bool {
        matches!(
            self.what,
            What::Create { .. }
                | What::Truncate { .. }
                | What::Rename { .. }
                | What::Unlink { .. }
                | What::MakeDir { .. }
        )
    }
}

/// Number of a file; names lead to it.
type Node = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    File(Node),
    Folder,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Debug, Default)]
struct Content {
    synced: Vec<u8>,
    since: Vec<Change>,
    /// Counts what has changed, so that files made of it can be used again.
    version: u64,
}

/// A name that leads elsewhere now, or nowhere.
type NameChange = (String, Option<Named>);

#[derive(Debug, Default)]
struct Folder {
    synced: BTreeMap<String, Named>,
    since: Vec<NameChange>,
}

/// What may be on the disk after the events so far.
#[derive(Debug)]
pub struct Model {
    contents: Vec<Content>,
    folders: BTreeMap<PathBuf, Folder>,
    /// As the living processes see it.
    nodes: HashMap<u64, Node>,
    names: HashMap<PathBuf, Node>,
}

/// How much of what was not synced is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All: as after a kill.
    Nothing,
    /// All that may be lost is.
    Everything,
    /// Chance decides of each name, write and sector.
    Chance,
    /// One write to each file is missing, or a part of it; what came later is there.
    OneWrite,
}

impl Model {
    pub fn new() -> Self {
        let folders = BTreeMap::from([(PathBuf::new(), Folder::default())]);
        Self { contents: Vec::new(), folders, nodes: HashMap::new(), names: HashMap::new() }
    }

    fn renamed(&mut self, path: &Path, to: Option<Named>) {
        let folder = path.parent().expect("a name in a folder");
        let name = path.file_name().expect("a name").to_str().expect("a plain name").to_owned();
        let folder = self.folders.get_mut(folder).unwrap_or_else(|| panic!("no folder for {}", path.display()));
        folder.since.push((name, to));
    }

    fn content(&mut self, inode: u64) -> &mut Content {
        let node = self.nodes[&inode];
        let content = &mut self.contents[node];
        content.version += 1;
        content
    }

    pub fn apply(&mut self, event: &Event) {
        match &event.what {
            What::Create { path, inode } => {
                let node = self.contents.len();
                self.contents.push(Content::default());
                self.nodes.insert(*inode, node);
                self.names.insert(path.clone(), node);
                self.renamed(path, Some(Named::File(node)));
            }
            What::Write { inode, offset, bytes } => {
                let change = Change::Write { offset: *offset, bytes: bytes.clone() };
                self.content(*inode).since.push(change);
            }
            What::Truncate { inode, len } => self.content(*inode).since.push(Change::Truncate(*len)),
            What::Sync { path, inode } => {
                if let Some(folder) = self.folders.get_mut(path) {
                    let since = std::mem::take(&mut folder.since);
                    since.into_iter().for_each(|change| change_name(&mut folder.synced, change));
                } else {
                    let content = self.content(*inode);
                    let since = std::mem::take(&mut content.since);
                    since.iter().for_each(|change| change_content(&mut content.synced, change));
                }
            }
            What::Rename { from, to } => {
                let node = self.names.remove(from).unwrap_or_else(|| panic!("no file {}", from.display()));
                self.names.insert(to.clone(), node);
                self.renamed(to, Some(Named::File(node)));
                self.renamed(from, None);
            }
            What::Unlink { path } => {
                self.names.remove(path);
                self.renamed(path, None);
            }
            What::MakeDir { path } => {
                self.folders.insert(path.clone(), Folder::default());
                self.renamed(path, Some(Named::Folder));
            }
            What::Send { .. } | What::Note(_) => {}
        }
    }

    /// Puts into `to`, an empty folder, what a power loss may leave. Files that nobody will change may be shared
    /// with other images: their contents are kept in `kept`.
    pub fn image(&self, to: &Path, kept: &Path, loss: Loss, rng: &mut StdRng) {
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let mut names = self.folders[&folder].synced.clone();
            let since = &self.folders[&folder].since;
            let (share, all_to) = (rng.random_range(0..=10), rng.random_range(0..=since.len()));
            let in_order = rng.random_bool(0.5);
            for (n, change) in since.iter().enumerate() {
                let there = match loss {
                    Loss::Nothing | Loss::OneWrite => true,
                    Loss::Everything => false,
                    Loss::Chance if in_order => n < all_to,
                    Loss::Chance => rng.random_range(0..10) < share,
                };
                if there {
                    change_name(&mut names, change.clone());
                }
            }
            // Only the last segment is ever changed.
            let last = names.keys().rfind(|name| name.ends_with(".seg")).cloned();
            for (name, named) in names {
                let path = folder.join(&name);
                match named {
                    Named::Folder => {
                        fs::create_dir(to.join(&path)).expect("a folder of an image");
                        folders.push(path);
                    }
                    Named::File(node) => {
                        let content = &self.contents[node];
                        let fixed = name.ends_with(".seg") && Some(&name) != last.as_ref() || name.ends_with(".rdb");
                        let to = to.join(&path);
                        if fixed && content.since.is_empty() && content.synced.len() >= LINK_FROM {
                            share_file(&kept.join(format!("{node}-{}", content.version)), &to, &content.synced);
                        } else {
                            fs::write(&to, content.after(loss, rng)).expect("a file of an image");
                        }
                    }
                }
            }
        }
    }
}

fn share_file(kept: &Path, to: &Path, bytes: &[u8]) {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    if fs::hard_link(kept, to).is_err() {
        let fresh = kept.with_extension(MADE.fetch_add(1, Ordering::Relaxed).to_string());
        fs::write(&fresh, bytes).expect("a file for images");
        fs::rename(&fresh, kept).expect("a file for images, in its place");
        fs::hard_link(kept, to).expect("a link to a file for images");
    }
}

fn change_name(names: &mut BTreeMap<String, Named>, (name, to): NameChange) {
    match to {
        Some(named) => names.insert(name, named),
        None => names.remove(&name),
    };
}

fn change_content(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Truncate(len) => content.resize(*len, 0),
        Change::Write { offset, bytes } => {
            lengthen(content, offset + bytes.len());
            content[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }
}

fn lengthen(content: &mut Vec<u8>, len: usize) {
    content.resize(content.len().max(len), 0);
}

/// Gives each sector that a write touches.
fn sectors(offset: usize, len: usize) -> std::ops::RangeInclusive<usize> {
    offset / SECTOR..=(offset + len.max(1) - 1) / SECTOR
}

impl Content {
    fn after(&self, loss: Loss, rng: &mut StdRng) -> Vec<u8> {
        let mut content = self.synced.clone();
        match loss {
            Loss::Everything => {}
            Loss::Nothing => self.since.iter().for_each(|change| change_content(&mut content, change)),
            // Rare, and alone: any number of the first changes.
            _ if self.since.iter().any(|change| matches!(change, Change::Truncate(_))) => {
                let count = rng.random_range(0..=self.since.len());
                self.since[..count].iter().for_each(|change| change_content(&mut content, change));
            }
            Loss::OneWrite | Loss::Chance => self.torn(&mut content, loss, rng),
        }
        content
    }

    /// Decides of each write and each of its sectors whether it is there. A sector is written as it stands in the page
    /// cache: with all that was written to it earlier.
    fn torn(&self, content: &mut Vec<u8>, loss: Loss, rng: &mut StdRng) {
        let missing = rng.random_range(0..=self.since.len());
        let (share, in_order) = (rng.random_range(0..=10), rng.random_bool(0.3));
        // Which of the changes is the last one that a sector shows.
        let mut shown: HashMap<usize, usize> = HashMap::new();
        for (n, change) in self.since.iter().enumerate() {
            let Change::Write { offset, bytes } = change else { continue };
            let (whole, torn) = match loss {
                Loss::OneWrite => (n != missing, n == missing && rng.random_bool(0.5)),
                _ if in_order => (n < missing, n == missing),
                _ if rng.random_range(0..10) < share => (rng.random_bool(0.7), true),
                _ => (false, false),
            };
            if !whole && !torn {
                continue;
            }
            lengthen(content, offset + bytes.len());
            // The first of its sectors, or any; or whole pages.
            let until = rng.random_bool(0.5).then(|| rng.random_range(*offset..=offset + bytes.len()) / SECTOR);
            let grain = if rng.random_bool(0.5) { 1 } else { 4096 / SECTOR };
            let mut grains: HashMap<usize, bool> = HashMap::new();
            for sector in sectors(*offset, bytes.len()) {
                let there = whole
                    || until.map_or_else(
                        || *grains.entry(sector / grain).or_insert_with(|| rng.random_bool(0.5)),
                        |until| sector < until,
                    );
                if there {
                    shown.insert(sector, n);
                }
            }
        }
        for (n, change) in self.since.iter().enumerate() {
            let Change::Write { offset, bytes } = change else { continue };
            for sector in sectors(*offset, bytes.len()) {
                if shown.get(&sector).is_some_and(|&last| n <= last) {
                    let (from, to) =
                        ((sector * SECTOR).max(*offset), ((sector + 1) * SECTOR).min(offset + bytes.len()));
                    lengthen(content, to);
                    content[from..to].copy_from_slice(&bytes[from - offset..to - offset]);
                }
            }
        }
    }
}
