//! The questions of the forum thread: small batches, momentum, which norm to use. Each has its case.

use super::batch_norm::operation as batch_norm;
use super::{Call, Maker, short};
use crate::arithmetic::DataType;
use crate::case::values::Values;
use crate::case::{Flag, Layout, LayoutFormat};
use crate::operation::{Dialect, GroupNorm, LayerNorm, Operation};

pub(super) fn make(maker: &mut Maker) {
    for dtype in [DataType::F32, DataType::F64] {
        one_sample(maker, dtype);
        momentum(maker, dtype);
        other_norms(maker, dtype);
    }
}

const TOPIC: Flag = Flag::Thread;

/// `BatchNorm1d` takes (1, 3, 10) and refuses (1, 3, 1) and (1, 3): what counts is N·L, the values per channel.
fn one_sample(maker: &mut Maker, dtype: DataType) {
    let cases = [
        (&[1, 3, 10][..], "Ten values per channel: training works with one sample."),
        (&[1, 3, 1], "One value per channel: refused in training, whatever the rank."),
        (&[1, 3], "One value per channel: refused in training."),
        (&[2, 3], "Two values per channel: answered, but every output is ±1, whatever the input."),
        (&[4, 3], "Four values per channel: answered, and noisy."),
    ];
    for (shape, comment) in cases {
        let sizes = shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        for train in [true, false] {
            let name = format!("thread-batch_norm-{}-{sizes}-{}", short(dtype), if train { "train" } else { "eval" });
            let mut values = Values::named(&name);
            let call = Call::new(batch_norm(Some(1), 1e-5, Some(0.1)), dtype).fresh(3);
            let call = if train { call.train() } else { call };
            let step = call.input(shape, values.normals(shape.iter().product(), 2.0, 1.0)).step();
            let comment = if train { comment } else { "In evaluation every shape works: the statistics are stored." };
            maker.add_step(name, comment, &[TOPIC, Flag::BatchOne], step);
        }
    }
}

/// What momentum means: the weight of the new batch. Three batches of each size, then evaluation.
fn momentum(maker: &mut Maker, dtype: DataType) {
    for (label, momentum) in [("0.1", Some(0.1)), ("smaller", Some(0.01)), ("larger", Some(0.9)), ("cumulative", None)]
    {
        for batch in [1, 2, 4] {
            let name = format!("thread-batch_norm-{}-momentum-{label}-batch-{batch}", short(dtype));
            let mut values = Values::named(&name);
            let length = if batch == 1 { 10 } else { 1 };
            let shape = [batch, 3, length];
            let steps = (0..4).map(|index| {
                let call = Call::new(batch_norm(Some(1), 1e-5, momentum), dtype);
                let call = if index == 0 { call.fresh(3) } else { call };
                let call = if index < 3 { call.train() } else { call };
                call.input(&shape, values.normals(batch * 3 * length, f64::from(index), 1.0)).step()
            });
            let steps = steps.collect();
            let comment = "Momentum is the weight of the new batch: make it smaller for smaller batches.";
            maker.add(name, comment, &[TOPIC, Flag::Sequence], steps);
        }
    }
}

/// Layer norm of one pixel, and group norm on a channels-last tensor.
fn other_norms(maker: &mut Maker, dtype: DataType) {
    let layer_norm = |normalized_shape: &[usize]| {
        let normalized_shape = normalized_shape.to_vec();
        Operation::LayerNorm(LayerNorm { normalized_shape, eps: 1e-5, dialect: Dialect::Pytorch })
    };
    let group_norm = |num_groups| Operation::GroupNorm(GroupNorm { num_groups, eps: 1e-5, dialect: Dialect::Pytorch });
    let mut add = |label: &str, comment: &str, operation: Operation, shape: &[usize], layout: Layout| {
        let name = format!("thread-{label}-{}", short(dtype));
        let input = Values::named(&name).normals(shape.iter().product(), 2.0, 1.0);
        let step = Call::new(operation, dtype).layout(layout).input(shape, input).step();
        maker.add_step(name, comment, &[TOPIC], step);
    };
    let plain = Layout::default();
    let pixel = "Layer norm over one pixel: its deviation from its own mean is 0, so it returns the bias, 0.";
    add("layer_norm-one-pixel", pixel, layer_norm(&[1, 1]), &[2, 3, 1, 1], plain);
    let channels = "Layer norm over the channels of one pixel: not 0, the channels differ.";
    add("layer_norm-channels-of-a-pixel", channels, layer_norm(&[3]), &[2, 1, 1, 3], plain);
    let last = "Channels last is a layout, not a shape: group norm gives the same as on the contiguous tensor.";
    let format = LayoutFormat::ChannelsLast;
    add("group_norm-channels_last", last, group_norm(2), &[2, 4, 3, 3], Layout { format, offset: 0 });
    add("group_norm-contiguous", last, group_norm(2), &[2, 4, 3, 3], plain);
    let permuted = "A tensor permuted to (N, L, C) has L as its channels: group norm with L groups is then layer norm \
                    over C at each position, and with one group it pools over positions as well.";
    add("group_norm-permuted-l-groups", permuted, group_norm(9), &[2, 9, 4], plain);
    add("group_norm-permuted-one-group", permuted, group_norm(1), &[2, 9, 4], plain);
}
