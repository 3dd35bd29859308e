//! Batch norm's own: evaluation, momentum, counters, ranks, sequences of steps.

use super::{Call, Maker, short, trained};
use crate::arithmetic::DataType;
use crate::arithmetic::format::power_of_two;
use crate::case::values::Values;
use crate::case::{Flag, Step};
use crate::operation::{BatchNorm, BatchNormDialect, Operation};

pub(super) fn operation(spatial_dims: Option<u8>, eps: f64, momentum: Option<f64>) -> Operation {
    Operation::BatchNorm(BatchNorm { spatial_dims, eps, momentum, dialect: BatchNormDialect::Pytorch })
}

pub(super) fn make(maker: &mut Maker) {
    for dtype in DataType::FLOATS {
        evaluation(maker, dtype);
        momentum(maker, dtype);
        sequences(maker, dtype);
        ranks(maker, dtype);
    }
}

/// A batch of nearly normal values.
fn batch(values: &mut Values, shape: &[usize], mean: f64) -> Vec<f64> {
    values.normals(shape.iter().product(), mean, 1.0)
}

fn evaluation(maker: &mut Maker, dtype: DataType) {
    for (label, eps, variance) in
        [("plain", 1e-5, 1.0), ("small-variance", 1e-3, power_of_two(-10)), ("eps-0.5", 0.5, 0.5)]
    {
        let name = format!("batch_norm-{}-eval-{label}", short(dtype));
        let mut values = Values::named(&name);
        let (weight, bias) = trained(&mut values, 5);
        let mean = values.normals(5, 0.0, 1.0);
        let variances = (0..5).map(|_| variance * (1.0 + values.uniform())).collect();
        let step = Call::new(operation(Some(1), eps, Some(0.1)), dtype)
            .parameter("weight", &[5], weight)
            .parameter("bias", &[5], bias)
            .parameter("running_mean", &[5], mean)
            .parameter("running_var", &[5], variances)
            .counter(7)
            .input(&[3, 5, 4], batch(&mut values, &[3, 5, 4], 0.5))
            .step();
        maker.add_all(name, "Evaluation with stored statistics: nothing moves.", &[], step);
    }
    let name = format!("batch_norm-{}-eval-large-mean", short(dtype));
    let mut values = Values::named(&name);
    let step = Call::new(operation(Some(1), 1e-5, Some(0.1)), dtype)
        .parameter("running_mean", &[2], vec![120.0, -120.0])
        .parameter("running_var", &[2], vec![1.0, 1.0])
        .counter(7)
        .input(&[4, 2], (0..8).map(|i| if i % 2 == 0 { 120.0 } else { -120.0 } + values.normal()).collect())
        .step();
    maker.add_both(name, "Evaluation where input and stored mean nearly cancel.", &[Flag::LargeMean], step);

    let name = format!("batch_norm-{}-eval-untracked", short(dtype));
    let mut values = Values::named(&name);
    let step =
        Call::new(operation(Some(1), 1e-5, Some(0.1)), dtype).input(&[4, 3], batch(&mut values, &[4, 3], 2.0)).step();
    maker.add_step(name, "Evaluation without stored statistics uses the batch's own.", &[], step);
}

fn momentum(maker: &mut Maker, dtype: DataType) {
    for (label, momentum) in [
        ("0", Some(0.0)),
        ("0.01", Some(0.01)),
        ("0.1", Some(0.1)),
        ("0.9", Some(0.9)),
        ("1", Some(1.0)),
        ("none", None),
        ("minus-0.5", Some(-0.5)),
        ("2", Some(2.0)),
    ] {
        let name = format!("batch_norm-{}-momentum-{label}", short(dtype));
        let mut values = Values::named(&name);
        let step = Call::new(operation(Some(1), 1e-3, momentum), dtype)
            .train()
            .parameter("running_mean", &[4], values.normals(4, 1.0, 1.0))
            .parameter("running_var", &[4], (0..4).map(|_| 0.05 + values.uniform() / 16.0).collect())
            .counter(3)
            .input(&[4, 4, 2], values.normals(32, 4.0, power_of_two(-3)))
            .step();
        let comment = "Momentum is the weight of the new value; none is the cumulative average.";
        maker.add_step(name, comment, &[], step);
    }
    let name = format!("batch_norm-{}-momentum-none-uncounted", short(dtype));
    let mut values = Values::named(&name);
    let step = Call::new(operation(Some(1), 1e-5, None), dtype)
        .train()
        .parameter("running_mean", &[3], vec![0.0; 3])
        .parameter("running_var", &[3], vec![1.0; 3])
        .input(&[4, 3], batch(&mut values, &[4, 3], 2.0))
        .step();
    let comment = "A cumulative average without a counter does not move.";
    maker.add_step(name, comment, &[], step);
}

