//! PyTorch's CUDA kernels re-enacted: their order of operations and their fused products and sums, on a CPU.
//!
//! Nothing here ran on a GPU, and nothing of it is PyTorch's code: it is *emulated*. The order was read in the machine
//! code of PyTorch 2.15.0 for sm_80, and each kernel's file says how certain it is. What `tools/cuda_simulator`
//! recorded of that machine code is the evidence: `tests/cuda_order.rs` compares every bit.
//!
//! F32, F16 and BF16 go in; inside all is binary32, rounded once at the end. The one step that cannot be predicted is
//! the hardware's reciprocal root, a parameter ([`Root`]): correctly rounded, or as measured on a device.
//!
//! ```
//! use normative::subject::Subject;
//! use normative::subject::cuda_order::{CudaOrder, Device};
//! let subject = CudaOrder::new(Device::default());
//! assert_eq!(subject.hello().details["provenance"], "emulated");
//! ```

mod batch_norm;
mod call;
mod channels_last;
mod device;
mod group_norm;
mod group_norm_backward;
mod hosts;
mod pieces;
mod row_norm;
mod row_norm_backward;
mod welford;

use std::collections::BTreeMap;

pub use device::{Device, Root, RootTable, WrongTable};
pub use pieces::{Certainty, PIECES, Piece};

use self::call::Planned;
use self::row_norm::Norm;
use super::{Fault, Hello, Subject};
use crate::arithmetic::DataType;
use crate::case::{Answer, Request, Step};
use crate::operation::Operation;

/// The name of the emulation among the compiled-in subjects.
pub const NAME: &str = "cuda-order";
/// The name of the control, which rounds products before it adds them.
pub const UNFUSED: &str = "cuda-order-unfused";

/// The emulation as a subject.
#[derive(Clone, Debug)]
pub struct CudaOrder {
    hello: Hello,
    device: Device,
}

impl CudaOrder {
    /// The kernels on a device of this arithmetic.
    pub fn new(device: Device) -> CudaOrder {
        CudaOrder { hello: hello(&device), device }
    }
}

impl Subject for CudaOrder {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        Ok(answer(&self.hello, &self.device, &request.call))
    }
}

/// What the kernels make of a call, if `hello` claims it.
pub(super) fn answer(hello: &Hello, device: &Device, step: &Step) -> Answer {
    if let Some(lacking) = hello.lacks(step) {
        return Answer::Unsupported(lacking.to_string());
    }
    let plan = match step.plan(&step.operation.rule()) {
        Ok(plan) => plan,
        Err(refused) => {
            let state = step.state(refused.num_batches_tracked);
            return Answer::Refused { refusal: refused.refusal, state };
        }
    };
    let call = Planned { step, plan: &plan };
    let tensors = match &step.operation {
        Operation::LayerNorm(norm) => hosts::row_norm(device, &call, Norm::Layer, &norm.normalized_shape),
        Operation::RmsNorm(norm) => hosts::row_norm(device, &call, Norm::Rms, &norm.normalized_shape),
        Operation::GroupNorm(norm) => hosts::group_norm(device, &call, norm),
        Operation::BatchNorm(_) => hosts::batch_norm(device, &call),
        Operation::InstanceNorm(norm) => hosts::instance_norm(device, &call, usize::from(norm.spatial_dims)),
        other => return Answer::Unsupported(format!("{} is not emulated", other.name())),
    };
    Answer::Tensors(tensors)
}

/// What the emulation says of itself.
pub(super) fn hello(device: &Device) -> Hello {
    let details = [
        ("provenance", "emulated"),
        ("kernels", "PyTorch 2.15's for CUDA, native ones, in their order of operations; no GPU and no code of theirs"),
        ("fused", if device.unfused { "nothing: this is the control" } else { "as in the machine code for sm_80" }),
        (
            "rsqrt",
            match device.root {
                Root::Rounded => "correctly rounded; a GPU's may differ in the last bits",
                Root::Measured(_) => "as measured on a device",
            },
        ),
    ];
    Hello {
        name: if device.unfused { UNFUSED } else { NAME }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: "emulated".to_owned(),
        operations: ["layer_norm", "rms_norm", "batch_norm", "instance_norm", "group_norm"].map(str::to_owned).to_vec(),
        dtypes: vec![DataType::F32, DataType::F16, DataType::BF16],
        dialects: BTreeMap::new(),
        options: ["gradients", "channels_last", "strided"].map(str::to_owned).to_vec(),
        arithmetic: None,
        details: details.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    }
}
