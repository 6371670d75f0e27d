//! Users and groups, from /etc/passwd and /etc/group: a static binary cannot ask NSS.

use crate::failure::{Failure, Outcome};
use crate::sys;

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
    String::from_utf8_lossy(&contents)
        .lines()
        .map(|line| line.split(':').map(str::to_string).collect())
        .collect()
}

fn accounts() -> Vec<Account> {
    let parse = |f: &Vec<String>| {
        Some(Account {
            name: f.get(0)?.clone(),
            uid: f.get(2)?.parse().ok()?,
            gid: f.get(3)?.parse().ok()?,
            home: f.get(5).cloned().unwrap_or_default(),
            shell: f.get(6).cloned().unwrap_or_default(),
        })
    };
    lines("/etc/passwd").iter().filter_map(parse).collect()
}

fn groups() -> Vec<Group> {
    let parse = |f: &Vec<String>| {
        let members = f.get(3).map(String::as_str).unwrap_or("");
        Some(Group {
            name: f.get(0)?.clone(),
            gid: f.get(2)?.parse().ok()?,
            members: members.split(',').filter(|m| !m.is_empty()).map(str::to_string).collect(),
        })
    };
    lines("/etc/group").iter().filter_map(parse).collect()
}

/// Finds `name`, `uid`, `name:group` or `uid:gid`. As with Docker, a uid without an account has group 0 and home `/`, and a group
/// given by the caller replaces the supplementary ones.
pub fn resolve(wanted: &str) -> Outcome<User> {
    let (user, group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let accounts = accounts();
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
            let known = groups().into_iter().find(|g| g.name == group).map(|g| g.gid);
            found.gid = match known.or_else(|| group.parse().ok().filter(|gid| *gid != u32::MAX)) {
                Some(gid) => gid,
                None => return Err(Failure::new("NotFound", format!("no group {:?} in /etc/group", group))),
            };
        }
        None if account.is_some() => {
            found.groups = groups().into_iter().filter(|g| g.members.contains(&found.name)).map(|g| g.gid).collect();
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

/// Names of uids and gids, for listings: read once.
pub struct Names {
    accounts: Vec<Account>,
    groups: Vec<Group>,
}

impl Names {
    pub fn read() -> Names {
        Names { accounts: accounts(), groups: groups() }
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
