//! Recordings on disk: a folder `golden/<recording>/` of files `<operation>.<NN>.safetensors`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::file::{GoldenError, GoldenFile, Place, RecordedCase};

/// The most bytes that a golden file takes: 4 MiB.
pub const FILE_LIMIT: usize = 4 << 20;

const EXTENSION: &str = "safetensors";

/// What [`write_recording`] does with what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Files that are there stay as they are, and new cases go into new files.
    Add,
    /// Afterwards the folder has the cases that were given, and no others.
    Replace,
}

/// Reads golden files. A folder stands for all `*.safetensors` files in it and in its subfolders, in the order of
/// their names, without subfolders called `examples`. A file that several paths lead to is read once.
///
/// An error takes the file's place in the list: those of [`GoldenFile::read`], [`GoldenError::Io`] for a path that
/// cannot be read, and [`GoldenError::Contradictory`] for a file with a case that an earlier file of its folder has.
pub fn load(paths: &[PathBuf]) -> Vec<(PathBuf, Result<GoldenFile, GoldenError>)> {
    load_found(find(paths))
}

/// A golden file to be read, or what keeps a path from being searched.
pub(crate) type Found = (PathBuf, Result<(), GoldenError>);

/// The golden files of `paths`, in the order in which [`load`] gives them back.
pub(crate) fn find(paths: &[PathBuf]) -> Vec<Found> {
    let mut found = Vec::new();
    for path in paths {
        walk(path, &mut found);
    }
    let mut seen = HashSet::new();
    found.retain(|(path, _)| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    found
}

/// Reads what was found, on all cores.
pub(crate) fn load_found(found: Vec<Found>) -> Vec<(PathBuf, Result<GoldenFile, GoldenError>)> {
    let read = |(path, found): Found| {
        let file = found.and_then(|()| read_file(&path));
        (path, file)
    };
    let mut files: Vec<_> = found.into_par_iter().map(read).collect();
    refuse_duplicates(&mut files);
    files
}

/// The folder that a file lies in.
pub(crate) fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes a recording into the folder `dir`, split by operation into files of at most [`FILE_LIMIT`] bytes, in the
/// order of the cases. The same cases give the same bytes. Returns the paths of the files written.
///
/// # Errors
/// Those of [`GoldenFile::write`], also where two of the cases have one name; [`GoldenError::TooLarge`] for a case that no file can hold; [`GoldenError::Io`] if
/// the folder cannot be read or written. With [`WriteMode::Add`] also those of reading what is there;
/// [`GoldenError::Recorded`] if a case is there with another content, and [`GoldenError::Contradictory`] if what is
/// there was recorded from another subject.
pub fn write_recording(dir: &Path, recording: &GoldenFile, mode: WriteMode) -> Result<Vec<PathBuf>, GoldenError> {
    fs::create_dir_all(dir).map_err(|error| io_error(dir, error))?;
    let present = present_files(dir)?;
    let mut recorded = match mode {
        WriteMode::Add => recorded_cases(dir, recording)?,
        WriteMode::Replace => HashMap::new(),
    };
    let mut names = HashSet::new();
    let mut by_operation: BTreeMap<&str, Vec<Alone<'_>>> = BTreeMap::new();
    for case in &recording.cases {
        let name = &case.case.name;
        if !names.insert(name) {
            return Err(Place::case(name).contradictory("the recording has two cases of this name"));
        }
        let bytes = of_cases(recording, vec![case.clone()]).write()?;
        match recorded.remove(name) {
            Some((path, other)) if other != bytes => return Err(GoldenError::Recorded { case: name.clone(), path }),
            Some(_) => {}
            None => by_operation.entry(case.case.operation().name()).or_default().push((case, bytes.len())),
        }
    }
    let mut files = Vec::new();
    for (operation, cases) in by_operation {
        let taken = present.iter().filter(|file| mode == WriteMode::Add && file.operation == operation);
        let first = taken.map(|file| file.number + 1).max().unwrap_or(0);
        for (number, bytes) in (first..).zip(split(recording, &cases)?) {
            files.push((dir.join(format!("{operation}.{number:02}.{EXTENSION}")), bytes));
        }
    }
    // All bytes are made before the first is written: a case that cannot be written leaves the folder as it was.
    files.iter().try_for_each(|(path, bytes)| write_file(path, bytes))?;
    let written: Vec<PathBuf> = files.into_iter().map(|(path, _)| path).collect();
    for file in present.iter().filter(|file| mode == WriteMode::Replace && !written.contains(&file.path)) {
        fs::remove_file(&file.path).map_err(|error| io_error(&file.path, error))?;
    }
    Ok(written)
}

/// A case, and the bytes that a file of it alone takes.
type Alone<'a> = (&'a RecordedCase, usize);

