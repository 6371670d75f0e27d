//! Users and groups, from /etc/passwd and /etc/group: a static binary cannot ask NSS.

use crate::failure::{Failure, Outcome};
use crate::sys;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name, or the uid in decimal.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
    pub shell: String,
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Larger databases than this are cut off.
const MAX_DATABASE: usize = 4 << 20;

fn lines(path: &str) -> Vec<Vec<String>> {
    let contents = sys::read_small(path, MAX_DATABASE).unwrap_or_default();
    String::from_utf8_lossy(&contents).lines().map(|line| line.split(':').map(str::to_string).collect()).collect()
}

fn accounts() -> Vec<Account> {
    let parse = |f: &Vec<String>| {
        Some(Account {
            name: f.first()?.clone(),
            uid: f.get(2)?.parse().ok()?,
            gid: f.get(3)?.parse().ok()?,
            home: f.get(5).cloned().unwrap_or_default(),
            shell: f.get(6).cloned().unwrap_or_default(),
        })
    };
    lines(FILES[0]).iter().filter_map(parse).collect()
}

fn groups() -> Vec<Group> {
    let parse = |f: &Vec<String>| {
        let members = f.get(3).map(String::as_str).unwrap_or("");
        Some(Group {
            name: f.first()?.clone(),
            gid: f.get(2)?.parse().ok()?,
            members: members.split(',').filter(|m| !m.is_empty()).map(str::to_string).collect(),
        })
    };
    lines(FILES[1]).iter().filter_map(parse).collect()
}

const FILES: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// What tells one content of a file from the next: its inode, size and times.
type Stamp = Option<(u64, u64, i64, i64, i64, i64)>;

fn stamps() -> [Stamp; 2] {
    FILES.map(|file| {
        let m = fs::metadata(file).ok()?;
        Some((m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()))
    })
}

/// Both files, parsed.
pub struct Database {
    stamps: [Stamp; 2],
    accounts: Vec<Account>,
    groups: Vec<Group>,
}

/// Reading and parsing the files costs more than all else that is done to start a process.
static LAST: Mutex<Option<Arc<Database>>> = Mutex::new(None);

impl Database {
    /// As the files are now.
    pub fn read() -> Arc<Database> {
        let mut last = LAST.lock().unwrap_or_else(|e| e.into_inner());
        let stamps = stamps();
        match &*last {
            Some(database) if database.stamps == stamps => database.clone(),
            _ => {
                let database = Arc::new(Database { stamps, accounts: accounts(), groups: groups() });
                *last = Some(database.clone());
                database
            }
        }
    }

    pub fn user(&self, uid: u32) -> String {
        match self.accounts.iter().find(|a| a.uid == uid) {
            Some(a) => a.name.clone(),
            None => uid.to_string(),
        }
    }

    pub fn group(&self, gid: u32) -> String {
        match self.groups.iter().find(|g| g.gid == gid) {
            Some(g) => g.name.clone(),
            None => gid.to_string(),
        }
    }
}

/// Finds `name`, `uid`, `name:group` or `uid:gid`. As with Docker, a uid without an account has group 0 and home `/`, and a group
/// given by the caller replaces the supplementary ones.
pub fn resolve(wanted: &str) -> Outcome<User> {
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let database = Database::read();
    let accounts = &database.accounts;
    let account = accounts
        .iter()
        .find(|a| a.name == user)
        .or_else(|| user.parse().ok().and_then(|uid: u32| accounts.iter().find(|a| a.uid == uid)));
    let mut found = match (account, user.parse::<u32>()) {
        (Some(a), _) => User {
            name: a.name.clone(),
            uid: a.uid,
            gid: a.gid,
            groups: Vec::new(),
            home: if a.home.is_empty() { "/".to_string() } else { a.home.clone() },
            shell: if a.shell.is_empty() { "/bin/sh".to_string() } else { a.shell.clone() },
        },
        (None, Ok(uid)) if uid != u32::MAX => bare(uid),
        (None, _) if user == "root" => bare(0),
        _ => return Err(Failure::new("NotFound", format!("no user {:?} in /etc/passwd", user))),
    };
    match group {
        Some(group) => {
            let known = database.groups.iter().find(|g| g.name == group).map(|g| g.gid);
            found.gid = match known.or_else(|| group.parse().ok().filter(|gid| *gid != u32::MAX)) {
                Some(gid) => gid,
                None => return Err(Failure::new("NotFound", format!("no group {:?} in /etc/group", group))),
            };
        }
        None if account.is_some() => {
            let has_member = |g: &&Group| g.members.contains(&found.name);
            let groups = database.groups.iter().filter(has_member).map(|g| g.gid).collect();
            found.groups = groups;
        }
        None => {}
    }
    Ok(found)
}

fn bare(uid: u32) -> User {
    User {
        name: if uid == 0 { "root".to_string() } else { uid.to_string() },
        uid,
        gid: 0,
        groups: Vec::new(),
        home: "/".to_string(),
        shell: "/bin/sh".to_string(),
    }
}
