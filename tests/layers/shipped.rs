//! The layers that frameworks ship beyond `torch.nn`, in explicit loops.

use super::{Answer, Loops};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Its integral, by Simpson's rule in four thousand steps.
fn erf(x: f64) -> f64 {
    let steps = 4000;
    let step = x / f64::from(steps);
    let term = |k: i32| {
        let weight = match k {
            0 => 1.0,
            _ if k == steps => 1.0,
            _ => f64::from(2 + 2 * (k % 2)),
        };
        weight * (-(step * f64::from(k)).powi(2)).exp()
    };
    (0..=steps).map(term).sum::<f64>() * step / 3.0 * std::f64::consts::FRAC_2_SQRT_PI
}

/// The outputs of a call; `None` for an operation that is not written out here.
pub fn by_loops(it: &Loops) -> Option<Answer> {
    let [n, c, l] = it.sizes;
    let (x, places) = (it.x(), it.places());
    let eps = it.operation["eps"].as_f64().unwrap_or(0.0);
    let output = |values: Vec<f64>| Some(vec![("output", values)]);
    let elementwise = |f: &dyn Fn([usize; 3], f64, usize) -> f64| -> Vec<f64> {
        places.iter().zip(x).enumerate().map(|(index, (&place, &x))| f(place, x, index)).collect()
    };
    match it.operation["name"].as_str()? {
        "layer_norm_2d" => output(it.norm(true, |[i, _, k]| i * l + k, |place| it.by_channel(place))),
        "pixel_norm" => output(it.norm(false, |[i, _, k]| i * l + k, |_| (1.0, 0.0))),
        "layer_norm_1p" => output(it.norm(
            true,
            |[i, _, _]| i,
            |[_, j, k]| (1.0 + it.of("weight", j * l + k, 0.0), it.of("bias", j * l + k, 0.0)),
        )),
        "simple_norm" => {
            let moments = it.moments(x, true, |_| true, |[i, _, _]| i);
            output(elementwise(&|[i, j, k], x, _| {
                let (_, variance, count) = moments[&i];
                x / (variance * count / (count - 1.0) + eps).sqrt() * it.of("weight", j * l + k, 1.0)
            }))
        }
        "qk_norm" => {
            let queries = it.norm(false, |[i, j, _]| i * c + j, |[_, _, k]| (it.of("weight", k, 1.0), 0.0));
            let mut keys = Vec::new();
            for row in it.tensors["key"].chunks(l) {
                let square = row.iter().map(|x| x * x).sum::<f64>() / l as f64;
                let key = |(k, x): (usize, &f64)| x / (square + eps).sqrt() * it.of("key_weight", k, 1.0);
                keys.extend(row.iter().enumerate().map(key));
            }
            Some(vec![("output", queries), ("key_output", keys)])
        }
        "rms_norm_gated" => {
            let size = it.operation["group_size"].as_u64().map_or(l, |size| size as usize);
            let silu = |index: usize| it.tensors.get("gate").map_or(1.0, |z| z[index] * sigmoid(z[index]));
            let after = it.operation["norm_before_gate"].as_bool()?;
            let u: Vec<f64> = x.iter().enumerate().map(|(k, x)| if after { *x } else { x * silu(k) }).collect();
            let key = |[i, j, k]: [usize; 3]| (i * c + j) * l + k / size;
            let squares = it.moments(&u, false, |_| true, key);
            output(elementwise(&|place, _, index| {
                let y = u[index] / (squares[&key(place)].1 + eps).sqrt() * it.of("weight", place[2], 1.0);
                if after { y * silu(index) } else { y }
            }))
        }
        "filter_response_norm" => {
            let mut z = it.norm(false, |[i, j, _]| i * c + j, |place| it.by_channel(place));
            for (z, [_, j, _]) in z.iter_mut().zip(&places) {
                *z = z.max(it.of("tau", *j, f64::NEG_INFINITY));
            }
            output(z)
        }
        "ada_layer_norm" => output(it.norm(
            true,
            |[i, j, _]| i * c + j,
            |[i, _, k]| (1.0 + it.of("scale", i * l + k, 0.0), it.of("shift", i * l + k, 0.0)),
        )),
        "ada_group_norm" => output(it.norm(
            true,
            |[i, j, _]| i * c + it.block(j),
            |[i, j, _]| (1.0 + it.of("scale", i * c + j, 0.0), it.of("shift", i * c + j, 0.0)),
        )),
        "ada_instance_norm" => {
            let style = &it.tensors["style"];
            let length = style.len() / (n * c);
            output(it.norm(
                true,
                |[i, j, _]| i * c + j,
                |[i, j, _]| {
                    let own = &style[(i * c + j) * length..][..length];
                    let mean = own.iter().sum::<f64>() / length as f64;
                    let variance = own.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / length as f64;
                    ((variance + eps).sqrt(), mean)
                },
            ))
        }
        "film" => {
            output(elementwise(&|[i, j, _], x, _| it.tensors["gamma"][i * c + j] * x + it.tensors["beta"][i * c + j]))
        }
        "spade" | "ghost_batch_norm" | "split_batch_norm" | "masked_batch_norm" => Some(batch_like(it)),
        "weight_standardization" => output(it.norm(true, |[i, _, _]| i, |_| (1.0, 0.0))),
        "scaled_weight_standardization" => {
            let size = it.number("gamma") / ((c * l) as f64).sqrt();
            output(it.norm(true, |[i, _, _]| i, |[i, _, _]| (it.of("gain", i, 1.0) * size, 0.0)))
        }
        "masked_layer_norm" => output(masked(it, |[i, _, _]| i, |[_, j, k]| j * l + k)),
        "masked_group_norm" => output(masked(it, |[i, j, _]| i * c + it.block(j), |[_, j, _]| j)),
        "scale_norm" => {
            let length = |row: usize| x[row * l..][..l].iter().map(|x| x * x).sum::<f64>().sqrt();
            output(elementwise(&|[i, j, _], x, _| it.of("weight", 0, 1.0) * x / length(i * c + j).max(eps)))
        }
        "global_response_norm" => {
            let norm = |i: usize, j: usize| x[(i * c + j) * l..][..l].iter().map(|x| x * x).sum::<f64>().sqrt();
            output(elementwise(&|[i, j, _], x, _| {
                let mean = (0..c).map(|j| norm(i, j)).sum::<f64>() / c as f64;
                it.tensors["weight"][j] * x * norm(i, j) / (mean + eps) + it.tensors["bias"][j] + x
            }))
        }
        "dynamic_tanh" => output(elementwise(&|[_, _, k], x, _| {
            it.of("weight", k, 1.0) * (it.tensors["alpha"][0] * x).tanh() + it.of("bias", k, 0.0)
        })),
        "dynamic_erf" => output(elementwise(&|[_, _, k], x, _| {
            let argument = it.tensors["alpha"][0] * x + it.of("shift", 0, 0.0);
            it.of("weight", k, 1.0) * erf(argument) + it.of("bias", k, 0.0)
        })),
        "weight_demodulation" => {
            let style = &it.tensors["style"];
            let mut demodulated = Vec::new();
            for sample in style.chunks(c) {
                for o in 0..n {
                    let modulated: Vec<f64> = (0..c * l).map(|k| x[o * c * l + k] * sample[k / l]).collect();
                    let square = modulated.iter().map(|u| u * u).sum::<f64>();
                    demodulated.extend(modulated.iter().map(|u| u / (square + eps).sqrt()));
                }
            }
            output(demodulated)
        }
        "evo_norm_b0" | "evo_norm_b1" | "evo_norm_b2" => Some(evolved_batch(it)),
        "evo_norm_s0" | "evo_norm_s1" | "evo_norm_s2" => {
            let centred = it.operation["name"] != "evo_norm_s2";
            let key = |[i, j, _]: [usize; 3]| i * c + it.block(j);
            let moments = it.moments(x, centred, |_| true, key);
            output(elementwise(&|place, x, _| {
                let (weight, bias) = it.by_channel(place);
                let act = x * sigmoid(it.of("v", place[1], 1.0) * x);
                act / (moments[&key(place)].1 + eps).sqrt() * weight + bias
            }))
        }
        "batch_renorm" => Some(renormalized(it)),
        "precise_batch_norm_statistics" => {
            // Batch by batch, as the population is seen.
            let (mut mean, mut square, mut count) = (vec![0.0; c], vec![0.0; c], 0.0);
            let mut first = 0;
            for split in it.operation["splits"].as_array()?.iter().map(|split| split.as_u64().unwrap_or(0) as usize) {
                let batch = x.iter().zip(&places).filter(|(_, [i, _, _])| (first..first + split).contains(i));
                for (x, [_, j, _]) in batch {
                    mean[*j] += x;
                    square[*j] += x * x;
                }
                first += split;
                count += (split * l) as f64;
            }
            let means: Vec<f64> = mean.iter().map(|sum| sum / count).collect();
            let variances = square.iter().zip(&means).map(|(sum, mean)| sum / count - mean * mean).collect();
            Some(vec![("running_mean", means), ("running_var", variances)])
        }
        _ => None,
    }
}

