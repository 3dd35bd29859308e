//! `identify`: every dialect's own layer, every planted bug in a convention, correct programs of all forms, and a layer that
//! answers at random.

use assert_cmd::Command;
use normative::Tensor;
use normative::arithmetic::DataType;
use normative::case::values::Values;
use normative::case::{Answer, Hello, Request};
use normative::identify::{Identification, Options, identify};
use normative::operation::BatchNormDialect::{self, *};
use normative::operation::TORCH_FAMILY;
use normative::subject::{Builtin, Fault, Pool, Subject};
use serde_json::Value;

fn identified(name: &str, operation: &str, dialect: BatchNormDialect) -> Identification {
    let mut pool = Pool::of(Box::new(Builtin::new(name).expect("a compiled-in subject")));
    let options = Options { operation: Some(operation.to_owned()), dialect: Some(dialect) };
    identify(&mut pool, &options).expect("it claims everything")
}

fn departures(identification: &Identification) -> Vec<(&'static str, String)> {
    let fit = identification.dialect().expect("a dialect");
    fit.departures.iter().map(|departure| (departure.question, departure.says.clone())).collect()
}

fn says<'a>(identification: &'a Identification, question: &str) -> &'a str {
    let finding = identification.findings.iter().find(|finding| finding.question == question);
    &finding.unwrap_or_else(|| panic!("{question} was not asked")).says
}

#[test]
fn each_dialect_is_its_own() {
    for &dialect in BatchNormDialect::ALL {
        let identification = identified("reference", "batch_norm", dialect);
        let fit = identification.dialect().unwrap_or_else(|| panic!("{dialect:?}: {:?}", identification.fits));
        assert_eq!((fit.dialect, fit.departures.len()), (dialect, 0), "{:?}", identification.findings);
        for finding in identification.findings.iter().filter(|finding| finding.choice.is_some()) {
            assert!(finding.decided_by >= 8.0, "{dialect:?} {}: {}", finding.question, finding.decided_by);
        }
    }
}

/// What tells the dialects from each other is seen; what does not, is said.
#[test]
fn dialects_that_are_one_are_said_to_be() {
    let identification = identified("reference", "batch_norm", Keras);
    let fit = identification.dialect().unwrap();
    assert_eq!(fit.alike, [Flax, Onnx, Mxnet]);
    assert!(identified("reference", "batch_norm", Paddle).dialect().unwrap().alike.is_empty());
}

/// Each planted bug in a convention, asked in a dialect that has the convention: what is said instead.
#[test]
fn planted_bugs_in_a_convention_are_named() {
    for (bug, dialect, question, expected) in [
        ("momentum_flipped", Pytorch, "momentum", "the weight of the old value"),
        ("momentum_flipped", Keras, "momentum", "the weight of the new value"),
        ("never_updates", Pytorch, "momentum", "nothing: the running statistics never move"),
        ("biased_running_var", Pytorch, "running_var", "the biased variance"),
        ("unbiased_running_var", Flax, "running_var", "the unbiased variance"),
        ("running_standard_deviation", Pytorch, "running_var", "the unbiased variance's root"),
        ("running_standard_deviation", Onnx, "running_var", "the biased variance's root"),
        ("eps_in_running_var", Pytorch, "running_var", "the unbiased variance plus eps"),
        ("updates_in_eval", Pytorch, "evaluation", "by the running statistics, which move"),
        ("batch_statistics_in_eval", Pytorch, "evaluation", "by the batch's own statistics"),
        ("unbiased_variance", Pytorch, "variance", "n − 1 (unbiased)"),
        ("eps_outside_root", Pytorch, "eps", "outside the root, as given"),
        ("eps_dropped", Haiku, "eps", "nowhere"),
        ("eps_squared", Pytorch, "eps", "inside the root, squared"),
        ("eps_doubled", Caffe, "eps", "inside the root, doubled"),
        ("one_value_accepted", Paddle, "one_value", "answered with the bias"),
        ("one_value_refused", Keras, "one_value", "refused"),
        ("bessel_unguarded", Tensorflow, "one_value", "answered with the bias"),
        ("batch_of_one_refused", Pytorch, "batch_of_one", "refused"),
        ("counter_frozen", Pytorch, "counter", "not counted"),
        ("cumulative_off_by_one", Pytorch, "cumulative", "the average of all batches and one more"),
        ("average_plain", Haiku, "momentum", "the weight of the old value"),
        ("average_plain", Caffe, "momentum", "the weight of the old value"),
        ("average_plain", EquinoxEma, "momentum", "the weight of the old value"),
        ("average_plain", EquinoxBatch, "evaluation", "by the running statistics, which stay"),
        ("debias_late", Haiku, "momentum", "the weight of the old value, debiased with one batch too many"),
        ("debias_late", EquinoxBatch, "evaluation", "by the running statistics, debiased with one batch too many"),
        ("scale_off", Pytorch, "variance", "none of these"),
    ] {
        let identification = identified(bug, "batch_norm", dialect);
        assert_eq!(says(&identification, question), expected, "{bug} in {dialect:?}");
        let own = identification.fits.iter().find(|fit| fit.dialect == dialect || fit.alike.contains(&dialect));
        let departures = &own.expect("every dialect has a fit").departures;
        assert!(departures.iter().any(|it| it.question == question), "{bug} in {dialect:?}: {departures:?}");
        let most = if bug == "scale_off" { 9 } else { 2 };
        assert!(departures.len() <= most, "{bug} in {dialect:?}: {departures:?}");
    }
}

