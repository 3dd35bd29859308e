//! What the figures mean, in sentences: whether it trains, how noisy it is, what to do instead.

use super::Setting;
use super::momentum::rescaled;
use super::theory::{Theory, USUAL_BATCH};

/// Channels of the layer and groups of a group norm that stands in: the usual ones of a small convolution.
const CHANNELS: usize = 64;
const GROUPS: usize = 32;

/// The sentences for a setting.
pub fn advice(setting: &Setting) -> Vec<String> {
    let mut sentences = vec![refusal(setting)];
    if !setting.is_refused() {
        sentences.push(noise(setting));
        sentences.push(window(setting));
        sentences.extend(bias(setting));
        sentences.push(renorm(setting));
    }
    sentences.extend(instead(setting));
    sentences
}

fn refusal(setting: &Setting) -> String {
    let Setting { batch, values, .. } = *setting;
    match batch * values {
        1 => "Refused in training: a channel has one value, which has no variance. In evaluation it is accepted. What counts \
              is values per channel, N·L: (1, 3, 10) has ten, (1, 3, 1) has one."
            .to_owned(),
        2 => "Accepted in training, with two values per channel: every output is ±1 (less eps); only their order survives, \
              and hardly a gradient passes."
            .to_owned(),
        count => format!("Accepted in training: a channel has N·L = {batch}·{values} = {count} values."),
    }
}

fn noise(setting: &Setting) -> String {
    let theory = Theory::new(setting);
    let total = setting.within + setting.between;
    format!(
        "A batch's mean is off by {:.3} standard deviations and its variance by {} of itself, typically: that is what the \
         layer adds as noise in training.",
        (theory.mean_variance / total).sqrt(),
        percent(theory.squares.variance().sqrt() / theory.squares.mean()),
    )
}

fn window(setting: &Setting) -> String {
    let Setting { batch, momentum, .. } = *setting;
    let batches = (2.0 - momentum) / momentum;
    let same = rescaled(momentum, USUAL_BATCH as f64, batch as f64);
    let way = if batch < USUAL_BATCH { "down" } else { "up" };
    let advice = if batch == USUAL_BATCH {
        String::new()
    } else {
        format!(
            " To keep the window in samples that {momentum} has at batch {USUAL_BATCH}, take it {way} to {same:.4} (in \
             Keras, Flax and ONNX, which name the weight of the old value: {:.4}).",
            1.0 - same
        )
    };
    format!(
        "Momentum {momentum} is the weight of the new batch: the running statistics are as noisy as an average of \
         {batches:.0} batches, {:.0} samples.{advice}",
        batches * batch as f64
    )
}

/// What no momentum removes.
fn bias(setting: &Setting) -> Option<String> {
    let theory = Theory::new(setting);
    let total = setting.within + setting.between;
    let seen = theory.squares.mean() / total;
    (seen < 0.999).then(|| {
        format!(
            "The running variance settles at {:.3} of the true {total:.3}, for any momentum: a batch of {} sees only part \
             of what differs between samples. In evaluation the outputs' variance is {:.2} instead of 1.",
            theory.squares.mean(),
            setting.batch,
            1.0 / seen,
        )
    })
}

/// Batch renorm (Ioffe 2017) normalizes with the running statistics.
fn renorm(setting: &Setting) -> String {
    let theory = Theory::new(setting);
    let noise = (setting.momentum / (2.0 - setting.momentum)).sqrt();
    let relative = theory.squares.variance().sqrt() / theory.squares.mean();
    format!(
        "Batch renorm, unclipped, normalizes with the running statistics: its variance is off by {} instead of {}; what \
         they are biased by stays.",
        percent(relative * noise),
        percent(relative),
    )
}

/// Norms of one sample: nothing of them depends on the batch.
fn instead(setting: &Setting) -> Vec<String> {
    let length = setting.values;
    // The relative standard deviation of the variance of `count` normal values.
    let off = |count: usize| percent((2.0 / (count as f64 - 1.0)).sqrt());
    let mut sentences = Vec::new();
    let layer = CHANNELS * length;
    sentences.push(format!(
        "Layer norm over {CHANNELS} channels takes {layer} values of one sample: its variance is off by {}, at every \
         batch size, and evaluation does what training does.",
        off(layer)
    ));
    let group = CHANNELS / GROUPS * length;
    sentences.push(format!(
        "Group norm with {GROUPS} groups of {} channels takes {group} values: {}.{}",
        CHANNELS / GROUPS,
        off(group),
        if group < 16 { " That is few: take fewer groups." } else { "" }
    ));
    sentences.push(if length == 1 {
        "Instance norm is refused: it takes the values of one channel of one sample, and there is one.".to_owned()
    } else {
        format!(
            "Instance norm takes the {length} values of one channel of one sample: {}, and what differs between \
             samples is removed.",
            off(length)
        )
    });
    sentences
}

/// Two significant digits, more where there are more before the point.
fn percent(part: f64) -> String {
    let percent = 100.0 * part;
    let digits = (1 - percent.max(1e-6).log10().floor() as i32).max(0) as usize;
    format!("{percent:.digits$} %")
}
