//! The layers that no framework ships, in explicit loops.

use super::{Answer, Loops};

/// The outputs of a call; `None` for an operation that is not written out here.
pub fn by_loops(it: &Loops) -> Option<Answer> {
    let [n, c, l] = it.sizes;
    let (x, places) = (it.x(), it.places());
    let eps = it.operation["eps"].as_f64().unwrap_or(0.0);
    let name = it.operation["name"].as_str()?;
    let channels = it.moments(x, true, |_| true, |[_, j, _]| j);
    let instances = it.moments(x, true, |_| true, |[i, j, _]| i * c + j);
    let samples = it.moments(x, true, |_| true, |[i, _, _]| i);
    let stored = |name: &str, index: usize| it.tensors[name][index];
    let each = |f: &dyn Fn(usize, usize, usize, f64) -> f64| -> Vec<f64> {
        let element =
            |(&[i, j, k], &x): (&[usize; 3], &f64)| it.of("weight", j, 1.0) * f(i, j, k, x) + it.of("bias", j, 0.0);
        places.iter().zip(x).map(element).collect()
    };
    let state = |name: &'static str, new: &dyn Fn(usize) -> f64| {
        let moved = |j: usize| if it.train { it.moved(name, j, new(j)) } else { it.tensors[name][j] };
        (name, (0..it.tensors[name].len()).map(moved).collect::<Vec<f64>>())
    };
    // The batch's mean and variance in training, those that are stored in evaluation.
    let seen = |j: usize| match it.train {
        true => (channels[&j].0, channels[&j].1),
        false => (stored("running_mean", j), stored("running_var", j)),
    };
    let unbiased = |j: usize| channels[&j].1 * channels[&j].2 / (channels[&j].2 - 1.0);
    let mean_square = |j: usize| channels[&j].1 + channels[&j].0.powi(2);
    match name {
        "online_norm" => Some(online(it)),
        "online_norm_backward" => Some(online_backward(it)),
        "power_norm_backward" => {
            let (m, z) = (it.number("momentum"), &it.tensors["normalized"]);
            let (mut output, mut along) = (x.to_vec(), it.tensors["error_along"].clone());
            // The paper's ν, which is m times what is stored.
            for (j, error) in along.iter_mut().enumerate() {
                let nu = m * *error;
                let of_channel: Vec<usize> = (0..x.len()).filter(|index| index / l % c == j).collect();
                let mean = |f: &dyn Fn(usize) -> f64| of_channel.iter().map(|&k| f(k)).sum::<f64>() / (n * l) as f64;
                let (gamma, lambda) = (mean(&|k| z[k] * z[k]), mean(&|k| x[k] * z[k]));
                for &k in &of_channel {
                    output[k] = (x[k] - nu * z[k]) / it.tensors["sigma"][j];
                }
                *error = if m == 0.0 { *error + lambda } else { (nu * (1.0 - m * gamma) + m * lambda) / m };
            }
            Some(vec![("output", output), ("error_along", along)])
        }
        "moving_average_batch_norm" => {
            let history = &it.tensors["history"];
            let batches = history.len() / c + 1;
            let average = |j: usize| {
                ((0..batches - 1).map(|k| history[k * c + j]).sum::<f64>() + mean_square(j)) / batches as f64
            };
            let output = each(&|_, j, _, x| {
                let (own, running) = ((average(j) + eps).sqrt(), (stored("running_square", j) + eps).sqrt());
                let limited = (own / running).clamp(0.2, 5.0);
                if it.train { x / own * limited } else { x / running }
            });
            let mut next = history.clone();
            if it.train && batches > 1 {
                next = history[c..].to_vec();
                next.extend((0..c).map(mean_square));
            }
            Some(vec![("output", output), ("history", next), state("running_square", &average)])
        }
        "power_norm" => {
            let own = it.train && it.operation["warmup"].as_bool()?;
            let square = |j: usize| if own { mean_square(j) } else { stored("running_square", j) };
            let output = each(&|_, j, _, x| x / (square(j) + eps).sqrt());
            Some(vec![("output", output), state("running_square", &mean_square)])
        }
        "switchable_norm" => {
            let weights = |name: &str| {
                let powers: Vec<f64> = it.tensors[name].iter().map(|logit| logit.exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(|power| power / sum).collect::<Vec<f64>>()
            };
            let (p, q) = (weights("mean_logits"), weights("var_logits"));
            let output = each(&|i, j, _, x| {
                let (of_instance, of_layer, of_batch) = (instances[&(i * c + j)], samples[&i], seen(j));
                let mean = p[0] * of_instance.0 + p[1] * of_layer.0 + p[2] * of_batch.0;
                let variance = q[0] * of_instance.1 + q[1] * of_layer.1 + q[2] * of_batch.1;
                (x - mean) / (variance + eps).sqrt()
            });
            let mean = state("running_mean", &|j| channels[&j].0);
            Some(vec![("output", output), mean, state("running_var", &|j| channels[&j].1)])
        }
        "batch_instance_norm" | "batch_channel_norm" => {
            let whole = name == "batch_channel_norm";
            let output = each(&|i, j, _, x| {
                let (mean, variance) = seen(j);
                let own = if whole { samples[&i] } else { instances[&(i * c + j)] };
                let rho = stored("rho", if whole { 0 } else { j });
                rho * (x - mean) / (variance + eps).sqrt() + (1.0 - rho) * (x - own.0) / (own.1 + eps).sqrt()
            });
            let mean = state("running_mean", &|j| channels[&j].0);
            Some(vec![("output", output), mean, state("running_var", &unbiased)])
        }
        "iter_norm" | "decorrelated_batch_norm" => Some(whitened(it)),
        "positional_norm" => {
            let unbiased = it.operation["unbiased"].as_bool()?;
            let pixels = it.moments(x, true, |_| true, |[i, _, k]| i * l + k);
            let output = each(&|i, _, k, x| {
                let (mean, variance, count) = pixels[&(i * l + k)];
                let variance = if unbiased { variance * count / (count - 1.0) } else { variance };
                (x - mean) / (variance + eps).sqrt()
            });
            Some(vec![("output", output)])
        }
        "mean_only_batch_norm" => {
            let tracked = it.tensors.contains_key("running_mean");
            let mean = |j: usize| if tracked && !it.train { stored("running_mean", j) } else { channels[&j].0 };
            let mut answer = vec![("output", each(&|_, j, _, x| x - mean(j)))];
            if tracked {
                answer.push(state("running_mean", &|j| channels[&j].0));
            }
            Some(answer)
        }
        "l1_batch_norm" => {
            let scale = |j: usize| {
                let own = places.iter().zip(x).filter(|(place, _)| place[1] == j);
                let sum: f64 = own.map(|(_, x)| (x - channels[&j].0).abs()).sum();
                sum / channels[&j].2 * std::f64::consts::FRAC_PI_2.sqrt()
            };
            let output = each(&|_, j, _, x| match it.train {
                true => (x - channels[&j].0) / (scale(j) + eps),
                false => (x - stored("running_mean", j)) / (stored("running_scale", j) + eps),
            });
            let mean = state("running_mean", &|j| channels[&j].0);
            Some(vec![("output", output), mean, state("running_scale", &scale)])
        }
        "virtual_batch_norm" => {
            let reference = &it.tensors["reference"];
            let output = each(&|i, j, _, x0| {
                let mut values: Vec<f64> = Vec::new();
                for (&[s, channel, _], &x) in places.iter().zip(x) {
                    if (s, channel) == (i, j) {
                        values.push(x);
                    }
                }
                for (index, &value) in reference.iter().enumerate() {
                    if index / l % c == j {
                        values.push(value);
                    }
                }
                let count = values.len() as f64;
                let mean = values.iter().sum::<f64>() / count;
                let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
                (x0 - mean) / (variance + eps).sqrt()
            });
            Some(vec![("output", output)])
        }
        "extended_batch_norm" => {
            let total: f64 = places.iter().zip(x).map(|(place, x)| (x - channels[&place[1]].0).powi(2)).sum();
            let variance = total / (n * c * l) as f64;
            let output = each(&|_, j, _, x| match it.train {
                true => (x - channels[&j].0) / (variance + eps).sqrt(),
                false => (x - stored("running_mean", j)) / (stored("running_var", 0) + eps).sqrt(),
            });
            let mean = state("running_mean", &|j| channels[&j].0);
            Some(vec![("output", output), mean, state("running_var", &|_| variance)])
        }
        "proxy_norm" => {
            let output = each(&|_, j, _, x| {
                let (mean, deviation) = (it.of("proxy_shift", j, 0.0), (1.0 + it.of("proxy_scale", j, 0.0)).abs());
                let (first, second) = rectified_normal(mean, deviation);
                (x.max(0.0) - first) / (second - first * first + eps).sqrt()
            });
            Some(vec![("output", output)])
        }
        "batch_group_norm" => {
            let groups = it.moments(x, true, |_| true, |[_, j, _]| it.block(j));
            let output = each(&|_, j, _, x| {
                let group = it.block(j);
                let (mean, variance) = match it.train {
                    true => (groups[&group].0, groups[&group].1),
                    false => (stored("running_mean", group), stored("running_var", group)),
                };
                (x - mean) / (variance + eps).sqrt()
            });
            let mean = state("running_mean", &|g| groups[&g].0);
            Some(vec![("output", output), mean, state("running_var", &|g| groups[&g].1)])
        }
        "adaptive_batch_norm" => {
            let (source, count) = (it.number("source_count"), n as f64);
            let output = each(&|_, j, _, x| {
                let mean = (source * stored("running_mean", j) + count * channels[&j].0) / (source + count);
                let variance = (source * stored("running_var", j) + count * channels[&j].1) / (source + count);
                (x - mean) / (variance + eps).sqrt()
            });
            Some(vec![("output", output)])
        }
        "unit_norm_step" => {
            let (block, alpha) = (&it.tensors["block"], &it.tensors["alpha"]);
            let unit = |row: &[f64]| -> Vec<f64> {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(eps);
                row.iter().map(|x| x / norm).collect()
            };
            let mut output = Vec::new();
            for (row, block) in x.chunks(l).zip(block.chunks(l)) {
                let towards = unit(block);
                let moved: Vec<f64> = (0..l).map(|k| row[k] + alpha[k] * (towards[k] - row[k])).collect();
                output.extend(unit(&moved));
            }
            Some(vec![("output", output)])
        }
        _ => None,
    }
}

