//! When a subject is not asked any more.

use std::collections::BTreeMap;

use super::Fault;

/// Faults in one operation before the rest of its cases are not run.
const FAULTS: usize = 5;
/// Operations it may die on in a row.
const DEATHS: usize = 3;

/// What is remembered of a subject's faults, whichever of its processes they were.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// By operation: how many cases ended in a fault, and the last fault.
    faults: BTreeMap<String, (usize, Fault)>,
    /// The operations it died on since its last answer.
    deaths: Vec<String>,
    gave_up: Option<Fault>,
}

impl Patience {
    /// Why no case is run any more.
    pub fn gave_up(&self) -> Option<&Fault> {
        self.gave_up.as_ref()
    }

    /// Why a case of `operation` is not run.
    pub fn refuses(&self, operation: &str) -> Option<Fault> {
        if let Some(fault) = &self.gave_up {
            return Some(fault.clone());
        }
        let (count, last) = self.faults.get(operation)?;
        (*count >= FAULTS)
            .then(|| not_run(format!("{FAULTS} cases of {operation} ended in a fault; the last: {last}"), last))
    }

    /// A case of `operation` was run to its end.
    pub fn answered(&mut self) {
        self.deaths.clear();
    }

    /// A case of `operation` ended in `fault`.
    pub fn failed(&mut self, operation: &str, fault: &Fault) {
        let count = self.faults.get(operation).map_or(0, |(count, _)| *count);
        let fault = &without_stderr(fault.clone());
        self.faults.insert(operation.to_owned(), (count + 1, fault.clone()));
        match fault {
            // It is alive: this is an answer, if a wrong one.
            Fault::WrongTensors(_) => return self.deaths.clear(),
            Fault::NotStarted { .. } | Fault::NoHello(_) => {
                self.gave_up.get_or_insert_with(|| not_run(format!("it does not start any more; {fault}"), fault));
            }
            _ => (),
        }
        if !self.deaths.iter().any(|name| name == operation) {
            self.deaths.push(operation.to_owned());
        }
        if self.deaths.len() >= DEATHS {
            let reason = format!("it died on {} in a row; the last: {fault}", self.deaths.join(", "));
            self.gave_up.get_or_insert_with(|| not_run(reason, fault));
        }
    }
}

/// The fault alone: the end of standard error is told once, by the case that it belongs to.
fn without_stderr(mut fault: Fault) -> Fault {
    match &mut fault {
        Fault::Exited { stderr, .. } | Fault::TimedOut { stderr, .. } | Fault::Malformed { stderr, .. } => {
            stderr.clear()
        }
        Fault::NoHello(last) => **last = without_stderr((**last).clone()),
        _ => (),
    }
    fault
}

fn not_run(reason: String, fault: &Fault) -> Fault {
    Fault::NotRun { reason, timeout: fault.is_timeout() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn panicked() -> Fault {
        Fault::Panicked("oops".into())
    }

    #[test]
    fn five_faults_in_an_operation_end_that_operation_alone() {
        let mut patience = Patience::default();
        let timed_out = Fault::TimedOut { limit: Duration::from_secs(1), stderr: "last words".into() };
        for _ in 0..5 {
            assert_eq!(patience.refuses("layer_norm"), None);
            patience.failed("layer_norm", &timed_out);
            patience.answered();
        }
        let refusal = patience.refuses("layer_norm").unwrap();
        assert!(refusal.is_timeout());
        assert_eq!(
            refusal.to_string(),
            "not run: 5 cases of layer_norm ended in a fault; the last: no answer within 1s"
        );
        assert_eq!(patience.refuses("group_norm"), None);
        assert_eq!(patience.gave_up(), None);
    }

    #[test]
    fn deaths_on_three_operations_in_a_row_end_everything() {
        let mut patience = Patience::default();
        for operation in ["batch_norm", "batch_norm", "layer_norm"] {
            patience.failed(operation, &panicked());
            assert_eq!(patience.gave_up(), None);
        }
        patience.failed("group_norm", &panicked());
        assert!(patience.refuses("rms_norm").is_some_and(|fault| !fault.is_timeout()));
    }

    #[test]
    fn an_answer_between_breaks_the_row() {
        let mut patience = Patience::default();
        for operation in ["batch_norm", "layer_norm", "group_norm", "rms_norm"] {
            patience.failed(operation, &panicked());
            patience.answered();
        }
        for operation in ["batch_norm", "layer_norm", "group_norm", "rms_norm"] {
            patience.failed(operation, &Fault::WrongTensors(crate::case::WrongTensors(String::new())));
        }
        assert_eq!(patience.gave_up(), None);
    }

    #[test]
    fn a_program_that_does_not_start_is_given_up_at_once() {
        let mut patience = Patience::default();
        patience.failed("layer_norm", &Fault::NoHello(Box::new(panicked())));
        assert!(patience.gave_up().is_some());
    }
}
