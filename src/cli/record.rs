//! `normative record`: a subject's answers as golden files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::goldens::provenance;
use super::options::{RunOptions, SelectionOptions, SubjectOptions};
use super::output::print;
use super::progress::Progress;
use super::{Stop, ask};
use crate::case::{Answer, Case, catalogue};
use crate::conformance::title;
use crate::golden::{GoldenError, GoldenFile, Provenance, RecordedCase, WriteMode, unpack, write_recording};
use crate::report::{Status, count};
use crate::subject::CaseRun;

/// Writes a subject's answers to the catalogue as golden files.
///
/// Only adds, unless --replace is given. A case is recorded if each of its steps was answered or refused; the others are
/// counted, and a fault in one of them is exit status 1.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("asked").required(true).args(["subject", "builtin", "unpack"]))]
pub(super) struct Arguments {
    #[command(flatten)]
    subject: SubjectOptions,
    /// Takes the tars of a run on another machine (`tools/device_run`), or folders of them, instead of asking anyone:
    /// each recording becomes a folder of --into.
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["provenance", "jobs", "shard", "only", "skip", "flag"])]
    unpack: Vec<PathBuf>,
    /// The folder of the recording.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Removes what the folder has of other cases and answers.
    #[arg(long)]
    replace: bool,
    /// How the answers come about [default: what the subject's device tells: cpu or device].
    #[arg(long, value_enum, value_name = "HOW")]
    provenance: Option<ProvenanceName>,
    #[command(flatten)]
    run: RunOptions,
    #[command(flatten)]
    selection: SelectionOptions,
}

const EXAMPLES: &str = "\
Examples:
  normative record --subject 'python3 adapters/python/pytorch.py' --into golden/pytorch-2.15-cpu
  normative record --builtin two_pass --into recorded/two_pass --only 'layer_norm-*'
  normative record --unpack OUT --into golden";

/// The names of [`Provenance`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProvenanceName {
    Cpu,
    Device,
    Simulated,
    Emulated,
    Interpreted,
}

/// # Errors
/// Wrong usage; a subject that does not start; a recording that cannot be read or written.
pub(super) fn run(arguments: &Arguments) -> Result<Status, Stop> {
    let Arguments { subject, into, selection, .. } = arguments;
    if !arguments.unpack.is_empty() {
        return unpack_run(arguments);
    }
    if let (true, Some(option)) = (arguments.replace, selection.restricts()) {
        let message = format!("--replace removes the cases that {option} leaves out; give one of them alone");
        return Err(Stop::usage(message));
    }
    let asked = subject.asked().ok_or_else(|| Stop::usage("give --subject COMMAND or --builtin NAME"))?;
    let cases = selection.pick(catalogue::cases().iter())?;
    let mut pool = ask::start(&asked, &arguments.run).map_err(|fault| Stop::incomplete(fault.to_string()))?;
    let hello = pool.hello().clone();
    let cases = ask::spoken(&pool, &cases);
    let provenance =
        arguments.provenance.map(Provenance::from).or_else(|| provenance(&hello.device)).ok_or_else(|| {
            let device = &hello.device;
            Stop::usage(format!(
                "the subject's device is {device:?}, which does not tell how its answers come about; give --provenance"
            ))
        })?;

    let runs = {
        let progress = Progress::new("cases", cases.len());
        pool.run(&cases, &|done| progress.tell(done))
    };
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    let mut faults = Vec::new();
    let mut recorded = Vec::new();
    for (case, run) in cases.iter().zip(&runs) {
        match answers(case, run) {
            Ok(answers) => recorded.push(RecordedCase { case: (*case).clone(), answers }),
            Err(NoRecord::NotAsked(why)) => *left_out.entry(why).or_default() += 1,
            Err(NoRecord::Fault(why)) => faults.push(format!("{}: {why}", case.name)),
        }
    }

    let mut lines: Vec<String> =
        left_out.iter().map(|(why, n)| format!("{} not recorded: {why}", count(*n, "case"))).collect();
    lines.extend(faults.iter().map(|fault| format!("not recorded: {fault}")));
    let gave_up = pool.gave_up();
    let mode = if arguments.replace { WriteMode::Replace } else { WriteMode::Add };
    let status = if recorded.is_empty() {
        lines.push("nothing was recorded".to_owned());
        Status::Incomplete
    } else if let (Some(fault), true) = (&gave_up, arguments.replace) {
        lines.push(format!("nothing was replaced: the subject could not be run to the end: {fault}"));
        Status::Incomplete
    } else {
        let number = recorded.len();
        let file = GoldenFile { provenance, subject: hello.clone(), cases: recorded };
        let files = write_recording(into, &file, mode).map_err(stop)?;
        let who = title(&hello);
        let cases = count(number, "case");
        lines.push(match files.len() {
            0 => format!("{cases} of {who}: all in {} already, nothing was written", into.display()),
            files => format!(
                "{cases} of {who}, provenance {}: {} written in {}",
                provenance.name(),
                count(files, "file"),
                into.display()
            ),
        });
        lines.push(format!("Next: normative verify {}", shell_words::quote(&into.to_string_lossy())));
        match gave_up {
            Some(_) => Status::Incomplete,
            None if !faults.is_empty() => Status::NotConformant,
            None => Status::Conformant,
        }
    };
    print(&format!("{}\n", lines.join("\n")))?;
    Ok(status)
}

