//! Families that every operation and every data type has: sizes, means, eps, kinds of values, parameters, layouts.

use super::Maker;
use super::member::{Affine, Member};
use crate::arithmetic::DataType;
use crate::arithmetic::format::power_of_two;
use crate::case::values::{Values, held};
use crate::case::{Flag, Layout, LayoutFormat};

const OPERATIONS: [&str; 6] =
    ["batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm", "sync_batch_norm"];

pub(super) fn make(maker: &mut Maker) {
    for name in OPERATIONS {
        for dtype in DataType::FLOATS {
            sizes(maker, name, dtype);
            means(maker, name, dtype);
            eps(maker, name, dtype);
            kinds(maker, name, dtype);
            parameters(maker, name, dtype);
            layouts(maker, name, dtype);
            non_finite(maker, name, dtype);
        }
        range(maker, name);
        large(maker, name);
    }
}

/// Group sizes near the edges of programs: vectors, warps, blocks.
fn sizes(maker: &mut Maker, name: &str, dtype: DataType) {
    for (size, split) in [
        (2, 1),
        (3, 3),
        (4, 2),
        (5, 1),
        (7, 7),
        (8, 4),
        (16, 2),
        (17, 1),
        (32, 8),
        (33, 3),
        (64, 4),
        (128, 16),
        (256, 2),
        (1024, 1),
    ] {
        let groups = if size < 64 { 6 } else { 2 };
        let member = Member::new(format!("size-{size}"), name, dtype, |values| {
            (0..groups).map(|_| values.normals(size, 0.0, 1.0)).collect()
        });
        let comment = "Values near normal, weight and bias as after training.";
        // In a half type every intermediate result of a framework is rounded: a few cases show it.
        let twice = if wide(dtype) { matches!(size, 2 | 3 | 5 | 8 | 17 | 32) } else { size == 8 };
        member.comment(comment).split(split, 2).twice(twice).add(maker, name, dtype);
    }
}

/// The ladder of means: right formulas with an unstable variance fail from some rung on.
fn means(maker: &mut Maker, name: &str, dtype: DataType) {
    for (rung, mean) in [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e8, 1e10, 1e12].into_iter().enumerate() {
        // Beyond this the type holds no deviation of a standard one.
        let precision = dtype.format().map_or(0, |format| format.precision);
        if mean > power_of_two(precision + 1) || name == "rms_norm" && rung % 3 != 2 {
            continue;
        }
        let topics = if mean >= 100.0 { &[Flag::LargeMean][..] } else { &[] };
        for size in [4, 20] {
            let member = Member::new(format!("mean-1e{rung}-size-{size}"), name, dtype, |values| {
                (0..6).map(|group| values.normals(size, if group % 2 == 0 { mean } else { -mean }, 1.0)).collect()
            });
            let comment = "A mean of many standard deviations.";
            let twice = wide(dtype) && (10.0..=1e3).contains(&mean) && size == 4;
            member.comment(comment).topics(topics).split(2, 2).twice(twice).add(maker, name, dtype);
        }
    }
    // One unit in the last place above two equal values: the smallest group on which an updating variance is 0.
    let member = Member::new("one-ulp".into(), name, dtype, |_| {
        let precision = dtype.format().map_or(24, |format| format.precision);
        let ulp = power_of_two(-10);
        let base = ulp * power_of_two(precision - 1) * 1.25;
        vec![vec![base + ulp, base, base], vec![base, base, base + ulp]]
    });
    let comment = "One unit in the last place above two equal values.";
    member.comment(comment).topics(&[Flag::LargeMean]).split(3, 1).affine(Affine::None).add(maker, name, dtype);
}

/// Variances near eps, where eps decides.
fn eps(maker: &mut Maker, name: &str, dtype: DataType) {
    for (label, eps, deviation) in
        [("1e-5", 1e-5, power_of_two(-8)), ("1e-3", 1e-3, power_of_two(-5)), ("0.5", 0.5, 0.75)]
    {
        let member = Member::new(format!("eps-{label}"), name, dtype, |values| {
            (0..4).map(|_| values.normals(12, 0.0, deviation)).collect()
        });
        member.comment("A variance near eps.").eps(eps).split(3, 2).twice(wide(dtype)).add(maker, name, dtype);
    }
    let member = Member::new("eps-1e-12-tiny".into(), name, dtype, |values| {
        (0..4).map(|_| values.normals(12, 0.0, power_of_two(-13))).collect()
    });
    let comment = "A small variance and a smaller eps: eps must not vanish, nor be raised.";
    member.comment(comment).eps(1e-12).split(3, 2).add(maker, name, dtype);
}

/// Values of particular shapes.
fn kinds(maker: &mut Maker, name: &str, dtype: DataType) {
    let constant = |c: f64| move |_: &mut Values| vec![vec![held(dtype, c); 9]; 4];
    for (label, c) in [("third", 1.0 / 3.0), ("1234", 1234.0), ("zero", 0.0)] {
        let member = Member::new(format!("constant-{label}"), name, dtype, constant(c));
        let comment = "Constant groups: the exact output is the bias.";
        let topics = &[Flag::ConstantGroup];
        member.comment(comment).topics(topics).split(3, 2).add(maker, name, dtype);
    }
    for size in [10, 100] {
        let member = Member::new(format!("outlier-{size}"), name, dtype, |values| {
            let outlier = |at: usize, size| (0..size).map(|i| if i == at { 96.0 } else { 0.0 }).collect();
            (0..4).map(|_| outlier(values.below(size), size)).collect()
        });
        let comment = "One outlier among zeros: |y| reaches √(n−1).";
        member.comment(comment).topics(&[Flag::Outlier]).split(2, 2).affine(Affine::None).add(maker, name, dtype);
    }
    let member = Member::new("two-values".into(), name, dtype, |values| {
        (0..4).map(|_| (0..8).map(|_| 3.0 + values.sign()).collect()).collect()
    });
    member.comment("Two values, mixed.").split(2, 2).add(maker, name, dtype);
    let member = Member::new("scales".into(), name, dtype, |values| {
        let scale = |group: i32| power_of_two(5 * group - 3);
        (0..4).map(|group| values.normals(16, scale(group), scale(group))).collect()
    });
    member.comment("Groups of very different scales side by side.").split(4, 2).add(maker, name, dtype);
}

