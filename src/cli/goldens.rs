//! Recordings: where they are, and what comes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::Stop;
use super::options::SelectionOptions;
use super::progress::Progress;
use crate::case::Case;
use crate::conformance::{Verdict, verify};
use crate::golden::{
    GoldenError, GoldenFile, KnownError, KnownList, Provenance, QUICK_RECORDING, RecordedCase, find, folder_of,
    load_found, quick,
};
use crate::report::{Expectations, Recording, Report};

/// The list of a recording's deviations, beside its files.
const DEVIATIONS: &str = "deviations.toml";

/// What was found below some paths.
#[derive(Default)]
pub(super) struct Goldens {
    folders: Vec<Folder>,
    unreadable: Vec<(PathBuf, String)>,
}

/// A folder with golden files.
struct Folder {
    path: PathBuf,
    /// The cases of each subject, with their files; a recording has one subject, a folder of counterexamples may have more.
    recordings: Vec<(Recording, Vec<(RecordedCase, PathBuf)>)>,
    /// Whether every golden file of the folder was read.
    whole: bool,
    deviations: Deviations,
}

/// The list of deviations beside golden files, if there is one; or why it cannot be used.
type Deviations = Result<Option<KnownList>, String>;

/// The folder of all recordings: `golden` here, or else that of the checkout which this program was built from, if it is
/// still there.
pub(super) fn default_folder() -> PathBuf {
    let here = PathBuf::from("golden");
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    if !here.is_dir() && built_from.is_dir() { built_from } else { here }
}

impl Goldens {
    /// Reads the golden files below `folder`, which need not be there.
    pub fn below(folder: &Path) -> Goldens {
        if folder.is_dir() { Goldens::read(&[folder.to_owned()]) } else { Goldens::default() }
    }

    /// The quick set that comes with the program, where there is no other.
    pub fn or_quick(self) -> Goldens {
        if !self.is_empty() {
            return self;
        }
        let GoldenFile { provenance, subject, cases } = quick();
        let path = PathBuf::from(QUICK_RECORDING);
        let recording = Recording { name: QUICK_RECORDING.to_owned(), provenance, subject };
        let cases = cases.into_iter().map(|case| (case, path.clone())).collect();
        Goldens {
            folders: vec![Folder { path, recordings: vec![(recording, cases)], whole: true, deviations: Ok(None) }],
            unreadable: Vec::new(),
        }
    }

    /// Reads the golden files of `paths`; a folder stands for all files below it.
    pub fn read(paths: &[PathBuf]) -> Goldens {
        let mut goldens = Goldens::default();
        let mut by_folder: BTreeMap<PathBuf, Vec<(PathBuf, GoldenFile)>> = BTreeMap::new();
        let found = find(paths);
        let folders: BTreeSet<PathBuf> = found.iter().map(|(path, _)| folder_of(path).to_owned()).collect();
        let lists = || folders.into_par_iter().map(|folder| (deviations(&folder), folder)).collect::<Vec<_>>();
        let (loaded, lists) = rayon::join(|| load_found(found), lists);
        for (path, file) in loaded {
            match file {
                Ok(file) => by_folder.entry(folder_of(&path).to_owned()).or_default().push((path, file)),
                // Where it is the file that cannot be read, the report names it already.
                Err(GoldenError::Io { path: other, reason }) if other == path => {
                    goldens.unreadable.push((path, reason))
                }
                Err(error) => goldens.unreadable.push((path, error.to_string())),
            }
        }
        for (deviations, path) in lists {
            if let Some(files) = by_folder.remove(&path) {
                goldens.add_folder(path, files, deviations);
            }
        }
        goldens
    }

    fn add_folder(&mut self, path: PathBuf, files: Vec<(PathBuf, GoldenFile)>, deviations: Deviations) {
        let whole = golden_files(&path) == files.len();
        let name = self.name(&path);
        let mut recordings: Vec<(Recording, Vec<_>)> = Vec::new();
        for (file, GoldenFile { provenance, subject, cases }) in files {
            let cases = cases.into_iter().map(|case| (case, file.clone()));
            let same = |recording: &Recording| recording.provenance == provenance && recording.subject == subject;
            match recordings.iter_mut().find(|(recording, _)| same(recording)) {
                Some((_, other)) => other.extend(cases),
                None => {
                    let number = recordings.len() + 1;
                    let name = if number == 1 { name.clone() } else { format!("{name}#{number}") };
                    recordings.push((Recording { name, provenance, subject }, cases.collect()));
                }
            }
        }
        self.folders.push(Folder { path, recordings, whole, deviations });
    }

    /// The folder's own name, or its path where another has that name.
    fn name(&self, path: &Path) -> String {
        let absolute = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let own = absolute.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
        let mut taken = self.folders.iter().flat_map(|folder| &folder.recordings);
        let is_taken = taken.any(|(recording, _)| recording.name == own);
        if is_taken { path.to_string_lossy().into_owned() } else { own.into_owned() }
    }

