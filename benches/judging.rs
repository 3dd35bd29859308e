//! What `check` does: reading golden files, and judging an answer whose truth is known.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use normative::arithmetic::DataType;
use normative::case::values::Values;
use normative::case::{Declared, Request, random};
use normative::golden::GoldenFile;
use normative::judge::{Expected, judge};
use normative::subject::{Builtin, Subject};

fn judging(criterion: &mut Criterion) {
    let mut values = Values::named("judging");
    let call = random::step(&mut values, "layer_norm", DataType::F32, 64);
    let request = Request { case: "judging".to_owned(), step: 0, call };
    let mut subject = Builtin::new("welford").expect("it is compiled in");
    let answer = subject.answer(&request).expect("it answers");
    let expected = Expected::of(&request.call);
    criterion.bench_function("judge layer_norm", |bencher| {
        bencher.iter(|| judge(black_box(&request.call), &expected, &answer, &Declared::default()));
    });
}

fn reading(criterion: &mut Criterion) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/pytorch-2.15-cpu/layer_norm.00.safetensors");
    let bytes = std::fs::read(path).expect("the recordings are in the repository");
    criterion.bench_function("read layer_norm goldens", |bencher| {
        bencher.iter(|| GoldenFile::read(black_box(&bytes)));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = judging, reading
}
criterion_main!(benches);