/// Which of weight and bias there are, and parameters in F32 with a half-precision input.
fn parameters(maker: &mut Maker, name: &str, dtype: DataType) {
    let groups = |values: &mut Values| (0..6).map(|_| values.normals(8, 2.0, 1.5)).collect();
    for (label, affine) in [("no-affine", Affine::None), ("weight-only", Affine::Weight), ("bias-only", Affine::Bias)] {
        if name == "rms_norm" && affine == Affine::Bias {
            continue;
        }
        let member = Member::new(label.into(), name, dtype, groups);
        // PyTorch has no second derivative with a bias and no weight.
        let twice = wide(dtype) && affine != Affine::Bias;
        let member = member.comment("Optional parameters left out.").split(2, 2).affine(affine);
        member.twice(twice).add(maker, name, dtype);
    }
    if matches!(dtype, DataType::F16 | DataType::BF16) && name != "rms_norm" {
        let member = Member::new("mixed".into(), name, dtype, groups);
        let comment = "Parameters and statistics in F32, a half-precision input.";
        member.comment(comment).topics(&[Flag::MixedTypes]).split(2, 2).mixed(maker, name, dtype);
    }
}

/// The same values in other memory layouts.
fn layouts(maker: &mut Maker, name: &str, dtype: DataType) {
    for (label, format, offset) in [
        ("channels_last", LayoutFormat::ChannelsLast, 0),
        ("strided", LayoutFormat::Strided, 0),
        ("offset", LayoutFormat::Strided, 3),
    ] {
        let member = Member::new(format!("layout-{label}"), name, dtype, |values| {
            (0..6).map(|_| values.normals(24, 1.0, 1.0)).collect()
        });
        let comment = "The layout in memory changes nothing.";
        let member = member.comment(comment).topics(&[Flag::MemoryFormat]).split(2, 2);
        let member = member.twice(wide(dtype) && format == LayoutFormat::ChannelsLast);
        member.layout(Layout { format, offset }).images(maker, name, dtype);
    }
    // A group is no run of memory then, for which PyTorch has another algorithm; elsewhere the layout moves the order alone.
    if name == "group_norm" {
        let member = Member::new("layout-channels_last-mean-1e2".into(), name, dtype, |values| {
            (0..6).map(|group| values.normals(24, if group % 2 == 0 { 100.0 } else { -100.0 }, 1.0)).collect()
        });
        let comment = "Channels last, and a mean of a hundred standard deviations: a kernel of its own must not lose the variance.";
        let member = member.comment(comment).topics(&[Flag::MemoryFormat, Flag::LargeMean]).split(2, 2);
        member.layout(Layout { format: LayoutFormat::ChannelsLast, offset: 0 }).images(maker, name, dtype);
    }
}

/// NaN and infinities come out again.
fn non_finite(maker: &mut Maker, name: &str, dtype: DataType) {
    for (label, value) in [("nan", f64::NAN), ("inf", f64::INFINITY)] {
        let member = Member::new(label.into(), name, dtype, |values| {
            let mut groups: Vec<Vec<f64>> = (0..4).map(|_| values.normals(8, 0.0, 1.0)).collect();
            groups[1][3] = value;
            groups
        });
        let comment = "One value of one group is not finite: the group is lost, the others are not.";
        member.comment(comment).topics(&[Flag::NonFinite]).split(2, 2).forward_only().add(maker, name, dtype);
    }
}

/// Near the ends of the range.
fn range(maker: &mut Maker, name: &str) {
    let cases = [
        (DataType::F32, "1e30", 1e30),
        (DataType::F32, "1e18", 1e18),
        (DataType::F32, "1e-15", 1e-15),
        (DataType::F64, "1e200", 1e200),
        (DataType::F64, "1e-200", 1e-200),
        (DataType::BF16, "1e30", 1e30),
        (DataType::F16, "3e4", 3e4),
    ];
    for (dtype, label, scale) in cases {
        let member = Member::new(format!("range-{label}"), name, dtype, |values| {
            (0..4).map(|_| (0..8).map(|_| held(dtype, values.normal() / 4.0 * scale)).collect()).collect()
        });
        let comment = "Values near the ends of the range, whose squares may leave it.";
        member.comment(comment).topics(&[Flag::Range]).split(2, 2).add(maker, name, dtype);
    }
}

/// Large groups, for the depth of sums.
fn large(maker: &mut Maker, name: &str) {
    let sizes = [(DataType::F32, 4096), (DataType::F32, 10_000), (DataType::F64, 2048), (DataType::BF16, 4096)];
    for (dtype, size) in sizes {
        let make = |values: &mut Values| vec![values.normals(size, 3.0, 1.0)];
        let member = Member::new(format!("large-{size}"), name, dtype, make);
        let member = member.comment("A large group.").topics(&[Flag::Large]).split(4, 1);
        member.affine(Affine::None).forward_only().add(maker, name, dtype);
    }
}

/// Whether no framework computes in less than the type itself.
fn wide(dtype: DataType) -> bool {
    matches!(dtype, DataType::F32 | DataType::F64)
}