fn sequences(maker: &mut Maker, dtype: DataType) {
    for (label, momenta) in
        [("0.1", [Some(0.1); 4]), ("none", [None; 4]), ("change", [Some(0.1), Some(0.5), None, Some(0.01)])]
    {
        let name = format!("batch_norm-{}-sequence-{label}", short(dtype));
        let mut values = Values::named(&name);
        let steps = momenta.iter().enumerate().map(|(index, &momentum)| {
            let call = Call::new(operation(Some(1), 1e-5, momentum), dtype);
            let call = if index == 0 { call.fresh(3) } else { call };
            let call = if index == 3 { call } else { call.train() };
            call.input(&[4, 3, 2], batch(&mut values, &[4, 3, 2], index as f64)).step()
        });
        let comment = "Three batches in training, then evaluation.";
        let steps = steps.collect();
        maker.add(name, comment, &[Flag::Sequence], steps);
    }
    let refused = |values: &mut Values, momentum: Option<f64>| -> Vec<Step> {
        let call = || Call::new(operation(Some(1), 1e-5, momentum), dtype);
        vec![
            call().train().fresh(3).input(&[4, 3], batch(values, &[4, 3], 1.0)).step(),
            call().train().input(&[1, 3], batch(values, &[1, 3], 1.0)).step(),
            call().train().input(&[4, 3], batch(values, &[4, 3], -1.0)).step(),
            call().input(&[1, 3], batch(values, &[1, 3], 1.0)).step(),
        ]
    };
    for (label, momentum) in [("0.1", Some(0.1)), ("none", None)] {
        let name = format!("batch_norm-{}-sequence-refused-{label}", short(dtype));
        let steps = refused(&mut Values::named(&name), momentum);
        let comment = "A batch of one value per channel is counted, then refused; the next one goes on.";
        maker.add(name, comment, &[Flag::Sequence, Flag::Refusal, Flag::BatchOne], steps);
    }
    let name = format!("batch_norm-{}-sequence-empty", short(dtype));
    let mut values = Values::named(&name);
    let call = || Call::new(operation(Some(1), 1e-5, None), dtype).train();
    let steps = vec![
        call().fresh(3).input(&[4, 3], batch(&mut values, &[4, 3], 1.0)).step(),
        call().input(&[0, 3], vec![]).step(),
        call().input(&[4, 3], batch(&mut values, &[4, 3], -1.0)).step(),
    ];
    let comment = "An empty batch is counted and changes nothing else.";
    maker.add(name, comment, &[Flag::Sequence, Flag::Empty], steps);
}

fn ranks(maker: &mut Maker, dtype: DataType) {
    for (label, spatial_dims, shape) in [
        ("2d", Some(2), &[2, 3, 4, 5][..]),
        ("3d", Some(3), &[2, 3, 2, 3, 2]),
        ("any", None, &[2, 3, 2, 2, 1, 2]),
        ("batch-1", Some(2), &[1, 3, 5, 5]),
        ("one-channel", Some(1), &[6, 1]),
    ] {
        let name = format!("batch_norm-{}-rank-{label}", short(dtype));
        let mut values = Values::named(&name);
        let channels = shape[1];
        let (weight, bias) = trained(&mut values, channels);
        let step = Call::new(operation(spatial_dims, 1e-5, Some(0.1)), dtype)
            .train()
            .fresh(channels)
            .parameter("weight", &[channels], weight)
            .parameter("bias", &[channels], bias)
            .input(shape, batch(&mut values, shape, 1.0))
            .step();
        maker.add_both(name, "Every rank that the module takes.", &[], step);
    }
}