/// Online norm sample by sample, as the paper's listing has it: with α, the weight of the old.
fn online(it: &Loops) -> Answer {
    let [n, c, l] = it.sizes;
    let (eps, alpha) = (it.number("eps"), 1.0 - it.number("momentum"));
    let (mut mean, mut variance) = (it.tensors["running_mean"].clone(), it.tensors["running_var"].clone());
    let mut output = Vec::new();
    for sample in it.x().chunks(c * l).take(n) {
        let mut z = Vec::new();
        for (j, row) in sample.chunks(l).enumerate() {
            let sigma = (variance[j] + eps).sqrt();
            z.extend(row.iter().map(|x| (x - mean[j]) / sigma * it.of("weight", j, 1.0) + it.of("bias", j, 0.0)));
            if it.train {
                let own = row.iter().sum::<f64>() / l as f64;
                let spread = row.iter().map(|x| (x - own).powi(2)).sum::<f64>() / l as f64;
                variance[j] =
                    alpha * variance[j] + (1.0 - alpha) * spread + alpha * (1.0 - alpha) * (own - mean[j]).powi(2);
                mean[j] = alpha * mean[j] + (1.0 - alpha) * own;
            }
        }
        if it.operation["layer_scaling"] == true {
            let root = (z.iter().map(|z| z * z).sum::<f64>() / (c * l) as f64 + eps).sqrt();
            z.iter_mut().for_each(|z| *z /= root);
        }
        output.extend(z);
    }
    vec![("output", output), ("running_mean", mean), ("running_var", variance)]
}

