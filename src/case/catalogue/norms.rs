//! Local response norms, normalization to unit length, limited norms.

use super::{Call, Maker, short};
use crate::arithmetic::DataType;
use crate::arithmetic::format::power_of_two;
use crate::case::Flag;
use crate::case::values::Values;
use crate::operation::{CrossMapLrn, LocalResponseNorm, Normalize, Operation, Renorm};

pub(super) fn make(maker: &mut Maker) {
    for dtype in DataType::FLOATS {
        responses(maker, dtype);
        normalize(maker, dtype);
        renorm(maker, dtype);
    }
}

fn values(name: &str, shape: &[usize], mean: f64, deviation: f64) -> Vec<f64> {
    Values::named(name).normals(shape.iter().product(), mean, deviation)
}

fn responses(maker: &mut Maker, dtype: DataType) {
    for (label, size, alpha, beta, k) in [
        ("default", 5, 1e-4, 0.75, 1.0),
        ("size-1", 1, 1.0, 0.75, 1.0),
        ("size-2", 2, 1.0, 0.75, 1.0),
        ("size-3", 3, 1.0, 0.75, 2.0),
        ("size-4-half", 4, 2.0, 0.5, 1.0),
        ("size-5-one", 5, 0.5, 1.0, 0.5),
        ("size-9-beyond", 9, 1.0, 0.75, 1.0),
        ("beta-0.6", 3, 1.0, 0.6, 1.0),
        ("beta-2.5", 3, 0.5, 2.5, 1.0),
        ("k-0", 3, 1.0, 0.75, 0.0),
    ] {
        for (rank, shape) in [("3d", &[2, 6, 5][..]), ("4d", &[2, 6, 3, 2])] {
            // Frameworks pool images of a half type on some devices only.
            if shape.len() > 3 && matches!(dtype, DataType::F16 | DataType::BF16) {
                continue;
            }
            let response = Operation::LocalResponseNorm(LocalResponseNorm { size, alpha, beta, k });
            let name = format!("local_response_norm-{}-{label}-{rank}", short(dtype));
            let input = values(&name, shape, 0.5, 1.0);
            let step = Call::new(response, dtype).input(shape, input).step();
            if rank == "3d" {
                let comment = "A window over the channels, differentiated twice.";
                maker.add_double_backward(&name, comment, &[], &step);
            }
            maker.add_both(name, "A window over the channels, longer to the left where its size is even.", &[], step);
        }
        let map = Operation::CrossMapLrn(CrossMapLrn { size, alpha, beta, k });
        let name = format!("cross_map_lrn-{}-{label}", short(dtype));
        let shape = [2, 6, 3, 2];
        let input = values(&name, &shape, 0.5, 1.0);
        let step = Call::new(map, dtype).input(&shape, input).step();
        maker.add_both(name, "The same formula for images alone.", &[], step);
    }
    for (label, scale) in [("small", power_of_two(-6)), ("large", 64.0)] {
        let operation = Operation::LocalResponseNorm(LocalResponseNorm { size: 5, alpha: 1.0, beta: 0.75, k: 1.0 });
        let name = format!("local_response_norm-{}-values-{label}", short(dtype));
        let input = values(&name, &[2, 8, 4], 0.0, scale);
        let step = Call::new(operation, dtype).input(&[2, 8, 4], input).step();
        maker.add_both(name, "Where k decides, and where it does not.", &[], step);
    }
    let refusals = [
        ("rank-2", LocalResponseNorm { size: 3, alpha: 1.0, beta: 0.75, k: 1.0 }, &[2, 3][..]),
        ("size-0", LocalResponseNorm { size: 0, alpha: 1.0, beta: 0.75, k: 1.0 }, &[2, 3, 4]),
    ];
    for (label, operation, shape) in refusals {
        let name = format!("local_response_norm-{}-refuses-{label}", short(dtype));
        let input = values(&name, shape, 0.0, 1.0);
        let step = Call::new(Operation::LocalResponseNorm(operation), dtype).input(shape, input).step();
        maker.add_step(name, "Rank 3 or more, and a window of at least one channel.", &[Flag::Refusal], step);
    }
    let name = format!("cross_map_lrn-{}-refuses-rank-3", short(dtype));
    let operation = Operation::CrossMapLrn(CrossMapLrn { size: 3, alpha: 1.0, beta: 0.75, k: 1.0 });
    let input = values(&name, &[2, 3, 4], 0.0, 1.0);
    let step = Call::new(operation, dtype).input(&[2, 3, 4], input).step();
    maker.add_step(name, "Images alone.", &[Flag::Refusal], step);
}

