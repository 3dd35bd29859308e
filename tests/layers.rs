//! Layers beyond `torch.nn`, a second time: explicit loops over the axes in binary64, written from the papers and not from
//! the definitions, against the truth of every tame case of the catalogue.

use std::collections::{BTreeMap, BTreeSet};

use normative::arithmetic::DataType;
use normative::case::{Case, Flag, Step, catalogue};
use normative::judge::Expected;
use normative::operation::Mode;
use serde_json::Value;

/// A call taken apart.
struct Loops {
    operation: Value,
    train: bool,
    tensors: BTreeMap<String, Vec<f64>>,
    /// N, C, L.
    sizes: [usize; 3],
}

impl Loops {
    fn new(step: &Step) -> Loops {
        let shape = step.tensors["input"].shape();
        let rest = if shape.len() > 2 { shape[2..].iter().product() } else { 1 };
        Loops {
            operation: serde_json::to_value(&step.operation).expect("an operation is JSON"),
            train: step.mode == Mode::Train,
            tensors: step.values(|x| x).into_iter().collect(),
            sizes: [shape.first().copied().unwrap_or(1), shape.get(1).copied().unwrap_or(1), rest],
        }
    }

    fn x(&self) -> &[f64] {
        &self.tensors["input"]
    }

    fn number(&self, name: &str) -> f64 {
        match &self.operation[name] {
            Value::String(text) if text == "inf" => f64::INFINITY,
            value => value.as_f64().unwrap_or_else(|| panic!("{name} of {}", self.operation)),
        }
    }

    fn count(&self, name: &str) -> usize {
        self.number(name) as usize
    }

    /// Element `index` of a tensor, or what stands for it where it was not sent.
    fn of(&self, name: &str, index: usize, absent: f64) -> f64 {
        self.tensors.get(name).map_or(absent, |values| values[index])
    }

    /// The axes of every element.
    fn places(&self) -> Vec<[usize; 3]> {
        let [n, c, l] = self.sizes;
        let mut places = Vec::new();
        for i in 0..n {
            for j in 0..c {
                places.extend((0..l).map(|k| [i, j, k]));
            }
        }
        places
    }

    /// Mean and biased variance (or mean square) of each group of elements, by a key made of their axes.
    fn moments(
        &self,
        values: &[f64],
        centred: bool,
        kept: impl Fn(usize) -> bool,
        key: impl Fn([usize; 3]) -> usize,
    ) -> BTreeMap<usize, (f64, f64, f64)> {
        let mut groups: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for (index, place) in self.places().into_iter().enumerate().filter(|(index, _)| kept(*index)) {
            groups.entry(key(place)).or_default().push(values[index]);
        }
        let moments = |group: Vec<f64>| {
            let count = group.len() as f64;
            let mean = if centred { group.iter().sum::<f64>() / count } else { 0.0 };
            (mean, group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count, count)
        };
        groups.into_iter().map(|(key, group)| (key, moments(group))).collect()
    }

    /// w·(x − μ)/√(v + eps) + b, weight and bias by the axes too.
    fn norm(
        &self,
        centred: bool,
        key: impl Fn([usize; 3]) -> usize,
        affine: impl Fn([usize; 3]) -> (f64, f64),
    ) -> Vec<f64> {
        let moments = self.moments(self.x(), centred, |_| true, &key);
        let eps = self.number("eps");
        let places = self.places().into_iter().zip(self.x());
        let element = |(place, x): ([usize; 3], &f64)| {
            let (mean, variance, _) = moments[&key(place)];
            let (weight, bias) = affine(place);
            weight * (x - mean) / (variance + eps).sqrt() + bias
        };
        places.map(element).collect()
    }

    /// The block of neighbouring channels that a channel is in.
    fn block(&self, channel: usize) -> usize {
        channel / (self.sizes[1] / self.count("num_groups"))
    }

    fn by_channel(&self, [_, c, _]: [usize; 3]) -> (f64, f64) {
        (self.of("weight", c, 1.0), self.of("bias", c, 0.0))
    }

    /// old + m·(new − old)
    fn moved(&self, name: &str, index: usize, new: f64) -> f64 {
        let (old, momentum) = (self.tensors[name][index], self.number("momentum"));
        old + momentum * (new - old)
    }
}

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

type Answer = Vec<(&'static str, Vec<f64>)>;

/// The outputs of a call; `None` for an operation that is not written out here.
fn by_loops(it: &Loops) -> Option<Answer> {
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
        _ => research(it),
    }
}

