//! A snippet of Python that computes the expected element again with numpy alone, and shows the actual one.

use std::path::Path;

use super::{decimal, hexadecimal};
use crate::arithmetic::{DataType, Factor};
use crate::case::Step;
use crate::judge::{Expected, Worst};
use crate::operation::{Average, Operation, Plan, Source as Statistics};
use crate::tensor::{Tensor, Tensors};

/// Above this many elements the tensors are read from the file, if there is one.
const INLINE: usize = 64;
/// Above this many elements a snippet without a file would be unreadable.
const READABLE: usize = 512;
/// The tensors that formulas use.
const NAMES: [&str; 5] = ["input", "weight", "bias", "running_mean", "running_var"];

/// Where a snippet takes its tensors from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source<'a> {
    /// A golden file that has the case, if there is one.
    pub file: Option<&'a Path>,
    /// The case's name.
    pub case: &'a str,
    /// The step's number.
    pub step: usize,
}

/// The snippet for one element of an answer to `call`: it runs as it is, and prints the expected value and, if there is
/// one, the actual value. `None` where there is no formula in numpy or the tensors are too large to be written out.
pub fn snippet(call: &Step, expected: &Expected, worst: &Worst, actual: bool, source: Source<'_>) -> Option<String> {
    let Expected::Tensors { plan, .. } = expected else { return None };
    let formula = formula(&call.operation, plan, &call.tensors, &worst.tensor)?;
    let elements: usize = call.tensors.values().map(Tensor::len).sum();
    let file = source.file.filter(|_| elements > INLINE);
    if file.is_none() && elements > READABLE {
        return None;
    }
    let mut lines = vec![if file.is_some() { "import json, numpy as np" } else { "import numpy as np" }.to_owned()];
    if let Some(file) = file {
        lines.extend(reader(file, source));
    }
    let wide = if call.tensors["input"].dtype() == DataType::F64 { "np.longdouble" } else { "np.float64" };
    let used = |name: &str| NAMES.contains(&name) && formula.iter().any(|line| line.contains(name));
    for (name, tensor) in call.tensors.iter().filter(|(name, _)| used(name)) {
        let values = match file {
            Some(_) => format!("tensor(\"request/{name}\")"),
            None => array(tensor),
        };
        lines.push(format!("{name} = {values}.astype({wide})"));
    }
    lines.extend(formula);
    let index: Vec<String> = worst.index.iter().map(usize::to_string).collect();
    let index = index.join(", ");
    lines.push(format!("expected = float(result[{index}])"));
    lines.push("print(\"expected\", expected, expected.hex())".to_owned());
    if actual {
        lines.push(match file {
            Some(_) => format!("actual = float(tensor(\"answer/{}\")[{index}])", worst.tensor),
            None => format!("actual = float.fromhex(\"{}\")", hexadecimal(worst.actual)),
        });
        lines.push("print(\"actual  \", actual, actual.hex())".to_owned());
    }
    Some(lines.join("\n"))
}

/// Reads a golden file without any library but numpy.
fn reader(file: &Path, source: Source<'_>) -> Vec<String> {
    let types = "{\"F64\": \"<f8\", \"F32\": \"<f4\", \"F16\": \"<f2\", \"BF16\": \"<u2\", \"I64\": \"<i8\"}";
    vec![
        format!("data = open({:?}, \"rb\").read()", file.to_string_lossy()),
        "size = 8 + int.from_bytes(data[:8], \"little\")".to_owned(),
        "header = json.loads(data[8:size])".to_owned(),
        "def tensor(name):".to_owned(),
        format!("    entry = header[\"{}/{}/\" + name]", source.case, source.step),
        "    begin, end = entry[\"data_offsets\"]".to_owned(),
        format!("    values = np.frombuffer(data[size + begin:size + end], {types}[entry[\"dtype\"]])"),
        "    if entry[\"dtype\"] == \"BF16\": values = (values.astype(\"<u4\") << 16).view(\"<f4\")".to_owned(),
        "    return values.reshape(entry[\"shape\"])".to_owned(),
    ]
}

/// A tensor as a numpy array, each element exact.
fn array(tensor: &Tensor) -> String {
    let text = |value: f64| match value {
        _ if value.is_nan() => "np.nan".to_owned(),
        f64::INFINITY => "np.inf".to_owned(),
        f64::NEG_INFINITY => "-np.inf".to_owned(),
        // The shortest decimal of the narrower type reads back as the same value of that type.
        _ if tensor.dtype() != DataType::F64 && value.abs() >= 1e-4 => format!("{:?}", value as f32),
        _ => decimal(value),
    };
    let values: Vec<String> = (0..tensor.len()).map(|index| text(tensor.get(index))).collect();
    let dtype = match tensor.dtype() {
        DataType::F64 => "np.float64",
        DataType::F16 => "np.float16",
        // numpy has no bfloat16; binary32 holds its values.
        DataType::F32 | DataType::BF16 => "np.float32",
        DataType::I64 => "np.int64",
    };
    let shape: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
    let reshaped = if shape.len() == 1 { String::new() } else { format!(".reshape({})", shape.join(", ")) };
    format!("np.array([{}], {dtype}){reshaped}", values.join(", "))
}