fn masked(it: &Loops, key: impl Fn([usize; 3]) -> usize, parameter: impl Fn([usize; 3]) -> usize) -> Vec<f64> {
    let mask = &it.tensors["mask"];
    let moments = it.moments(it.x(), true, |index| mask[index] != 0.0, &key);
    let element = |(place, x): ([usize; 3], &f64)| {
        let (mean, variance, _) = moments[&key(place)];
        let parameter = parameter(place);
        let y = (x - mean) / (variance + it.number("eps")).sqrt();
        it.of("weight", parameter, 1.0) * y + it.of("bias", parameter, 0.0)
    };
    it.places().into_iter().zip(it.x()).map(element).collect()
}

/// Batch norm and what splits, masks or modulates it: by the part of the batch that an element is in.
fn batch_like(it: &Loops) -> Answer {
    let [n, c, _] = it.sizes;
    let name = it.operation["name"].as_str().unwrap_or_default();
    let parts = match name {
        "ghost_batch_norm" => n / it.count("batch_size"),
        "split_batch_norm" => it.count("num_splits"),
        _ => 1,
    };
    let tracked = it.tensors.contains_key("running_mean");
    let stored = tracked && !it.train;
    let key = |[i, j, _]: [usize; 3]| if stored { j } else { i / (n / parts) * c + j };
    let kept = |index: usize| it.tensors.get("mask").is_none_or(|mask| mask[index] != 0.0);
    let moments = it.moments(it.x(), true, kept, key);
    let eps = it.number("eps");
    let element = |(index, (place, x)): (usize, ([usize; 3], &f64))| {
        let [_, j, _] = place;
        let (mean, variance) = match stored {
            true => (it.tensors["running_mean"][j], it.tensors["running_var"][j]),
            false => (moments[&key(place)].0, moments[&key(place)].1),
        };
        let (weight, bias) = match name {
            "spade" => (1.0 + it.of("gamma", index, 0.0), it.of("beta", index, 0.0)),
            "split_batch_norm" => (it.of("weight", key(place), 1.0), it.of("bias", key(place), 0.0)),
            _ => it.by_channel(place),
        };
        weight * (x - mean) / (variance + eps).sqrt() + bias
    };
    let mut answer = vec![("output", it.places().into_iter().zip(it.x()).enumerate().map(element).collect())];
    if tracked {
        let (mut mean, mut variance) = (it.tensors["running_mean"].clone(), it.tensors["running_var"].clone());
        let moves: Vec<(usize, (f64, f64, f64))> = if it.train { moments.into_iter().collect() } else { Vec::new() };
        let momentum = it.number("momentum");
        for (group, (new_mean, new_variance, count)) in moves {
            let place = if name == "split_batch_norm" { group } else { group % c };
            let bessel = if name == "masked_batch_norm" { 1.0 } else { count / (count - 1.0) };
            mean[place] = (1.0 - momentum) * mean[place] + momentum * new_mean;
            variance[place] = (1.0 - momentum) * variance[place] + momentum * new_variance * bessel;
        }
        answer.extend([("running_mean", mean), ("running_var", variance)]);
    }
    answer
}