/// A layer that follows PyTorch whatever it is asked in is found out.
#[test]
fn pytorch_in_another_dialects_clothes() {
    let identification = identified("pytorch_conventions", "batch_norm", Onnx);
    let fit = identification.dialect().expect("a dialect");
    assert_eq!((fit.dialect, fit.departures.len()), (Pytorch, 0), "{:?}", identification.fits);
    let identification = identified("biased_running_var", "batch_norm", Pytorch);
    assert_eq!(departures(&identification), [("running_var", "the biased variance".to_owned())]);
}

#[test]
fn the_arithmetic_is_seen() {
    for (name, passes, folded) in [
        ("two_pass", "in two passes", Some("no:")),
        ("two_pass_lanes", "in two passes", Some("no:")),
        ("two_pass_division", "in two passes", Some("no:")),
        ("welford", "in two passes, or as well", Some("no:")),
        ("folded", "in two passes", Some("yes:")),
        ("fused_folded", "in two passes", Some("yes:")),
        ("welford_folded", "in two passes, or as well", Some("yes:")),
        ("one_pass_variance", "in one pass", None),
    ] {
        for operation in ["batch_norm", "layer_norm", "group_norm", "instance_norm"] {
            let identification = identified(name, operation, Pytorch);
            assert!(departures(&identification).is_empty(), "{name} {operation}: {:?}", identification.fits);
            assert!(says(&identification, "passes").starts_with(passes), "{name} {operation}: {identification:?}");
            let asked = identification.findings.iter().find(|finding| finding.question == "folded");
            let said = asked.map(|finding| finding.says.as_str());
            match folded {
                Some(folded) => {
                    assert!(said.is_some_and(|said| said.starts_with(folded)), "{name} {operation}: {said:?}")
                }
                None => assert_eq!(said, None),
            }
        }
    }
}

#[test]
fn the_whole_family_can_be_asked() {
    for &operation in TORCH_FAMILY {
        let identification = identified("reference", operation, Pytorch);
        assert!(departures(&identification).is_empty(), "{operation}: {:?}", identification.findings);
        assert_eq!(says(&identification, "casts"), "computed in a wider type, rounded once at the end", "{operation}");
        let identification = identified("eps_outside_root", operation, Pytorch);
        assert_eq!(departures(&identification), [("eps", "outside the root, as given".to_owned())], "{operation}");
    }
}

/// Answers of the right shapes, from a generator.
struct Random {
    hello: Hello,
    values: Values,
}