/// Writes the recordings of a run on another machine.
fn unpack_run(arguments: &Arguments) -> Result<Status, Stop> {
    let mode = if arguments.replace { WriteMode::Replace } else { WriteMode::Add };
    for recording in unpack(&arguments.unpack, &arguments.into, mode).map_err(stop)? {
        let (cases, files) = (count(recording.cases, "case"), count(recording.written, "file"));
        let (who, how, folder) = (title(&recording.subject), recording.provenance.name(), recording.folder.display());
        print(&format!("{cases} of {who}, provenance {how}: {files} written in {folder}\n"))?;
    }
    print(&format!("Next: normative verify {}\n", shell_words::quote(&arguments.into.to_string_lossy())))?;
    Ok(Status::Conformant)
}

/// Why a case cannot be recorded.
enum NoRecord {
    /// The subject does not claim what the case needs.
    NotAsked(String),
    /// There is no answer.
    Fault(String),
}

/// The answers to every step of a case.
fn answers(case: &Case, run: &CaseRun) -> Result<Vec<Answer>, NoRecord> {
    if let Some(skipped) = &run.skipped {
        return Err(NoRecord::NotAsked(skipped.to_string()));
    }
    let mut answers = Vec::new();
    for (_, answer) in &run.steps {
        match answer {
            Ok(Answer::Unsupported(why)) => {
                return Err(NoRecord::Fault(format!("it claims this case and then says that it cannot do it: {why}")));
            }
            Ok(answer) => answers.push(answer.clone()),
            Err(fault) => return Err(NoRecord::Fault(fault.to_string())),
        }
    }
    if answers.len() == case.steps.len() {
        Ok(answers)
    } else {
        Err(NoRecord::Fault(format!("{} of {} steps were answered", answers.len(), case.steps.len())))
    }
}

/// What a recording that cannot be written comes to.
fn stop(error: GoldenError) -> Stop {
    let advice = match &error {
        GoldenError::Recorded { .. } | GoldenError::Contradictory { .. } => {
            "; record into another folder, or this one anew with --replace"
        }
        _ => "",
    };
    let status = match &error {
        GoldenError::Io { .. } | GoldenError::TooLarge { .. } => Status::Incomplete,
        _ => Status::BadGolden,
    };
    Stop { status, message: format!("{error}{advice}") }
}

impl From<ProvenanceName> for Provenance {
    fn from(name: ProvenanceName) -> Provenance {
        match name {
            ProvenanceName::Cpu => Provenance::Cpu,
            ProvenanceName::Device => Provenance::Device,
            ProvenanceName::Simulated => Provenance::Simulated,
            ProvenanceName::Emulated => Provenance::Emulated,
            ProvenanceName::Interpreted => Provenance::Interpreted,
        }
    }
}