fn online_backward(it: &Loops) -> Answer {
    let [_, c, l] = it.sizes;
    let m = it.number("momentum");
    let (mut along, mut mean) = (it.tensors["error_along"].clone(), it.tensors["error_mean"].clone());
    let mut output = Vec::new();
    for (row, gradient) in it.x().chunks(l).enumerate() {
        let (j, y) = (row % c, &it.tensors["normalized"][row * l..][..l]);
        let straight: Vec<f64> = gradient.iter().zip(y).map(|(g, y)| g - m * along[j] * y).collect();
        let through: Vec<f64> = straight.iter().map(|g| g / it.tensors["sigma"][row] - m * mean[j]).collect();
        along[j] += straight.iter().zip(y).map(|(g, y)| g * y).sum::<f64>() / l as f64;
        mean[j] += through.iter().sum::<f64>() / l as f64;
        output.extend(through);
    }
    vec![("output", output), ("error_along", along), ("error_mean", mean)]
}

/// Rows of a square matrix.
type Matrix = Vec<Vec<f64>>;

/// A layer that whitens the channels, matrix by matrix.
fn whitened(it: &Loops) -> Answer {
    let [n, c, l] = it.sizes;
    let x = |j: usize| -> Vec<f64> { (0..n).flat_map(|i| it.x()[(i * c + j) * l..][..l].iter().copied()).collect() };
    let rows: Matrix = (0..c).map(x).collect();
    let count = (n * l) as f64;
    let means: Vec<f64> = rows.iter().map(|row| row.iter().sum::<f64>() / count).collect();
    let projection: Matrix = if it.train {
        let mut sigma = vec![vec![0.0; c]; c];
        for i in 0..c {
            for j in 0..c {
                let products = rows[i].iter().zip(&rows[j]).map(|(a, b)| (a - means[i]) * (b - means[j]));
                sigma[i][j] = products.sum::<f64>() / count + if i == j { it.number("eps") } else { 0.0 };
            }
        }
        if it.operation["name"] == "iter_norm" {
            by_newton(&sigma, it.count("iterations"))
        } else {
            inverse_root(&sigma)
        }
    } else {
        it.tensors["running_projection"].chunks(c).map(<[f64]>::to_vec).collect()
    };
    let centre = if it.train { means.clone() } else { it.tensors["running_mean"].clone() };
    let element = |(index, [_, j, _]): (usize, [usize; 3])| {
        let (sample, position) = (index / (c * l), index % l);
        let at = |k: usize| it.x()[(sample * c + k) * l + position] - centre[k];
        let y: f64 = (0..c).map(|k| projection[j][k] * at(k)).sum();
        it.of("weight", j, 1.0) * y + it.of("bias", j, 0.0)
    };
    let output = it.places().into_iter().enumerate().map(element).collect();
    let state = |name: &'static str, new: &dyn Fn(usize) -> f64| {
        let moved = |j: usize| if it.train { it.moved(name, j, new(j)) } else { it.tensors[name][j] };
        (name, (0..it.tensors[name].len()).map(moved).collect::<Vec<f64>>())
    };
    let mean = state("running_mean", &|j| means[j]);
    vec![("output", output), mean, state("running_projection", &|k| projection[k / c][k % c])]
}

