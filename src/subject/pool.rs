//! Several subjects of one kind that share the work, and the patience with them.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::patience::Patience;
use super::{Fault, Hello, Skipped, Subject};
use crate::case::{Answer, Case, Request, check_answer};

/// What became of a case.
#[derive(Clone, Debug)]
pub struct CaseRun {
    /// Each step that was asked and its answer, in order; a fault or an [`Answer::Unsupported`] is the last.
    pub steps: Vec<(Request, Result<Answer, Fault>)>,
    /// Why the case was not sent: the one step is then the first, with [`Answer::Unsupported`].
    ///
    /// Where this is `None`, an `Unsupported` is the subject's own, about something that it claimed.
    pub skipped: Option<Skipped>,
    /// Whether the case was not run because the subject does not start any more, or died too often, or because the pool
    /// was told to stop: it gets no verdict.
    pub gave_up: bool,
}

/// Asked before each case, whether no more are to be run.
type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

/// Subjects of one kind that share cases out among themselves.
///
/// The rules for giving up hold for all of them together: five faults in one operation and the rest of its cases are
/// not run; three hellos in a row that fail, or deaths on three operations in a row, and no case is run any more.
/// With one subject, which cases these are depends on nothing but the subject.
pub struct Pool<'a> {
    subjects: Vec<Box<dyn Subject + 'a>>,
    patience: Mutex<Patience>,
    stop: Option<Stop>,
}

impl<'a> Pool<'a> {
    /// A pool of one.
    pub fn of(subject: Box<dyn Subject + 'a>) -> Pool<'a> {
        Pool::sharing(vec![subject])
    }

    /// A pool of these, which are of one kind.
    ///
    /// # Panics
    /// If there are none.
    pub fn sharing(subjects: Vec<Box<dyn Subject + 'a>>) -> Pool<'a> {
        assert!(!subjects.is_empty(), "a pool has a subject");
        Pool { subjects, patience: Mutex::default(), stop: None }
    }

    /// `jobs` subjects, made at the same time.
    ///
    /// # Errors
    /// The first fault of `make`, if it fails.
    pub fn start(
        jobs: NonZeroUsize,
        make: &(dyn Fn() -> Result<Box<dyn Subject + 'a>, Fault> + Sync),
    ) -> Result<Pool<'a>, Fault> {
        let subjects: Result<Vec<_>, Fault> = thread::scope(|scope| {
            let started: Vec<_> = (0..jobs.get()).map(|_| scope.spawn(make)).collect();
            started.into_iter().map(join).collect()
        });
        Ok(Pool { subjects: subjects?, patience: Mutex::default(), stop: None })
    }

    /// The hello of the first subject.
    pub fn hello(&self) -> &Hello {
        self.subjects[0].hello()
    }

    /// From now on `stop` is asked before each case: once it says yes, the cases that are left are not run.
    pub fn stop_when(&mut self, stop: Arc<dyn Fn() -> bool + Send + Sync>) {
        self.stop = Some(stop);
    }

    /// Why no case is run any more, if the subject has been given up.
    pub fn gave_up(&self) -> Option<Fault> {
        self.patience.lock().expect("no thread panics with the lock").gave_up().cloned()
    }

    /// Runs `cases`, and gives back what became of each in the order of the list. `progress` gets the number of cases
    /// done so far, from any thread.
    pub fn run(&mut self, cases: &[&Case], progress: &(dyn Fn(usize) + Sync)) -> Vec<CaseRun> {
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (patience, stop) = (&self.patience, &self.stop);
        let work = |subject: &mut Box<dyn Subject + 'a>| {
            let mut runs = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(case) = cases.get(index) else { return runs };
                let run = if stop.as_ref().is_some_and(|stop| stop()) {
                    CaseRun { steps: Vec::new(), skipped: None, gave_up: true }
                } else {
                    run_case(subject.as_mut(), case, patience)
                };
                runs.push((index, run));
                progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            }
        };
        let mut runs: Vec<(usize, CaseRun)> = thread::scope(|scope| {
            let workers: Vec<_> = self.subjects.iter_mut().map(|subject| scope.spawn(|| work(subject))).collect();
            workers.into_iter().flat_map(join).collect()
        });
        runs.sort_by_key(|(index, _)| *index);
        runs.into_iter().map(|(_, run)| run).collect()
    }
}

/// Asks `subject` one question, whatever kind of subject it is.
///
/// # Errors
/// The subject's own fault; [`Fault::Panicked`] if it panicked; [`Fault::WrongTensors`] as [`check_answer`].
pub fn ask(subject: &mut dyn Subject, request: &Request) -> Result<Answer, Fault> {
    let answer = panic::catch_unwind(AssertUnwindSafe(|| subject.answer(request)))
        .unwrap_or_else(|payload| Err(Fault::Panicked(message(payload.as_ref()))))?;
    check_answer(&request.call, &answer)?;
    Ok(answer)
}