fn normalize(maker: &mut Maker, dtype: DataType) {
    for (label, p, dim, shape) in [
        ("l2", 2.0, 1, &[3, 5][..]),
        ("l2-last", 2.0, -1, &[2, 3, 7]),
        ("l2-first", 2.0, 0, &[4, 3]),
        ("l2-middle", 2.0, 1, &[2, 6, 3]),
        ("l2-vector", 2.0, 0, &[9]),
        ("l2-one", 2.0, 1, &[4, 1]),
        ("l2-long", 2.0, 1, &[2, 300]),
        ("l1", 1.0, 1, &[3, 5]),
        ("max", f64::INFINITY, 1, &[3, 5]),
        ("min", f64::NEG_INFINITY, 1, &[3, 5]),
        ("l3", 3.0, 1, &[3, 5]),
        ("l1.5", 1.5, 1, &[3, 5]),
        ("l0.5", 0.5, 1, &[3, 5]),
        ("count", 0.0, 1, &[3, 5]),
    ] {
        let name = format!("normalize-{}-{label}", short(dtype));
        let operation = Operation::Normalize(Normalize { p, dim, eps: 1e-12 });
        let input = values(&name, shape, 0.5, 1.0);
        let step = Call::new(operation, dtype).input(shape, input).step();
        maker.add_all(name, "Lines along an axis come out with length 1.", &[], step);
    }
    for (label, eps, deviation) in [("above-eps", 0.25, 1.0), ("below-eps", 4.0, 0.5), ("near-eps", 2.0, 1.0)] {
        let name = format!("normalize-{}-{label}", short(dtype));
        let operation = Operation::Normalize(Normalize { p: 2.0, dim: 1, eps });
        let input = values(&name, &[6, 4], 0.0, deviation);
        let step = Call::new(operation, dtype).input(&[6, 4], input).step();
        maker.add_all(name, "eps is a lower limit of the norm, not a summand.", &[], step);
    }
    let name = format!("normalize-{}-zeros", short(dtype));
    let operation = Operation::Normalize(Normalize { p: 2.0, dim: 1, eps: 1e-3 });
    let step = Call::new(operation, dtype).input(&[2, 4], vec![0.0; 8]).step();
    maker.add_both(name, "A zero vector stays zero.", &[Flag::ConstantGroup], step);
    let name = format!("normalize-{}-refuses-dim", short(dtype));
    let operation = Operation::Normalize(Normalize { p: 2.0, dim: 2, eps: 1e-12 });
    let input = values(&name, &[2, 4], 0.0, 1.0);
    let step = Call::new(operation, dtype).input(&[2, 4], input).step();
    maker.add_step(name, "An axis that is not there.", &[Flag::Refusal], step);
}

fn renorm(maker: &mut Maker, dtype: DataType) {
    for (label, p, dim, maxnorm, shape) in [
        ("l2", 2.0, 0, 1.0, &[4, 5][..]),
        ("l2-some", 2.0, 0, 2.25, &[6, 5]),
        ("l2-columns", 2.0, 1, 1.5, &[4, 5]),
        ("l2-last", 2.0, -1, 1.5, &[2, 3, 4]),
        ("l2-zero", 2.0, 0, 0.0, &[3, 4]),
        ("l2-none", 2.0, 0, 100.0, &[3, 4]),
        ("l1", 1.0, 0, 2.0, &[4, 5]),
        ("max", f64::INFINITY, 0, 0.75, &[4, 5]),
        ("l3", 3.0, 0, 1.0, &[4, 5]),
    ] {
        let name = format!("renorm-{}-{label}", short(dtype));
        let operation = Operation::Renorm(Renorm { p, dim, maxnorm });
        let input = values(&name, shape, 0.25, 1.0);
        let step = Call::new(operation, dtype).input(shape, input).step();
        maker.add_all(name, "Slices beyond the limit are scaled to it, the others left alone.", &[], step);
    }
    for (label, p, maxnorm, shape) in
        [("rank-1", 2.0, 1.0, &[4][..]), ("p-0", 0.0, 1.0, &[2, 3]), ("maxnorm", 2.0, -1.0, &[2, 3])]
    {
        let name = format!("renorm-{}-refuses-{label}", short(dtype));
        let operation = Operation::Renorm(Renorm { p, dim: 0, maxnorm });
        let input = values(&name, shape, 0.25, 1.0);
        let step = Call::new(operation, dtype).input(shape, input).step();
        maker.add_step(name, "Rank 2 or more, a positive exponent, a limit of 0 or more.", &[Flag::Refusal], step);
    }
}
