//! Refusals: where exactly a layer starts to answer.
//!
//! ```text
//! values of a group          1           2
//! batch norm, training       refused     answered        N·L values of a channel
//! instance norm, training    refused     answered        L values of an instance
//! group norm                 refused     answered        N·(C/G)·L, as PyTorch counts: over the whole batch
//! all others, evaluation     answered    answered
//! ```
//! torch.nn.functional 2.15, `_verify_batch_size` and `_verify_spatial_size`. A refused call moves no statistic.

use super::Property;
use super::setting::Setting;
use super::trial::{Answers, Finding, Trial};
use crate::case::{Answer, Flag, Step};
use crate::operation::{Mode, Operation, RefusalKind};
use crate::tensor::Tensor;

pub(super) const PROPERTIES: &[Property] = &[Property {
    name: "boundary",
    sentence: "one value in a group is refused where a variance must be trained on, and two are answered",
    law: "n = 1 refused, n = 2 answered, in training; both answered in evaluation and by what trains on none",
    source: "torch.nn.functional, _verify_batch_size and _verify_spatial_size",
    flags: &[Flag::BatchOne, Flag::Refusal],
    scope: super::EVERY,
    trial: boundary,
}];

fn boundary(setting: &mut Setting) -> Option<Trial> {
    let name = setting.operation;
    let channels = 2;
    // One value in a group, and two: more positions, or more samples.
    let two = if setting.round.is_multiple_of(2) { [1, channels, 2] } else { [2, channels, 1] };
    let mut steps: Vec<(Step, bool)> = Vec::new();
    for (sizes, values) in [([1, channels, 1], 1), (two, 2)] {
        let mut step = setting.step_of(name, sizes);
        match &mut step.operation {
            Operation::SyncBatchNorm(norm) => norm.splits = vec![sizes[0]],
            Operation::GroupNorm(norm) => norm.num_groups = channels,
            _ => {}
        }
        let refused = match name {
            "instance_norm" => sizes[2] == 1,
            "batch_norm"
            | "sync_batch_norm"
            | "group_norm"
            | "spade"
            | "ghost_batch_norm"
            | "split_batch_norm"
            | "evo_norm_b0"
            | "evo_norm_b1"
            | "evo_norm_b2"
            | "batch_instance_norm"
            | "batch_channel_norm" => values == 1,
            _ => false,
        };
        steps.push((step.clone(), refused));
        if matches!(name, "batch_norm" | "sync_batch_norm" | "instance_norm") {
            // Without statistics evaluation is like training; with them it answers anything.
            steps.push((Step { mode: Mode::Eval, ..step.clone() }, refused));
            for (tensor, value) in [("running_mean", 0.5), ("running_var", 2.0)] {
                let stored = setting.tensor(&[channels], vec![value; channels]);
                step.tensors.insert(tensor.to_owned(), stored);
            }
            step.tensors.insert("num_batches_tracked".to_owned(), Tensor::counter(3));
            steps.push((Step { mode: Mode::Eval, ..step.clone() }, false));
            steps.push((step, refused));
        }
    }
    let (steps, refused): (Vec<Step>, Vec<bool>) = steps.into_iter().unzip();
    Some(Trial::of(steps, move |answers, finding| look(answers, &refused, finding)).with_refusals())
}

fn look(answers: &Answers<'_>, refused: &[bool], finding: &mut Finding) {
    for (chain, &refused) in refused.iter().enumerate() {
        let asked = answers.call(chain);
        let shape = asked.step.tensors["input"].shape();
        let mode = if asked.step.mode == Mode::Train { "training" } else { "evaluation" };
        let input = format!("an input {shape:?} in {mode}");
        match asked.answer {
            Answer::Refused { refusal, .. } if !refused => {
                finding.fail((chain, 0), format!("{input} is refused, and must be answered: {}", refusal.message));
            }
            Answer::Refused { refusal, .. } if refusal.kind != RefusalKind::TooFewValues => {
                let kind = refusal.kind.name();
                finding.fail((chain, 0), format!("{input} is refused for another reason ({kind}) than one value"));
            }
            Answer::Refused { state, .. } => {
                for (name, tensor) in state.iter().filter(|(name, _)| name.starts_with("running_")) {
                    if !asked.step.tensors.get(name).is_some_and(|sent| sent.same_bits(tensor)) {
                        finding.fail((chain, 0), format!("{input} is refused, and {name} has moved"));
                    }
                }
            }
            _ if refused => {
                finding.fail((chain, 0), format!("{input} is answered; one value has no variance: refuse it"));
            }
            _ => finding.ratio = finding.ratio.or(Some(0.0)),
        }
    }
}
