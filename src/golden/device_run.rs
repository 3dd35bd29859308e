//! Unpacking a run on another machine: plain tars of `<recording>/<operation>.<NN>.safetensors` and one
//! `<recording>/provenance.json`, as `tools/device_run/run.py` packs them, become folders of golden files.
//!
//! Everything is read and checked before anything is written: names, sizes, the hash of each file in the provenance, and
//! each golden file itself. The files are written as they are, so that the hashes stay true.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::file::{GoldenError, GoldenFile, Place, Provenance};
use super::message::field;
use super::recording::{FILE_LIMIT, WriteMode, io_error, write_file};
use crate::case::{Case, Hello};

/// The most bytes of one tar: 16 MiB.
pub const TAR_LIMIT: u64 = 16 << 20;

const PROVENANCE: &str = "provenance.json";

/// A recording that was unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Its folder.
    pub folder: PathBuf,
    /// Who answered.
    pub subject: Hello,
    /// How the answers came about.
    pub provenance: Provenance,
    /// The cases in it.
    pub cases: usize,
    /// The files that were not there already.
    pub written: usize,
}

/// Unpacks the recordings in `paths`, tars or folders of tars, each into a folder of its name in `into`.
///
/// # Errors
/// [`GoldenError::Io`] for what cannot be read or written; [`GoldenError::Contradictory`] for a tar above
/// [`TAR_LIMIT`], an entry that is no file of a recording, a recording without its provenance, a file that the provenance
/// does not list or whose hash differs, and with [`WriteMode::Add`] a file that is there with other bytes; those of
/// [`GoldenFile::read`].
pub fn unpack(paths: &[PathBuf], into: &Path, mode: WriteMode) -> Result<Vec<Unpacked>, GoldenError> {
    let mut recordings: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for path in tars(paths)? {
        read_tar(&path, &mut recordings)?;
    }
    if recordings.is_empty() {
        let reason = "there is no tar of a recording in what was given".to_owned();
        return Err(GoldenError::Contradictory { place: Place::default(), reason });
    }
    let checked: Result<Vec<_>, _> = recordings.iter().map(|(name, files)| check(name, files)).collect();
    let mut unpacked = checked?;
    for (recording, files) in unpacked.iter_mut().zip(recordings.values()) {
        recording.folder = into.join(&recording.folder);
        recording.written = write(&recording.folder, files, mode)?;
    }
    Ok(unpacked)
}

