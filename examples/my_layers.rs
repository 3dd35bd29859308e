//! A layer in Rust, judged within the process: `cargo run --release --example my_layers`.
//!
//! In a crate of your own, `main`'s line is the body of a test.

use normative::operation::{Refusal, RefusalKind, RmsNorm};
use normative::{Layer, LayerAnswer, LayerCall, assert_conformant};

/// Root mean square normalization: what is to be judged.
struct MyRmsNorm;

impl Layer for MyRmsNorm {
    type Operation = RmsNorm;
    type Element = f32;

    fn call(&self, norm: &RmsNorm, call: &LayerCall<'_, f32>) -> Result<LayerAnswer, Refusal> {
        let (shape, weight) = (norm.normalized_shape.as_slice(), call.get("weight"));
        let fits =
            call.input().shape().ends_with(shape) && weight.as_ref().is_none_or(|weight| weight.shape() == shape);
        if shape.is_empty() || !fits {
            return Err(Refusal::new(RefusalKind::Shape, "the shapes do not fit"));
        }
        let n: usize = shape.iter().product();
        let eps = norm.eps.map_or(f32::EPSILON, |eps| eps as f32);
        let mut output = call.input().into_owned();
        for row in output.as_slice_mut().expect("tensors are contiguous").chunks_mut(n.max(1)) {
            let mean_square = row.iter().map(|x| x * x).sum::<f32>() / n as f32;
            row.iter_mut().for_each(|x| *x /= (mean_square + eps).sqrt());
        }
        Ok(weight.map_or(output.clone(), |weight| output * weight).into())
    }
}

fn main() {
    assert_conformant(&MyRmsNorm);
    println!("MyRmsNorm is conformant");
}
