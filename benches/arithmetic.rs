//! The reference's kernels: moments and rescaling of groups, short and long, contiguous and in runs.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use normative::arithmetic::{Arithmetic, Group, Reference, Runs, Scale, Truth};
use normative::case::values::Values;

fn moments(criterion: &mut Criterion) {
    let data = Values::named("moments").normals(1 << 20, 3.0, 1.0);
    let mut group = criterion.benchmark_group("moments");
    for length in [8, 128, 1024, 1 << 20] {
        group.throughput(Throughput::Elements(length as u64));
        group.bench_with_input(BenchmarkId::new("contiguous", length), &length, |bencher, &length| {
            bencher.iter(|| Reference.moments(Group::contiguous(black_box(&data[..length])), true));
        });
    }
    let interleaved = |length| Runs { start: length, count: 4096 / length, stride: 64 * length, length };
    for runs in [interleaved(1), interleaved(49), interleaved(1024)] {
        group.throughput(Throughput::Elements(runs.len() as u64));
        group.bench_with_input(BenchmarkId::new("runs", runs.length), &runs, |bencher, &runs| {
            bencher.iter(|| Reference.moments(Group::new(black_box(&data), runs), true));
        });
    }
}

fn rescale(criterion: &mut Criterion) {
    let data = Values::named("rescale").normals(1024, 3.0, 1.0);
    let moments = Reference.moments(Group::contiguous(&data), true);
    let scaling = Reference.scaling(&moments, &Scale::inside_root(1e-5));
    let mut output = vec![Truth::exact(0.0); data.len()];
    let mut group = criterion.benchmark_group("rescale");
    group.throughput(Throughput::Elements(data.len() as u64));
    group.bench_function("values and radii", |bencher| {
        bencher.iter(|| Reference.rescale(black_box(&data), &scaling, None, None, &mut output));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500));
    targets = moments, rescale
}
criterion_main!(benches);