/// The tars that paths stand for, folders in the order of their names.
fn tars(paths: &[PathBuf]) -> Result<Vec<PathBuf>, GoldenError> {
    let mut tars = Vec::new();
    for path in paths {
        if !path.is_dir() {
            tars.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let mut found: Vec<PathBuf> =
            entries.map_err(|error| io_error(path, error))?.iter().map(fs::DirEntry::path).collect();
        found.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
        found.sort();
        tars.extend(found);
    }
    Ok(tars)
}

fn read_tar(path: &Path, recordings: &mut BTreeMap<String, BTreeMap<String, Vec<u8>>>) -> Result<(), GoldenError> {
    let wrong = |reason: String| contradictory(format!("{}: {reason}", path.display()));
    let file = File::open(path).map_err(|error| io_error(path, error))?;
    let size = file.metadata().map_err(|error| io_error(path, error))?.len();
    if size > TAR_LIMIT {
        return Err(wrong(format!("{size} bytes; a tar of a run has at most {TAR_LIMIT}")));
    }
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries().map_err(|error| io_error(path, error))? {
        let mut entry = entry.map_err(|error| wrong(error.to_string()))?;
        let name = entry.path().map_err(|error| wrong(error.to_string()))?.into_owned();
        let Some((recording, file)) = parts(&name).filter(|_| entry.header().entry_type().is_file()) else {
            let name = super::one_line(&name.to_string_lossy());
            return Err(wrong(format!(
                "{name} is no file of a recording; expected <recording>/<operation>.<NN>.safetensors or \
                 <recording>/{PROVENANCE}"
            )));
        };
        let mut bytes = Vec::new();
        // No entry holds more than the tar does, whatever its header says.
        entry.by_ref().take(size).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
        if recordings.entry(recording).or_default().insert(file, bytes).is_some() {
            return Err(wrong(format!("{} is there twice", name.display())));
        }
    }
    Ok(())
}

/// The recording and the file that an entry's path names.
fn parts(path: &Path) -> Option<(String, String)> {
    let names: Option<Vec<&str>> = path
        .components()
        .map(|component| if let Component::Normal(name) = component { name.to_str() } else { None })
        .collect();
    let [recording, file] = names?[..] else { return None };
    let golden = file.strip_suffix(".safetensors").is_some_and(|stem| Case::is_valid_name(stem) && stem.contains('.'));
    let valid = Case::is_valid_name(recording) && !recording.starts_with('.') && (golden || file == PROVENANCE);
    valid.then(|| (recording.to_owned(), file.to_owned()))
}

/// Checks a recording's files against its provenance, and each as a golden file.
fn check(recording: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<Unpacked, GoldenError> {
    let wrong = |reason: String| contradictory(format!("{recording}: {reason}"));
    let Some(provenance) = files.get(PROVENANCE) else {
        return Err(wrong(format!("there is no {PROVENANCE} in any of its tars")));
    };
    let provenance: Value =
        serde_json::from_slice(provenance).map_err(|error| wrong(format!("{PROVENANCE}: {error}")))?;
    let hashes: BTreeMap<String, String> =
        field(&provenance, "sha256").map_err(|error| wrong(format!("{PROVENANCE}: {error}")))?;
    if let Some(missing) = hashes.keys().find(|name| !files.contains_key(*name)) {
        let missing = super::one_line(missing);
        return Err(wrong(format!("{PROVENANCE} lists {missing}, which is in none of the tars: give all parts")));
    }
    let mut unpacked: Option<Unpacked> = None;
    let mut names = HashSet::new();
    for (name, bytes) in files.iter().filter(|(name, _)| *name != PROVENANCE) {
        let actual: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        match hashes.get(name) {
            None => return Err(wrong(format!("{PROVENANCE} does not list {name}"))),
            Some(stated) if *stated != actual => {
                let stated = super::one_line(stated);
                return Err(wrong(format!("{name} has the hash {actual}; {PROVENANCE} says {stated}")));
            }
            Some(_) => {}
        }
        if bytes.len() > FILE_LIMIT {
            return Err(wrong(format!("{name} has {} bytes; a golden file has at most {FILE_LIMIT}", bytes.len())));
        }
        let file = GoldenFile::read(bytes)?;
        let who = unpacked.get_or_insert_with(|| Unpacked {
            folder: PathBuf::from(recording),
            subject: file.subject.clone(),
            provenance: file.provenance,
            cases: 0,
            written: 0,
        });
        if who.subject != file.subject || who.provenance != file.provenance {
            return Err(wrong(format!("{name} was recorded from another subject than the files before it")));
        }
        who.cases += file.cases.len();
        if let Some(twice) = file.cases.into_iter().find(|recorded| !names.insert(recorded.case.name.clone())) {
            return Err(Place::case(&twice.case.name).contradictory(format!("{recording} has two cases of this name")));
        }
    }
    unpacked.ok_or_else(|| wrong("it has no golden file".to_owned()))
}

/// Writes the files that are not there, and returns how many.
fn write(folder: &Path, files: &BTreeMap<String, Vec<u8>>, mode: WriteMode) -> Result<usize, GoldenError> {
    let same = |name: &str, bytes: &Vec<u8>| fs::read(folder.join(name)).map(|present| present == *bytes);
    if mode == WriteMode::Add {
        for (name, bytes) in files {
            if let Ok(false) = same(name, bytes) {
                let path = folder.join(name);
                return Err(contradictory(format!("{} is there already, with other bytes", path.display())));
            }
        }
    }
    fs::create_dir_all(folder).map_err(|error| io_error(folder, error))?;
    let mut written = 0;
    for (name, bytes) in files {
        if !same(name, bytes).unwrap_or(false) {
            write_file(&folder.join(name), bytes)?;
            written += 1;
        }
    }
    if mode == WriteMode::Replace {
        for entry in fs::read_dir(folder).map_err(|error| io_error(folder, error))? {
            let path = entry.map_err(|error| io_error(folder, error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".safetensors") && !files.contains_key(name) {
                fs::remove_file(&path).map_err(|error| io_error(&path, error))?;
            }
        }
    }
    Ok(written)
}

fn contradictory(reason: String) -> GoldenError {
    GoldenError::Contradictory { place: Place::default(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../../golden/examples/golden.safetensors");

    fn tar_of(path: &Path, files: &[(&str, &[u8])]) {
        let mut archive = tar::Builder::new(File::create(path).unwrap());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // Written as bytes: `set_path` refuses the names that a hostile tar has.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, *bytes).unwrap();
        }
        archive.finish().unwrap();
    }

    fn provenance(bytes: &[u8]) -> Vec<u8> {
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        serde_json::json!({"sha256": {"batch_norm.00.safetensors": hash}}).to_string().into_bytes()
    }

    /// What unpacking one tar of `files` says.
    fn unpacked(files: &[(&str, &[u8])]) -> Result<Vec<Unpacked>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.tar");
        tar_of(&path, files);
        let said = unpack(&[folder.path().to_owned()], &folder.path().join("golden"), WriteMode::Add);
        said.map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_is_written_as_it_is_and_only_added() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.tar");
        let list = provenance(GOLDEN);
        tar_of(&path, &[("r-1/provenance.json", &list), ("r-1/batch_norm.00.safetensors", GOLDEN)]);
        let into = folder.path().join("golden");
        let again = || unpack(std::slice::from_ref(&path), &into, WriteMode::Add).unwrap().remove(0);
        let first = again();
        assert_eq!((first.written, first.folder.clone()), (2, into.join("r-1")));
        assert!(first.cases > 0);
        let file = into.join("r-1/batch_norm.00.safetensors");
        assert_eq!(fs::read(&file).unwrap(), GOLDEN);
        assert_eq!(again().written, 0);
        fs::write(&file, b"other").unwrap();
        assert!(unpack(std::slice::from_ref(&path), &into, WriteMode::Add).is_err());
        fs::write(into.join("r-1/old.00.safetensors"), b"other").unwrap();
        assert_eq!(unpack(&[path], &into, WriteMode::Replace).unwrap()[0].written, 1);
        assert_eq!(fs::read(&file).unwrap(), GOLDEN);
        assert!(!into.join("r-1/old.00.safetensors").exists());
    }

    #[test]
    fn what_is_no_run_is_told() {
        let list = provenance(GOLDEN);
        let file = ("r/batch_norm.00.safetensors", GOLDEN);
        let cut = &GOLDEN[..GOLDEN.len() - 1];
        let cut_list = provenance(cut);
        for (files, expected) in [
            (vec![("../batch_norm.00.safetensors", GOLDEN)], "is no file of a recording"),
            (vec![("/r/provenance.json", b"{}".as_slice())], "is no file of a recording"),
            (vec![("r/run.sh", b"rm".as_slice())], "is no file of a recording"),
            (vec![file], "there is no provenance.json"),
            (vec![("r/provenance.json", b"[".as_slice()), file], "provenance.json: EOF"),
            (vec![("r/provenance.json", b"{}".as_slice()), file], "`sha256`"),
            (vec![("r/provenance.json", list.as_slice())], "which is in none of the tars"),
            (vec![("r/provenance.json", br#"{"sha256": {}}"#.as_slice()), file], "does not list"),
            (vec![("r/provenance.json", cut_list.as_slice()), file], "has the hash"),
            (vec![("r/provenance.json", cut_list.as_slice()), ("r/batch_norm.00.safetensors", cut)], "unreadable"),
            (vec![file, file], "is there twice"),
            (vec![], "there is no tar of a recording"),
        ] {
            let error = unpacked(&files).unwrap_err();
            assert!(error.contains(expected), "{error}: {expected}");
        }
    }
}