fn evolved_batch(it: &Loops) -> Answer {
    let [_, c, _] = it.sizes;
    let name = it.operation["name"].as_str().unwrap_or_default();
    let batch = it.moments(it.x(), true, |_| true, |[_, j, _]| j);
    let instances = it.moments(it.x(), name == "evo_norm_b0", |_| true, |[i, j, _]| i * c + j);
    let (eps, tracked) = (it.number("eps"), it.tensors.contains_key("running_var"));
    let element = |(place, x): ([usize; 3], &f64)| {
        let [i, j, _] = place;
        let variance = if tracked && !it.train { it.tensors["running_var"][j] } else { batch[&j].1 };
        let instance = (instances[&(i * c + j)].1 + eps).sqrt();
        let right = match name {
            "evo_norm_b0" => it.of("v", j, 1.0) * x + instance,
            "evo_norm_b1" => (x + 1.0) * instance,
            _ => instance - x,
        };
        let (weight, bias) = it.by_channel(place);
        x / (variance + eps).sqrt().max(right) * weight + bias
    };
    let mut answer = vec![("output", it.places().into_iter().zip(it.x()).map(element).collect())];
    if tracked {
        let moved = |(&channel, &(_, variance, count)): (&usize, &(f64, f64, f64))| match it.train {
            true => it.moved("running_var", channel, variance * count / (count - 1.0)),
            false => it.tensors["running_var"][channel],
        };
        answer.push(("running_var", batch.iter().map(moved).collect()));
    }
    answer
}

fn renormalized(it: &Loops) -> Answer {
    let batch = it.moments(it.x(), true, |_| true, |[_, j, _]| j);
    let (r_max, d_max, eps) = (it.number("r_max"), it.number("d_max"), it.number("eps"));
    let (means, deviations) = (&it.tensors["running_mean"], &it.tensors["running_std"]);
    let element = |(place, x): ([usize; 3], &f64)| {
        let [_, j, _] = place;
        let (mean, variance, _) = batch[&j];
        let sigma = (variance + eps).sqrt();
        let y = match it.train {
            false => (x - means[j]) / deviations[j],
            true => {
                let r = (sigma / deviations[j]).max(1.0 / r_max).min(r_max);
                let d = ((mean - means[j]) / deviations[j]).max(-d_max).min(d_max);
                (x - mean) / sigma * r + d
            }
        };
        let (weight, bias) = it.by_channel(place);
        weight * y + bias
    };
    let output = it.places().into_iter().zip(it.x()).map(element).collect();
    let state = |name: &'static str, new: &dyn Fn(usize) -> f64| {
        let values = 0..it.tensors[name].len();
        let moved = |j: usize| if it.train { it.moved(name, j, new(j)) } else { it.tensors[name][j] };
        (name, values.map(moved).collect::<Vec<f64>>())
    };
    let mean = state("running_mean", &|j| batch[&j].0);
    vec![("output", output), mean, state("running_std", &|j| (batch[&j].1 + eps).sqrt())]
}