/// The golden files under `path`, or why it cannot be walked.
fn walk(path: &Path, found: &mut Vec<Found>) {
    if !path.is_dir() {
        found.push((path.to_owned(), Ok(())));
        return;
    }
    let entries = fs::read_dir(path).and_then(|entries| {
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|entry| entry.file_name());
        Ok(entries)
    });
    match entries {
        Err(error) => found.push((path.to_owned(), Err(io_error(path, error)))),
        Ok(entries) => {
            for entry in entries {
                let path = entry.path();
                // A link to a folder is not followed: it could lead back here.
                let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let golden = path.extension().is_some_and(|e| e == EXTENSION) && !path.is_dir();
                if golden || (folder && entry.file_name() != "examples") {
                    walk(&path, found);
                }
            }
        }
    }
}

fn read_file(path: &Path) -> Result<GoldenFile, GoldenError> {
    GoldenFile::read(&fs::read(path).map_err(|error| io_error(path, error))?)
}

fn refuse_duplicates(files: &mut [(PathBuf, Result<GoldenFile, GoldenError>)]) {
    let mut seen: HashMap<(&Path, &str), &Path> = HashMap::new();
    let mut refused = Vec::new();
    for (index, (path, result)) in files.iter().enumerate() {
        let Ok(file) = result else { continue };
        let folder = folder_of(path);
        let names = || file.cases.iter().map(|recorded| recorded.case.name.as_str());
        match names().find_map(|name| Some((name, seen.get(&(folder, name))?))) {
            Some((name, other)) => {
                let reason = format!("the recording has this case in {} already", other.display());
                refused.push((index, Place::case(name).contradictory(reason)));
            }
            None => seen.extend(names().map(|name| ((folder, name), path.as_path()))),
        }
    }
    for (index, error) in refused {
        files[index].1 = Err(error);
    }
}

/// A file of the recording's naming scheme.
struct Present {
    operation: String,
    number: u32,
    path: PathBuf,
}