impl Subject for Random {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        let call = &request.call;
        let names = call.operation.signature().state.iter().filter(|name| call.tensors.contains_key(**name));
        let mut like = |tensor: &Tensor| match tensor {
            Tensor::I64(_) => Tensor::counter(self.values.below(9) as i64),
            _ => Tensor::rounded(tensor.dtype(), tensor.shape(), self.values.normals(tensor.len(), 0.0, 1.0)),
        };
        let output = ("output".to_owned(), like(&call.tensors["input"]));
        let state: Vec<_> = names.map(|&name| (name.to_owned(), like(&call.tensors[name]))).collect();
        Ok(Answer::Tensors(state.into_iter().chain([output]).collect()))
    }
}

#[test]
fn no_dialect_fits_a_layer_at_random() {
    for &operation in TORCH_FAMILY {
        for seed in 0..4 {
            let hello = Builtin::new("reference").unwrap().hello().clone();
            let mut pool = Pool::of(Box::new(Random { hello, values: Values::new(seed) }));
            let options = Options { operation: Some(operation.to_owned()), dialect: None };
            let identification = identify(&mut pool, &options).unwrap();
            // Two questions are too few to tell.
            let few = identification.findings.iter().filter(|finding| finding.says == "none of these").count();
            assert!(identification.dialect().is_none() || few <= 2, "{operation}: {:?}", identification.findings);
            if operation == "batch_norm" {
                assert!(identification.dialect().is_none());
            }
        }
    }
}

/// A layer of a dialect that computes everything in F32, whatever it is given.
struct Narrow(Builtin);

impl Subject for Narrow {
    fn hello(&self) -> &Hello {
        self.0.hello()
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        let convert = |tensor: &Tensor, dtype| match tensor {
            Tensor::I64(_) => tensor.clone(),
            _ => Tensor::rounded(dtype, tensor.shape(), tensor.to_f64().into_iter().collect()),
        };
        let own = request.call.tensors["input"].dtype();
        let mut narrow = request.clone();
        narrow.call.tensors.values_mut().for_each(|tensor| *tensor = convert(tensor, DataType::F32));
        Ok(match self.0.answer(&narrow)? {
            Answer::Tensors(tensors) => {
                Answer::Tensors(tensors.into_iter().map(|(name, tensor)| (name, convert(&tensor, own))).collect())
            }
            refused => refused,
        })
    }
}

/// Keras 3.15 is one: its conventions are known all the same, and that it is narrow is said.
#[test]
fn a_narrow_layer_is_known_by_its_conventions() {
    let mut pool = Pool::of(Box::new(Narrow(Builtin::new("fused_folded").unwrap())));
    let options = Options { operation: None, dialect: Some(Keras) };
    let identification = identify(&mut pool, &options).unwrap();
    assert!(departures(&identification).is_empty(), "{:?}", identification.findings);
    assert!(says(&identification, "precision").starts_with("in F32"), "{:?}", identification.findings);
}

fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::cargo_bin("normative").unwrap().arg("identify").args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().expect("an exit status"), String::from_utf8(text).expect("text"))
}

#[test]
fn on_the_command_line() {
    let (status, text) = run(&["--builtin", "biased_running_var"]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("as PyTorch 2.15, but running_var: the biased variance"), "{text}");

    let (status, text) = run(&["--builtin", "reference", "--dialect", "caffe", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((status, &json["says"], &json["dialect"]["dialect"]), (0, &"as Caffe 1.0".into(), &"caffe".into()));
    assert!(json["findings"].as_array().is_some_and(|findings| findings.len() >= 8), "{text}");

    for (arguments, expected) in [
        (&["--builtin", "nonesuch"][..], 2),
        (&[], 2),
        (&["--builtin", "reference", "--operation", "renorm"], 2),
        (&["--builtin", "reference", "--operation", "layer_norm", "--dialect", "keras"], 2),
        (&["--subject", "./no-such-program"], 3),
    ] {
        assert_eq!(run(arguments).0, expected, "{arguments:?}");
    }
}
