//! Floating-point facts: the same call gives the same answer.
//!
//! ```text
//! y(x) twice: the same bits        mode, where there is none: the same bits        layout: the same values
//! ```
//! A program whose order of summation differs from call to call, as with atomic additions (Goldberg 1991 on sums), is
//! within its bounds all the same: then the verdict is advisory.

use super::setting::Setting;
use super::trial::Trial;
use super::{EVERY, Property, Scope};
use crate::case::{Flag, Layout, LayoutFormat, Step};
use crate::operation::Mode;

pub(super) const PROPERTIES: &[Property] = &[
    Property {
        name: "determinism",
        sentence: "a call that is repeated gives the same bits, whatever was asked between",
        law: "y(x) = y(x) after y(x′)",
        source: "a layer is a function of its arguments and its state",
        flags: &[],
        scope: EVERY,
        trial: determinism,
    },
    Property {
        name: "mode-ignored",
        sentence: "an operation without modes answers the same in training and evaluation",
        law: "train(x) = eval(x)",
        source: "torch.nn.LayerNorm, GroupNorm, RMSNorm",
        flags: &[Flag::ModeIgnored],
        scope: Scope::Of(&[
            "layer_norm",
            "group_norm",
            "rms_norm",
            "local_response_norm",
            "cross_map_lrn",
            "normalize",
            "renorm",
            "weight_norm",
            "frozen_batch_norm",
            "conv_batch_norm_fold",
        ]),
        trial: mode_ignored,
    },
    Property {
        name: "layout",
        sentence: "the same values in another memory layout give the same answer",
        law: "y(x) = y(x in channels-last or strided memory)",
        source: "pytorch/pytorch#62594",
        flags: &[Flag::MemoryFormat],
        scope: EVERY,
        trial: layout,
    },
];

/// The first and the last of the calls must give the same bits.
fn repeated(steps: Vec<Step>, when: &'static str) -> Option<Trial> {
    let last = steps.len() - 1;
    Some(Trial::of(steps, move |answers, finding| {
        let (one, other) = (answers.call(0), answers.call(last));
        for name in one.answer.tensors().into_iter().flat_map(|tensors| tensors.keys()) {
            for (index, (was, is)) in one.balls(name).into_iter().zip(other.balls(name)).enumerate() {
                finding.same((last, 0), is, was, || {
                    let (was, is) = (was.value.hi, is.value.hi);
                    format!("element {index} of {name} is {was:e}, and {is:e} {when}; expected the same")
                });
            }
        }
    }))
}

fn determinism(setting: &mut Setting) -> Option<Trial> {
    let (step, other) = (setting.step(), setting.step());
    repeated(vec![step.clone(), other, step], "when it is asked again")
}

fn mode_ignored(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let train = Step { mode: Mode::Train, ..step.clone() };
    repeated(vec![step, train], "in training")
}

fn layout(setting: &mut Setting) -> Option<Trial> {
    let step = setting.step();
    let format = setting.values.pick(&[LayoutFormat::ChannelsLast, LayoutFormat::Strided]);
    let offset = setting.values.pick(&[0, 3]);
    let other = Step { layout: Layout { format, offset }, ..step.clone() };
    repeated(vec![step, other], "in another layout")
}
