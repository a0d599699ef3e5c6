//! What is on a simulated disk: files and folders, each as programs see it and as it is on stable storage.
//!
//! What programs changed since the last sync is kept as a list, in order. A power cut takes the stable state and of each list
//! what the seed says: a write whole, a part of it from its beginning, or nothing, whatever became of the ones before it; of the
//! entries of a folder all up to one of them, or any of them. So it forgets, tears and reorders as real disks may.

use crate::random::Random;
use std::collections::BTreeMap;

/// A file or a folder, whatever it is named.
pub(crate) type Inode = u64;

/// The folder that everything is in.
pub(crate) const ROOT: Inode = 1;

#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(FileNode),
    Folder(FolderNode),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FileNode {
    pub(crate) seen: Vec<u8>,
    stable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FolderNode {
    pub(crate) seen: Names,
    stable: Names,
    unsynced: Vec<Naming>,
}

pub(crate) type Names = BTreeMap<String, Inode>;

/// A change of a folder's entries; a rename inside of a folder is one.
#[derive(Clone, Debug)]
pub(crate) enum Naming {
    Named(String, Inode),
    Gone(String),
    Renamed(String, String, Inode),
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<Inode, Node>,
    next: Inode,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Folder(FolderNode::default()))]), next: ROOT + 1 }
    }
}

impl Tree {
    pub(crate) fn add(&mut self, node: Node) -> Inode {
        let inode = self.next;
        self.next += 1;
        self.nodes.insert(inode, node);
        inode
    }

    pub(crate) fn get(&self, inode: Inode) -> Option<&Node> {
        self.nodes.get(&inode)
    }

    pub(crate) fn file(&self, inode: Inode) -> Option<&FileNode> {
        match self.nodes.get(&inode)? {
            Node::File(file) => Some(file),
            Node::Folder(_) => None,
        }
    }

    pub(crate) fn file_mut(&mut self, inode: Inode) -> Option<&mut FileNode> {
        match self.nodes.get_mut(&inode)? {
            Node::File(file) => Some(file),
            Node::Folder(_) => None,
        }
    }

    pub(crate) fn folder(&self, inode: Inode) -> Option<&FolderNode> {
        match self.nodes.get(&inode)? {
            Node::Folder(folder) => Some(folder),
            Node::File(_) => None,
        }
    }

    pub(crate) fn folder_mut(&mut self, inode: Inode) -> Option<&mut FolderNode> {
        match self.nodes.get_mut(&inode)? {
            Node::Folder(folder) => Some(folder),
            Node::File(_) => None,
        }
    }

    /// What a path of names leads to.
    pub(crate) fn find<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<Inode> {
        names.into_iter().try_fold(ROOT, |folder, name| self.folder(folder)?.seen.get(name).copied())
    }

    /// How many names something has.
    pub(crate) fn names_of(&self, inode: Inode) -> u32 {
        let names = |node: &Node| match node {
            Node::Folder(folder) => folder.seen.values().filter(|child| **child == inode).count() as u32,
            Node::File(_) => 0,
        };
        self.nodes.values().map(names).sum()
    }

    /// Bytes of all files that have a name or had one.
    pub(crate) fn bytes(&self) -> u64 {
        let named: std::collections::BTreeSet<Inode> = self
            .nodes
            .values()
            .filter_map(|node| match node {
                Node::Folder(folder) => Some(folder.seen.values().copied()),
                Node::File(_) => None,
            })
            .flatten()
            .collect();
        named.iter().filter_map(|inode| self.file(*inode)).map(|file| file.seen.len() as u64).sum()
    }

    /// What is left after a power cut.
    pub(crate) fn after_power_cut(&self, random: &mut Random) -> Self {
        let nodes = self.nodes.iter().map(|(inode, node)| (*inode, node.after_power_cut(random))).collect();
        Self { nodes, next: self.next }
    }
}

impl Node {
    fn after_power_cut(&self, random: &mut Random) -> Self {
        match self {
            Self::File(file) => {
                let mut left = file.stable.clone();
                for change in &file.unsynced {
                    change.apply_in_part(&mut left, random);
                }
                Self::File(FileNode { seen: left.clone(), stable: left, unsynced: Vec::new() })
            }
            Self::Folder(folder) => {
                let mut left = folder.stable.clone();
                let in_order = random.once_in(2);
                let kept = random.below(folder.unsynced.len() as u64 + 1) as usize;
                for (i, naming) in folder.unsynced.iter().enumerate() {
                    if if in_order { i < kept } else { random.once_in(2) } {
                        naming.apply(&mut left);
                    }
                }
                Self::Folder(FolderNode { seen: left.clone(), stable: left, unsynced: Vec::new() })
            }
        }
    }
}

impl FileNode {
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        put(&mut self.seen, offset, bytes);
        self.unsynced.push(Change::Write(offset, bytes.to_vec()));
    }

    pub(crate) fn set_length(&mut self, bytes: u64) {
        self.seen.resize(bytes as usize, 0);
        self.unsynced.push(Change::Length(bytes));
    }

    pub(crate) fn read(&self, offset: u64, bytes: usize) -> &[u8] {
        let from = (offset as usize).min(self.seen.len());
        &self.seen[from..from + bytes.min(self.seen.len() - from)]
    }

    pub(crate) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.stable);
        }
    }

    /// A sync failed: what was not synced is seen until the power goes, and never gets to stable storage.
    pub(crate) fn forget(&mut self) {
        self.unsynced.clear();
    }

    /// Its bytes as they are, durably.
    pub(crate) fn settle(&mut self) {
        self.stable.clone_from(&self.seen);
        self.unsynced.clear();
    }
}

impl FolderNode {
    pub(crate) fn change(&mut self, naming: Naming) {
        naming.apply(&mut self.seen);
        self.unsynced.push(naming);
    }

    pub(crate) fn sync(&mut self) {
        for naming in self.unsynced.drain(..) {
            naming.apply(&mut self.stable);
        }
    }

    /// As of a file.
    pub(crate) fn forget(&mut self) {
        self.unsynced.clear();
    }
}

impl Naming {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Named(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Gone(name) => drop(names.remove(name)),
            Self::Renamed(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => put(content, *offset, bytes),
            Self::Length(bytes) => content.resize(*bytes as usize, 0),
        }
    }

    fn apply_in_part(&self, content: &mut Vec<u8>, random: &mut Random) {
        match self {
            Self::Write(offset, bytes) => {
                let kept = match random.below(3) {
                    0 => 0,
                    1 => bytes.len(),
                    _ => random.below(bytes.len() as u64 + 1) as usize,
                };
                if kept > 0 {
                    put(content, *offset, &bytes[..kept]);
                }
            }
            Self::Length(bytes) => {
                if random.once_in(2) {
                    content.resize(*bytes as usize, 0);
                }
            }
        }
    }
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset as usize..end].copy_from_slice(bytes);
}