    /// Whether there was nothing to read.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.unreadable.is_empty()
    }

    /// The files that cannot be read, and why.
    pub fn unreadable(&self) -> &[(PathBuf, String)] {
        &self.unreadable
    }

    /// Each recording, with its cases that the options mean.
    pub fn recorded(self, options: &SelectionOptions) -> Vec<(Recording, Vec<RecordedCase>)> {
        let recordings = self.folders.into_iter().flat_map(|folder| folder.recordings);
        let picked = |cases: Vec<(RecordedCase, PathBuf)>| {
            cases.into_iter().map(|(recorded, _)| recorded).filter(|recorded| options.picks(&recorded.case)).collect()
        };
        recordings.map(|(recording, cases)| (recording, picked(cases))).collect()
    }

    /// Every case that was recorded.
    pub fn cases(&self) -> impl Iterator<Item = &Case> + Clone {
        self.folders.iter().flat_map(Folder::cases)
    }

    /// Every case that was recorded, with the name of its recording.
    pub fn named_cases(&self) -> impl Iterator<Item = (&str, &Case)> {
        let recordings = self.folders.iter().flat_map(|folder| &folder.recordings);
        recordings.flat_map(|(recording, cases)| {
            cases.iter().map(move |(recorded, _)| (recording.name.as_str(), &recorded.case))
        })
    }

    /// Judges the cases that the options mean, and adds the verdicts to the report. Adds the lists of deviations to those
    /// that are given.
    pub fn judge(self, report: &mut Report, options: &SelectionOptions, lists: &mut Vec<Expectations>) {
        let progress = Progress::new("recorded cases", self.cases().count());
        report.unreadable.extend(self.unreadable);
        let mut done = 0;
        for mut folder in self.folders {
            match std::mem::replace(&mut folder.deviations, Ok(None)) {
                Ok(list) => lists.extend(list.map(|list| folder.expectations(list))),
                Err(why) => report.unreadable.push((folder.path.join(DEVIATIONS), why)),
            }
            for (recording, mut cases) in folder.recordings {
                done += cases.len();
                cases.retain(|(recorded, _)| options.picks(&recorded.case));
                let (recorded, paths): (Vec<RecordedCase>, Vec<PathBuf>) = cases.into_iter().unzip();
                let (provenance, subject) = (recording.provenance, recording.subject.clone());
                let file = GoldenFile { provenance, subject, cases: recorded };
                let known = |verdict: &Verdict| Some(lists.iter().find_map(|list| list.entry(verdict))?.reason.clone());
                let verdicts = verify(&recording.name, &file, &known);
                report.add_recording(recording, file.cases.into_iter().zip(paths).collect(), verdicts);
                progress.tell(done);
            }
        }
    }
}

impl Folder {
    fn cases(&self) -> impl Iterator<Item = &Case> + Clone {
        self.recordings.iter().flat_map(|(_, cases)| cases.iter().map(|(recorded, _)| &recorded.case))
    }

    /// A list of deviations that lies beside the files.
    fn expectations(&self, list: KnownList) -> Expectations {
        let recordings = self.recordings.iter().map(|(recording, _)| recording.name.clone()).collect();
        let universe = self.whole.then(|| self.cases().map(|case| case.name.clone()).collect());
        Expectations { list, path: self.path.join(DEVIATIONS), recordings: Some(recordings), universe }
    }
}

/// Reads the list of deviations in a folder.
fn deviations(folder: &Path) -> Deviations {
    let path = folder.join(DEVIATIONS);
    let list = path.exists().then(|| KnownList::load(&path)).transpose();
    list.map_err(|error| match error {
        KnownError::Io { reason, .. } => reason,
        error => error.to_string(),
    })
}

/// The number of golden files in a folder, without its subfolders.
fn golden_files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "safetensors")).count()
}

/// Reads the list given to `--known`, which speaks of every verdict on these cases.
///
/// # Errors
/// Wrong usage if it cannot be read or is no list.
pub(super) fn known<'a>(path: &Path, cases: impl Iterator<Item = &'a Case>) -> Result<Expectations, Stop> {
    Expectations::load(path, cases).map_err(|error| Stop::usage(format!("--known {}", placed(path, error))))
}

/// The error with its file, which some have already.
fn placed(path: &Path, error: KnownError) -> String {
    match error {
        KnownError::Io { .. } => error.to_string(),
        error => format!("{}: {error}", path.display()),
    }
}

/// What a hello says of the way in which its answers come about; `None` where it does not tell.
pub(super) fn provenance(device: &str) -> Option<Provenance> {
    let device = device.to_lowercase();
    let begins = |with: &[&str]| with.iter().any(|name| device.starts_with(name));
    if begins(&["cpu"]) {
        Some(Provenance::Cpu)
    } else if begins(&["cuda", "rocm", "hip", "mps", "xpu", "tpu", "npu"]) {
        Some(Provenance::Device)
    } else if begins(&["emulated"]) {
        Some(Provenance::Emulated)
    } else {
        None
    }
}