fn present_files(dir: &Path) -> Result<Vec<Present>, GoldenError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| io_error(dir, error))? {
        let path = entry.map_err(|error| io_error(dir, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let [operation, number, EXTENSION] = name.split('.').collect::<Vec<_>>()[..] else { continue };
        let digits = (2..=6).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        if let Some(number) = number.parse().ok().filter(|_| digits) {
            files.push(Present { operation: operation.to_owned(), number, path });
        }
    }
    Ok(files)
}

/// The cases in `dir` by name: the file of each, and the bytes of a file of it alone in the terms of `recording`.
fn recorded_cases(dir: &Path, recording: &GoldenFile) -> Result<HashMap<String, (PathBuf, Vec<u8>)>, GoldenError> {
    let mut recorded = HashMap::new();
    for (path, file) in load(&[dir.to_owned()]).into_iter().filter(|(path, _)| path.parent() == Some(dir)) {
        let file = file?;
        let who = |file: &GoldenFile| {
            let subject = &file.subject;
            (file.provenance, subject.name.clone(), subject.version.clone(), subject.device.clone())
        };
        if who(&file) != who(recording) {
            let reason = format!(
                "{} was recorded from {} {} ({}), not from {} {} ({})",
                path.display(),
                file.subject.name,
                file.subject.version,
                file.subject.device,
                recording.subject.name,
                recording.subject.version,
                recording.subject.device,
            );
            return Err(Place::default().contradictory(reason));
        }
        for case in file.cases {
            let name = case.case.name.clone();
            recorded.insert(name, (path.clone(), of_cases(recording, vec![case]).write()?));
        }
    }
    Ok(recorded)
}

/// The files that hold `cases`, each filled as far as it goes.
fn split(recording: &GoldenFile, cases: &[Alone<'_>]) -> Result<Vec<Vec<u8>>, GoldenError> {
    let empty = of_cases(recording, Vec::new()).write()?.len();
    let mut files: Vec<Vec<RecordedCase>> = Vec::new();
    let mut size = FILE_LIMIT;
    for &(case, alone) in cases {
        if alone > FILE_LIMIT {
            return Err(GoldenError::TooLarge { case: case.case.name.clone(), size: alone, limit: FILE_LIMIT });
        }
        // Among others a case takes no more than alone, but for a comma, padding, and two longer offsets a tensor.
        let more = alone - empty + 16 + 16 * count_tensors(case);
        if size + more > FILE_LIMIT {
            files.push(Vec::new());
            size = empty;
        }
        size += more;
        files.last_mut().expect("the first case starts a file").push(case.clone());
    }
    files.into_iter().map(|cases| of_cases(recording, cases).write()).collect()
}

fn count_tensors(recorded: &RecordedCase) -> usize {
    let sent = recorded.case.steps.iter().map(|step| step.tensors.len() + step.operation.signature().state.len());
    let answered = recorded.answers.iter().map(|answer| answer.tensors().map_or(0, |tensors| tensors.len()));
    sent.chain(answered).sum()
}

fn of_cases(recording: &GoldenFile, cases: Vec<RecordedCase>) -> GoldenFile {
    GoldenFile { provenance: recording.provenance, subject: recording.subject.clone(), cases }
}

/// Writes a file whole or not at all.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), GoldenError> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path)).map_err(|error| io_error(path, error))
}

pub(super) fn io_error(path: &Path, error: std::io::Error) -> GoldenError {
    GoldenError::Io { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::file::Provenance;
    use super::*;
    use crate::arithmetic::DataType;
    use crate::case::{Answer, Case, Level, Step};
    use crate::tensor::{Tensor, Tensors};

    fn recorded(name: &str, operation: &str, elements: usize) -> RecordedCase {
        let operation = serde_json::from_str(operation).unwrap();
        let tensor = |value| Tensor::rounded(DataType::F64, &[1, elements], vec![value; elements]);
        let call = Step::forward(operation, Tensors::from([("input".to_owned(), tensor(1.0))]));
        let case = Case {
            name: name.to_owned(),
            comment: String::new(),
            level: Level::Required,
            flags: Vec::new(),
            steps: vec![call],
        };
        let answer = Answer::Tensors(Tensors::from([("output".to_owned(), tensor(0.0))]));
        RecordedCase { case, answers: vec![answer] }
    }

    fn layer_norm(name: &str, elements: usize) -> RecordedCase {
        recorded(name, &format!(r#"{{"name": "layer_norm", "normalized_shape": [{elements}], "eps": 1e-5}}"#), elements)
    }

    fn group_norm(name: &str) -> RecordedCase {
        recorded(name, r#"{"name": "group_norm", "num_groups": 1, "eps": 1e-5}"#, 2)
    }

    fn recording(cases: Vec<RecordedCase>) -> GoldenFile {
        let subject = serde_json::from_str(r#"{"name": "s", "operations": [], "dtypes": []}"#).unwrap();
        GoldenFile { provenance: Provenance::Cpu, subject, cases }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn cases(dir: &Path) -> Vec<String> {
        let files = load(&[dir.to_owned()]).into_iter().map(|(_, file)| file.unwrap());
        files.flat_map(|file| file.cases).map(|recorded| recorded.case.name).collect()
    }

    #[test]
    fn a_recording_is_split_by_operation_and_size() {
        let dir = tempfile::tempdir().unwrap();
        // Two of these fill a file but for some kilobytes.
        let elements = FILE_LIMIT / 32 - 200;
        let mut all: Vec<RecordedCase> = (0..5).map(|i| layer_norm(&format!("large-{i}"), elements)).collect();
        all.insert(2, group_norm("small"));
        let written = write_recording(dir.path(), &recording(all.clone()), WriteMode::Add).unwrap();
        assert_eq!(
            names(dir.path()),
            [
                "group_norm.00.safetensors",
                "layer_norm.00.safetensors",
                "layer_norm.01.safetensors",
                "layer_norm.02.safetensors"
            ]
        );
        assert_eq!(written.len(), 4);
        assert!(written.iter().all(|path| fs::metadata(path).unwrap().len() <= FILE_LIMIT as u64));
        assert_eq!(cases(dir.path()), ["small", "large-0", "large-1", "large-2", "large-3", "large-4"]);
        let bytes = || written.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
        let before = bytes();
        write_recording(dir.path(), &recording(all), WriteMode::Replace).unwrap();
        assert!(bytes() == before);
        let too_large = recording(vec![layer_norm("huge", FILE_LIMIT / 16)]);
        let error = write_recording(dir.path(), &too_large, WriteMode::Add).unwrap_err();
        assert!(matches!(error, GoldenError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn many_small_cases_fit_as_they_were_estimated() {
        let dir = tempfile::tempdir().unwrap();
        let all = (0..600).map(|i| layer_norm(&format!("case-{i}"), 512)).collect();
        let written = write_recording(dir.path(), &recording(all), WriteMode::Add).unwrap();
        let sizes: Vec<u64> = written.iter().map(|path| fs::metadata(path).unwrap().len()).collect();
        assert!(
            sizes.len() == 2 && sizes[0] <= FILE_LIMIT as u64 && sizes[0] > FILE_LIMIT as u64 * 98 / 100,
            "{sizes:?}"
        );
    }

    #[test]
    fn adding_keeps_what_is_there_and_replacing_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::write(dir.join("deviations.toml"), "").unwrap();
        write_recording(dir, &recording(vec![layer_norm("a", 2)]), WriteMode::Add).unwrap();
        let more = recording(vec![layer_norm("a", 2), layer_norm("b", 2)]);
        assert_eq!(write_recording(dir, &more, WriteMode::Add).unwrap(), [dir.join("layer_norm.01.safetensors")]);
        assert_eq!(cases(dir), ["a", "b"]);
        assert!(write_recording(dir, &more, WriteMode::Add).unwrap().is_empty());

        let error = write_recording(dir, &recording(vec![layer_norm("b", 3)]), WriteMode::Add).unwrap_err();
        let expected = GoldenError::Recorded { case: "b".to_owned(), path: dir.join("layer_norm.01.safetensors") };
        assert_eq!(error, expected);
        let mut other = recording(vec![layer_norm("c", 2)]);
        other.subject.version = "2".to_owned();
        let error = write_recording(dir, &other, WriteMode::Add).unwrap_err();
        assert!(matches!(error, GoldenError::Contradictory { .. }), "{error}");
        let twice = recording(vec![layer_norm("c", 2), layer_norm("c", 2)]);
        assert!(matches!(write_recording(dir, &twice, WriteMode::Add), Err(GoldenError::Contradictory { .. })));

        // Another recording below this one is none of its business.
        write_recording(&dir.join("other"), &other, WriteMode::Add).unwrap();
        write_recording(dir, &recording(vec![group_norm("b")]), WriteMode::Replace).unwrap();
        assert_eq!(names(dir), ["deviations.toml", "group_norm.00.safetensors", "other"]);
        assert_eq!(write_recording(dir, &recording(vec![layer_norm("c", 2)]), WriteMode::Add).unwrap().len(), 1);
    }

    #[test]
    fn a_case_twice_in_a_folder_is_contradictory_and_in_two_folders_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = recording(vec![group_norm("a")]).write().unwrap();
        for path in ["one/x.safetensors", "one/y.safetensors", "two/x.safetensors", "examples/x.safetensors"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &bytes).unwrap();
        }
        fs::write(dir.path().join("two/notes.txt"), "not read").unwrap();
        let missing = dir.path().join("missing");
        let overlapping = [dir.path().to_owned(), dir.path().join("two"), missing.clone()];
        let files = load(&overlapping);
        let paths: Vec<&Path> = files.iter().map(|(path, _)| path.strip_prefix(dir.path()).unwrap()).collect();
        assert_eq!(paths, ["one/x.safetensors", "one/y.safetensors", "two/x.safetensors", "missing"].map(Path::new));
        assert!(files[0].1.is_ok() && files[2].1.is_ok());
        let message = files[1].1.as_ref().unwrap_err().to_string();
        assert!(message.starts_with("contradictory: case a: the recording has this case in"), "{message}");
        assert!(message.contains("x.safetensors already"), "{message}");
        let message = files[3].1.as_ref().unwrap_err().to_string();
        assert!(message.contains(missing.to_str().unwrap()), "{message}");
    }
}
