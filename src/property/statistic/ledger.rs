//! Ledgers: the evidence against one subject, kept from run to run.
//!
//! ```text
//! {"normative": 1, "subject": {"name": …, "version": …, "device": …}, "next_seed": 12,
//!  "statistics": {"statistic-running_var-batch_norm-f64": {"rounds": 12, "logarithm": -3.1, "largest": 0.4}, …}}
//! ```
//! `logarithm` is ln E_t and `largest` the largest of them so far (see [`Evidence`]). Evidence multiplies only where the
//! values were drawn anew, so a ledger says which seed comes next.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::Evidence;
use crate::subject::Hello;

/// The version of the format.
const VERSION: u64 = 1;

/// The evidence against a subject so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    normative: u64,
    subject: Whose,
    /// The first seed that was not drawn from.
    pub next_seed: u64,
    /// The evidence against each statistic's hypothesis, by the name of its verdict.
    pub statistics: BTreeMap<String, Evidence>,
}

/// Whose evidence it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Whose {
    name: String,
    version: String,
    device: String,
}

/// A file that is no ledger of the subject.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no JSON, or has other keys.
    #[error("it holds no evidence: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another version of the format.
    #[error("it is of version {0} of the format; only version {VERSION} is known")]
    Version(u64),
    /// Numbers that no run can have come to.
    #[error("the evidence against {0} contradicts itself")]
    Contradictory(String),
    /// The evidence is against another subject.
    #[error("its evidence is against {found}, not {asked}; give each subject a file of its own")]
    OtherSubject {
        /// The subject of the file.
        found: String,
        /// The subject that is asked now.
        asked: String,
    },
}

impl Ledger {
    /// No evidence yet.
    pub fn new(hello: &Hello) -> Ledger {
        Ledger { normative: VERSION, subject: Whose::of(hello), next_seed: 0, statistics: BTreeMap::new() }
    }

    /// The ledger of the subject in the file `path`; an empty one where there is no file.
    ///
    /// # Errors
    /// A [`LedgerError`] where the file cannot be read, is no ledger, or is another subject's.
    pub fn load(path: &Path, hello: &Hello) -> Result<Ledger, LedgerError> {
        match fs::read_to_string(path) {
            Ok(text) => Ledger::read(&text, hello),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ledger::new(hello)),
            Err(error) => Err(error.into()),
        }
    }

    fn read(text: &str, hello: &Hello) -> Result<Ledger, LedgerError> {
        let ledger: Ledger = serde_json::from_str(text)?;
        if ledger.normative != VERSION {
            return Err(LedgerError::Version(ledger.normative));
        }
        let asked = Whose::of(hello);
        if ledger.subject != asked {
            return Err(LedgerError::OtherSubject { found: ledger.subject.to_string(), asked: asked.to_string() });
        }
        match ledger.statistics.iter().find(|(_, evidence)| !evidence.is_consistent()) {
            Some((name, _)) => Err(LedgerError::Contradictory(name.clone())),
            None => Ok(ledger),
        }
    }

    /// Writes the file; one that is there is replaced whole or not at all.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), LedgerError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        fs::write(&beside, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(fs::rename(beside, path)?)
    }

    /// The hypothesis with the strongest evidence against it at any time, by name.
    pub fn strongest(&self) -> Option<(&str, &Evidence)> {
        let all = self.statistics.iter().map(|(name, evidence)| (name.as_str(), evidence));
        all.max_by(|a, b| a.1.exponent().total_cmp(&b.1.exponent()))
    }
}

impl Whose {
    fn of(hello: &Hello) -> Whose {
        Whose { name: hello.name.clone(), version: hello.version.clone(), device: hello.device.clone() }
    }
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Whose { name, version, device } = self;
        write!(f, "{}", format!("{name} {version} {device}").trim_end().escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: &str) -> Hello {
        let text = format!(r#"{{"name": "mine", "version": "{version}", "operations": [], "dtypes": []}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger { next_seed: 7, ..Ledger::new(&hello("1")) };
        for p in [0.5, 0.0, 0.9] {
            ledger.statistics.entry("strong".to_owned()).or_default().add(p);
            ledger.statistics.entry("weak".to_owned()).or_default().add(0.9);
        }
        ledger
    }

    #[test]
    fn a_ledger_reads_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evidence.json");
        assert_eq!(Ledger::load(&path, &hello("1")).unwrap(), Ledger::new(&hello("1")));
        ledger().save(&path).unwrap();
        assert_eq!(Ledger::load(&path, &hello("1")).unwrap(), ledger());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        // A folder is no file, and no reason to begin anew.
        assert!(matches!(Ledger::load(folder.path(), &hello("1")), Err(LedgerError::Io(_))));
        assert_eq!(ledger().strongest().unwrap().0, "strong");
        assert!(ledger().statistics["strong"].rejects(1e-9) && !ledger().statistics["weak"].rejects(0.5));
    }

    #[test]
    fn what_is_no_ledger_of_the_subject_is_refused() {
        let text = serde_json::to_string(&ledger()).unwrap();
        let read = |text: &str, version: &str| Ledger::read(text, &hello(version)).map_err(|error| error.to_string());
        assert!(read(&text, "1").is_ok());
        let said = |text: &str, version: &str| read(text, version).unwrap_err();
        assert_eq!(said(&text, "2"), "its evidence is against mine 1, not mine 2; give each subject a file of its own");
        assert!(said("{}", "1").starts_with("it holds no evidence"));
        assert!(said(&text.replace("\"normative\":1", "\"normative\":2"), "1").contains("version 2"));
        for wrong in [r#""rounds":0"#, r#""rounds":1"#] {
            let forged = text.replacen(r#""rounds":3"#, wrong, 2);
            // A thousand for each round, at most: 3 rounds hold what one cannot, or none.
            let stronger = forged.replacen(r#""largest":"#, r#""largest":2"#, 1);
            assert_eq!(said(&stronger, "1"), "the evidence against strong contradicts itself");
        }
    }
}