fn run_case(subject: &mut dyn Subject, case: &Case, patience: &Mutex<Patience>) -> CaseRun {
    let operation = case.operation().name();
    let lock = || patience.lock().expect("no thread panics with the lock");
    let first = case.request(0, None);
    if let Some(skipped) = case.steps.iter().find_map(|step| subject.hello().lacks(step)) {
        let answer = Answer::Unsupported(skipped.to_string());
        return CaseRun { steps: vec![(first, Ok(answer))], skipped: Some(skipped), gave_up: false };
    }
    let (refused, gave_up) = {
        let patience = lock();
        (patience.refuses(operation), patience.gave_up().is_some())
    };
    if let Some(fault) = refused {
        return CaseRun { steps: vec![(first, Err(fault))], skipped: None, gave_up };
    }
    let steps = run_steps(subject, case, first);
    match steps.last() {
        Some((_, Err(fault))) => lock().failed(operation, fault),
        _ => lock().answered(),
    }
    let gave_up = matches!(steps.last(), Some((_, Err(Fault::NotStarted { .. } | Fault::NoHello(_)))));
    CaseRun { steps, skipped: None, gave_up }
}

fn run_steps(subject: &mut dyn Subject, case: &Case, first: Request) -> Vec<(Request, Result<Answer, Fault>)> {
    let mut steps = Vec::new();
    let mut request = first;
    loop {
        let answer = ask(subject, &request);
        let next = match &answer {
            Ok(answer @ (Answer::Tensors(_) | Answer::Refused { .. })) if steps.len() + 1 < case.steps.len() => {
                Some(case.request(steps.len() + 1, Some((&request, answer))))
            }
            _ => None,
        };
        steps.push((request, answer));
        match next {
            Some(next) => request = next,
            None => return steps,
        }
    }
}

/// What the thread returned; a panic of the suite's own goes on.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("with no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::DataType;
    use crate::case::{Layout, Level, Step};
    use crate::operation::{Mode, Refusal, RefusalKind};
    use crate::tensor::{Tensor, Tensors};

    /// Adds 10 to the counter; refuses the second call, without saying what became of its state.
    struct Counter(Hello);

    impl Subject for Counter {
        fn hello(&self) -> &Hello {
            &self.0
        }

        fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
            if request.step == 1 {
                let refusal = Refusal { kind: RefusalKind::Other, message: "not now".into() };
                return Ok(Answer::Refused { refusal, state: Tensors::new() });
            }
            let mut tensors = request.call.tensors.clone();
            let input = tensors.remove("input").expect("an input");
            let counted = counter(request) + 10;
            tensors.insert("output".into(), input);
            tensors.insert("num_batches_tracked".into(), Tensor::counter(counted));
            Ok(Answer::Tensors(tensors))
        }
    }

    fn counter(request: &Request) -> i64 {
        request.call.tensors["num_batches_tracked"].as_counter().expect("a counter")
    }

    fn case() -> Case {
        let text = r#"{"name": "batch_norm", "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}"#;
        let step = Step {
            operation: serde_json::from_str(text).unwrap(),
            mode: Mode::Train,
            layout: Layout::default(),
            gradients: false,
            double_backward: false,
            tensors: Tensors::from([
                ("input".to_owned(), Tensor::rounded(DataType::F32, &[2, 1], vec![1.0, 2.0])),
                ("num_batches_tracked".to_owned(), Tensor::counter(1)),
            ]),
        };
        Case {
            name: "counts".into(),
            comment: String::new(),
            level: Level::Required,
            flags: Vec::new(),
            steps: vec![step; 3],
        }
    }

    #[test]
    fn a_pool_that_is_told_to_stop_runs_no_more_cases() {
        let text = r#"{"name": "counter", "operations": ["batch_norm"], "dtypes": ["F32"]}"#;
        let mut pool = Pool::of(Box::new(Counter(serde_json::from_str(text).unwrap())));
        let asked = AtomicUsize::new(0);
        pool.stop_when(Arc::new(move || asked.fetch_add(1, Ordering::Relaxed) >= 2));
        let case = case();
        let runs = pool.run(&[&case; 4], &|_| ());
        let ran: Vec<(bool, usize)> = runs.iter().map(|run| (run.gave_up, run.steps.len())).collect();
        assert_eq!(ran, [(false, 3), (false, 3), (true, 0), (true, 0)]);
    }

    #[test]
    fn a_sequence_is_fed_the_subjects_own_state() {
        let text = r#"{"name": "counter", "operations": ["batch_norm"], "dtypes": ["F32"]}"#;
        let mut pool = Pool::of(Box::new(Counter(serde_json::from_str(text).unwrap())));
        let done = Mutex::new(Vec::new());
        let case = case();
        let runs = pool.run(&[&case, &case], &|count| done.lock().unwrap().push(count));
        for run in runs {
            let counters: Vec<i64> = run.steps.iter().map(|(request, _)| counter(request)).collect();
            assert_eq!(counters, [1, 11, 11]);
        }
        assert_eq!(done.into_inner().unwrap(), [1, 2]);
    }
}