fn identity(size: usize) -> Matrix {
    (0..size).map(|i| (0..size).map(|j| f64::from(i == j)).collect()).collect()
}

/// Newton's iteration for the inverse root, as many steps as are asked for.
fn by_newton(sigma: &Matrix, iterations: usize) -> Matrix {
    let c = sigma.len();
    let times = |a: &Matrix, b: &Matrix| -> Matrix {
        (0..c).map(|i| (0..c).map(|j| (0..c).map(|k| a[i][k] * b[k][j]).sum()).collect()).collect()
    };
    let trace: f64 = (0..c).map(|k| sigma[k][k]).sum();
    let mut p = identity(c);
    for _ in 0..iterations {
        let through = times(&times(&times(&p, &p), &p), sigma);
        for i in 0..c {
            for j in 0..c {
                p[i][j] = 1.5 * p[i][j] - 0.5 * through[i][j] / trace;
            }
        }
    }
    p.into_iter().map(|row| row.into_iter().map(|p| p / trace.sqrt()).collect()).collect()
}

/// Σ^(−1/2) without eigenvectors, by the iteration of Denman and Beavers: Y ← (Y + Z⁻¹)/2, Z ← (Z + Y⁻¹)/2, from Σ and I.
fn inverse_root(sigma: &Matrix) -> Matrix {
    let c = sigma.len();
    let half_sum = |a: &Matrix, b: &Matrix| -> Matrix {
        (0..c).map(|i| (0..c).map(|j| 0.5 * (a[i][j] + b[i][j])).collect()).collect()
    };
    let (mut y, mut z) = (sigma.clone(), identity(c));
    for _ in 0..40 {
        (y, z) = (half_sum(&y, &inverse(&z)), half_sum(&z, &inverse(&y)));
    }
    z
}

/// The inverse of a positive definite matrix, by elimination.
fn inverse(matrix: &Matrix) -> Matrix {
    let c = matrix.len();
    let (mut left, mut right) = (matrix.clone(), identity(c));
    for pivot in 0..c {
        let divisor = left[pivot][pivot];
        for j in 0..c {
            left[pivot][j] /= divisor;
            right[pivot][j] /= divisor;
        }
        for row in (0..c).filter(|&row| row != pivot) {
            let factor = left[row][pivot];
            for j in 0..c {
                left[row][j] -= factor * left[pivot][j];
                right[row][j] -= factor * right[pivot][j];
            }
        }
    }
    right
}

/// E max(Z, 0) and E max(Z, 0)², by Simpson's rule from 0 to 12 deviations above the mean.
fn rectified_normal(mean: f64, deviation: f64) -> (f64, f64) {
    let (steps, end) = (20_000, mean.max(0.0) + 12.0 * deviation);
    let step = end / f64::from(steps);
    let integral = |power: i32| {
        let term = |k: i32| {
            let weight = if k == 0 || k == steps { 1.0 } else { f64::from(2 + 2 * (k % 2)) };
            let z = step * f64::from(k);
            weight * z.powi(power) * (-((z - mean) / deviation).powi(2) / 2.0).exp()
        };
        (0..=steps).map(term).sum::<f64>() * step / 3.0 / (deviation * (2.0 * std::f64::consts::PI).sqrt())
    };
    (integral(1), integral(2))
}