/// Lines that compute `result`, the tensor `name` of the answer.
fn formula(operation: &Operation, plan: &Plan, tensors: &Tensors, name: &str) -> Option<Vec<String>> {
    let rank = tensors["input"].shape().len();
    let eps = decimal(plan.eps);
    let by_channel = format!(".reshape(-1{})", ", 1".repeat(rank.saturating_sub(2)));
    let mut lines = Vec::new();
    let parameters = |reshape: &str| {
        let mut text = String::new();
        for (name, sign) in [("weight", "*"), ("bias", "+")] {
            if tensors.contains_key(name) {
                text += &format!(" {sign} {name}{reshape}");
            }
        }
        text
    };
    match operation {
        Operation::BatchNorm(_) => {
            let others: Vec<String> = (0..rank).filter(|axis| *axis != 1).map(|axis| axis.to_string()).collect();
            let axes = format!("({}{})", others.join(", "), if rank == 2 { "," } else { "" });
            match name {
                "output" => {
                    lines.push(match plan.source {
                        Statistics::Input => format!("mean, var = input.mean({axes}), input.var({axes})"),
                        Statistics::Stored if plan.keeping.reads_as_stored() => {
                            "mean, var = running_mean, running_var".to_owned()
                        }
                        _ => return None,
                    });
                    let affine = parameters(&by_channel);
                    let centred = format!("(input - mean{by_channel})");
                    lines.push(format!("result = {centred} / np.sqrt(var + {eps}){by_channel}{affine}"));
                }
                "running_mean" | "running_var" if plan.keeping.average == Average::Exponential => {
                    let Some(factor) = plan.update else { return Some(vec![format!("result = {name}")]) };
                    let momentum = match factor {
                        Factor::Reciprocal(batches) => format!("1 / {batches}"),
                        factor => decimal(factor.of_new()),
                    };
                    let of_batch = if name == "running_mean" {
                        format!("input.mean({axes})")
                    } else {
                        format!("input.var({axes}, ddof={})", plan.keeping.degrees_of_freedom)
                    };
                    lines.push(format!("momentum = {momentum}"));
                    lines.push(format!("result = (1 - momentum) * {name} + momentum * {of_batch}"));
                }
                _ => return None,
            }
        }
        Operation::LayerNorm(norm) if name == "output" => {
            let affine = parameters("");
            lines.push(format!("axes = tuple(range(-{}, 0))", norm.normalized_shape.len()));
            lines.push("mean, var = input.mean(axes, keepdims=True), input.var(axes, keepdims=True)".to_owned());
            lines.push(format!("result = (input - mean) / np.sqrt(var + {eps}){affine}"));
        }
        Operation::RmsNorm(norm) if name == "output" => {
            let affine = parameters("");
            lines.push(format!("axes = tuple(range(-{}, 0))", norm.normalized_shape.len()));
            lines.push("square = (input * input).mean(axes, keepdims=True)".to_owned());
            lines.push(format!("result = input / np.sqrt(square + {eps}){affine}"));
        }
        Operation::GroupNorm(norm) if name == "output" => {
            let affine = parameters(&by_channel);
            lines.push(format!("groups = input.reshape(len(input), {}, -1)", norm.num_groups));
            lines.push("mean, var = groups.mean(-1, keepdims=True), groups.var(-1, keepdims=True)".to_owned());
            lines.push(format!("result = ((groups - mean) / np.sqrt(var + {eps})).reshape(input.shape){affine}"));
        }
        _ => return None,
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    fn snippet_of(builtin: &str, case: &str, file: Option<&Path>) -> Option<String> {
        let report = report(builtin, case);
        let index = report.verdicts.iter().position(|verdict| verdict.case == case).unwrap();
        let (verdict, exhibit) = (&report.verdicts[index], &report.exhibits[&index]);
        let call = &exhibit.steps[verdict.step].0.call;
        let source = Source { file, case, step: verdict.step };
        snippet(call, &Expected::of(call), verdict.worst.as_ref()?, true, source)
    }

    #[test]
    fn a_small_case_is_written_out() {
        let text = snippet_of("unbiased_variance", "layer_norm-bf16-outlier-10", None).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "import numpy as np");
        assert!(lines[1].starts_with("input = np.array([0.0, 0.0, "), "{text}");
        assert!(lines[1].ends_with(", np.float32).reshape(4, 2, 5).astype(np.float64)") && lines[1].contains("96.0"));
        assert_eq!(
            lines[2..5],
            [
                "axes = tuple(range(-2, 0))",
                "mean, var = input.mean(axes, keepdims=True), input.var(axes, keepdims=True)",
                "result = (input - mean) / np.sqrt(var + 1e-5)",
            ]
        );
        assert!(lines[5].starts_with("expected = float(result[") && lines[7].starts_with("actual = float.fromhex(\""));
    }

    #[test]
    fn a_large_case_is_read_from_its_file_or_not_at_all() {
        let case = "layer_norm-f64-large-2048";
        let text = snippet_of("unbiased_variance", case, Some(Path::new("a \"b\".safetensors"))).unwrap();
        assert!(text.contains(r#"open("a \"b\".safetensors", "rb")"#), "{text}");
        assert!(text.contains("header[\"layer_norm-f64-large-2048/0/\" + name]") && text.contains("np.longdouble"));
        assert!(text.contains("actual = float(tensor(\"answer/output\")["));
        assert_eq!(snippet_of("unbiased_variance", case, None), None);
    }

    #[test]
    fn running_statistics_have_their_formula() {
        let text = snippet_of("biased_running_var", "batch_norm-f32-momentum-none", None).unwrap();
        let formula = "result = (1 - momentum) * running_var + momentum * input.var((0, 2), ddof=1)";
        assert!(text.contains("momentum = 1 / 4\n") && text.contains(formula), "{text}");
        let text = snippet_of("updates_in_eval", "batch_norm-f32-eval-plain", None).unwrap();
        assert!(text.contains("result = running_mean\n") || text.contains("result = running_var\n"), "{text}");
        assert_eq!(snippet_of("counter_frozen", "batch_norm-f32-size-4", None), None);
    }
}
