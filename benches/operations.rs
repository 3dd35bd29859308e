//! Each operation: its truth, forward and backward, and for the normalization family the evaluation without radii.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use normative::arithmetic::DataType;
use normative::case::random;
use normative::case::values::Values;
use normative::judge::Expected;
use normative::operation::Operation;
use normative::{Tensors, evaluate};

const GROUPS: usize = 64;

fn truth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("truth");
    for &name in Operation::NAMES {
        let mut values = Values::named(name);
        let step = random::step(&mut values, name, DataType::F64, GROUPS);
        group.bench_function(name, |bencher| bencher.iter(|| Expected::of(black_box(&step))));
    }
}

fn evaluation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("evaluation");
    for name in ["batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm"] {
        let mut values = Values::named(name);
        let mut steps = std::iter::repeat_with(|| random::step(&mut values, name, DataType::F64, GROUPS));
        let step = steps.find(|step| step.gradients).expect("every fourth step has gradients");
        let Expected::Tensors { plan, .. } = Expected::of(&step) else { panic!("refused: {step:?}") };
        let tensors = step.values(|x| x);
        let views: Tensors<&[f64]> = tensors.iter().map(|(name, values)| (name.clone(), values.as_slice())).collect();
        group.bench_function(format!("{name} forward"), |bencher| {
            bencher.iter_batched(|| (), |()| evaluate::forward(black_box(&plan), &views), BatchSize::SmallInput);
        });
        group.bench_function(format!("{name} backward"), |bencher| {
            bencher.iter_batched(|| (), |()| evaluate::backward(black_box(&plan), &views), BatchSize::SmallInput);
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(400));
    targets = truth, evaluation
}
criterion_main!(benches);
