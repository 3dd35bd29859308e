//! burn's normalization layers as a subject: `LayerNorm`, `BatchNorm`, `GroupNorm`, `InstanceNorm` and `RmsNorm` of
//! `burn::nn`, on a GPU through wgpu or on burn's CPU backend, flex.
//!
//! What is judged is burn's own modules, forward and through its autodiff; `layers.rs` says what is done to a call so that a
//! module can take it.

mod layers;
mod tensors;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Device, DeviceKind};
use normative::Tensors;
use normative::arithmetic::DataType;
use normative::case::{Answer, Request};
use normative::operation::{Refusal, RefusalKind};
use normative::subject::{Fault, Hello, Subject};

/// burn on one device.
pub struct Burn {
    device: Device,
    hello: Hello,
}

impl Burn {
    /// On the GPU that wgpu prefers; where there is none on a software device, such as Mesa's llvmpipe, and the hello says so.
    pub fn wgpu() -> Burn {
        let device = Device::wgpu(DeviceKind::DefaultDevice);
        let adapter = device.identity().expect("wgpu names its adapters");
        let kind = if adapter.physical.is_some() { "" } else { ", a software device and no GPU" };
        Burn::on(device, "burn-wgpu", format!("{}{kind}", adapter.name))
    }

    /// On the CPU, by burn's backend in Rust alone.
    pub fn flex() -> Burn {
        Burn::on(Device::flex(), "burn-flex", "cpu".to_owned())
    }

    fn on(device: Device, name: &str, place: String) -> Burn {
        let has = |&dtype: &DataType| device.supports_dtype(tensors::dtype(dtype));
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let dialects = [("batch_norm", list(&["burn"])), ("rms_norm", list(&["pytorch", "llama"]))];
        let hello = Hello {
            name: name.to_owned(),
            version: version().to_owned(),
            device: place,
            operations: list(&["layer_norm", "batch_norm", "group_norm", "instance_norm", "rms_norm"]),
            dtypes: DataType::FLOATS.into_iter().filter(has).collect(),
            dialects: dialects.map(|(operation, names)| (operation.to_owned(), names)).into(),
            options: list(&["gradients", "channels_last"]),
            arithmetic: None,
            // Fused kernels round elsewhere: what is judged here are burn's single ones.
            details: [("fusion", "off"), ("licence", "MIT OR Apache-2.0")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        Burn { device, hello }
    }
}

impl Subject for Burn {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        let call = &request.call;
        // A panic is how burn's modules refuse: their documentation lists what they panic at.
        let answer = catch_unwind(AssertUnwindSafe(|| layers::answer(&self.device, call)));
        Ok(answer.unwrap_or_else(|panic| refused(RefusalKind::Other, message(&*panic))))
    }
}

/// A refusal. None of burn's modules changes its state before it refuses.
fn refused(kind: RefusalKind, message: impl Into<String>) -> Answer {
    Answer::Refused { refusal: Refusal::new(kind, message), state: Tensors::new() }
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

/// The version of burn that is locked.
fn version() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let (_, burn) = lock.split_once("name = \"burn\"\nversion = \"").expect("burn is locked");
    burn.split_once('"').expect("a string ends").0
}