/// The same for the operations that no framework ships.
fn research(it: &Loops) -> Option<Answer> {
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
        "iter_norm" => Some(whitened(it)),
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

/// Iterative normalization, matrix by matrix.
fn whitened(it: &Loops) -> Answer {
    type Matrix = Vec<Vec<f64>>;
    let [n, c, l] = it.sizes;
    let x = |j: usize| -> Vec<f64> { (0..n).flat_map(|i| it.x()[(i * c + j) * l..][..l].iter().copied()).collect() };
    let rows: Matrix = (0..c).map(x).collect();
    let count = (n * l) as f64;
    let means: Vec<f64> = rows.iter().map(|row| row.iter().sum::<f64>() / count).collect();
    let times = |a: &Matrix, b: &Matrix| -> Matrix {
        (0..c).map(|i| (0..c).map(|j| (0..c).map(|k| a[i][k] * b[k][j]).sum()).collect()).collect()
    };
    let projection: Matrix = if it.train {
        let mut sigma = vec![vec![0.0; c]; c];
        for i in 0..c {
            for j in 0..c {
                let products = rows[i].iter().zip(&rows[j]).map(|(a, b)| (a - means[i]) * (b - means[j]));
                sigma[i][j] = products.sum::<f64>() / count + if i == j { it.number("eps") } else { 0.0 };
            }
        }
        let trace: f64 = (0..c).map(|k| sigma[k][k]).sum();
        let mut p: Matrix = (0..c).map(|i| (0..c).map(|j| f64::from(i == j)).collect()).collect();
        for _ in 0..it.count("iterations") {
            let through = times(&times(&times(&p, &p), &p), &sigma);
            for i in 0..c {
                for j in 0..c {
                    p[i][j] = 1.5 * p[i][j] - 0.5 * through[i][j] / trace;
                }
            }
        }
        p.into_iter().map(|row| row.into_iter().map(|p| p / trace.sqrt()).collect()).collect()
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

/// Cases on which binary64 loses nothing that matters: small means, no constant groups, no NaN.
fn tame(case: &Case) -> bool {
    let wild = [Flag::LargeMean, Flag::NonFinite, Flag::ConstantGroup, Flag::BatchOne, Flag::Refusal];
    case.dtype() == DataType::F64 && case.steps.len() == 1 && !case.flags.iter().any(|flag| wild.contains(flag))
}

#[test]
fn explicit_loops_agree_with_the_truth() {
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    for case in catalogue::cases().iter().filter(|case| tame(case)) {
        let step = &case.steps[0];
        let Some(answer) = by_loops(&Loops::new(step)) else { continue };
        let Expected::Tensors { tensors, .. } = Expected::of(step) else { panic!("{} is refused", case.name) };
        let names: BTreeSet<&str> = answer.iter().map(|(name, _)| *name).collect();
        let known = tensors.keys().filter(|name| !name.starts_with("grad")).map(String::as_str).collect();
        assert_eq!(names, known, "{}", case.name);
        for (name, values) in answer {
            let truth = &tensors[name];
            assert_eq!(values.len(), truth.rounded.len(), "{} {name}", case.name);
            for (index, (computed, rounded)) in values.iter().zip(&truth.rounded).enumerate() {
                // Sums of at most two thousand terms of size 1, in binary64.
                let error = (computed - rounded).abs();
                assert!(error <= 1e-11 * (1.0 + rounded.abs()), "{} {name}[{index}]: {computed} {rounded}", case.name);
            }
        }
        *compared.entry(step.operation.name()).or_insert(0) += 1;
    }
    assert_eq!(compared.len(), 49, "{compared:?}");
    assert!(compared.values().all(|&count| count >= 5), "{compared:?}");
}

/// The comparison compares: loops over another axis are noticed.
#[test]
fn loops_over_another_axis_disagree() {
    let case = catalogue::cases().iter().find(|case| case.name == "layer_norm_2d-f64-plain").expect("a case");
    let Expected::Tensors { tensors, .. } = Expected::of(&case.steps[0]) else { panic!("refused") };
    let it = Loops::new(&case.steps[0]);
    let other = it.norm(true, |[i, _, _]| i, |place| it.by_channel(place));
    let differs = other.iter().zip(&tensors["output"].rounded).filter(|(a, b)| (*a - *b).abs() > 1e-3);
    assert!(differs.count() > 10);
}

/// `normative table operations` is what docs/operations.md says.
#[test]
fn the_table_of_operations_is_that_of_the_documentation() {
    let mut command = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("normative"));
    let output = command.args(["table", "operations"]).output().expect("it runs");
    let table = String::from_utf8(output.stdout).expect("text");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let text = std::fs::read_to_string(path).expect("the documentation can be read");
    assert!(
        table.lines().count() > 40 && text.contains(table.trim()),
        "docs/operations.md: normative table operations"
    );
}
