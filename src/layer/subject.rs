//! A layer as a subject.

use std::collections::BTreeMap;

use super::{Element, Layer, LayerCall, operation_of};
use crate::case::{Answer, Hello, Request};
use crate::operation::Definition;
use crate::subject::{Fault, Subject};
use crate::tensor::Tensors;

/// A layer that is asked.
pub(super) struct LayerSubject<'a, L> {
    layer: &'a L,
    hello: Hello,
}

impl<'a, L: Layer> LayerSubject<'a, L> {
    pub fn new(layer: &'a L) -> LayerSubject<'a, L> {
        let hello = Hello {
            name: layer.name(),
            version: String::new(),
            device: String::new(),
            operations: vec![L::Operation::NAME.to_owned()],
            dtypes: vec![L::Element::DTYPE],
            dialects: BTreeMap::new(),
            // Arrays are handed over in C order, whatever layout a case asks for: there is nothing to claim.
            options: if L::GRADIENTS { vec!["gradients".to_owned()] } else { Vec::new() },
            arithmetic: None,
            details: BTreeMap::new(),
        };
        LayerSubject { layer, hello }
    }
}

impl<L: Layer> Subject for LayerSubject<'_, L> {
    fn hello(&self) -> &Hello {
        &self.hello
    }

    fn answer(&mut self, request: &Request) -> Result<Answer, Fault> {
        let Some(operation) = operation_of::<L::Operation>(&request.call.operation) else {
            return Ok(Answer::Unsupported(format!("it is {}", L::Operation::NAME)));
        };
        Ok(match self.layer.call(operation, &LayerCall::new(request)) {
            Ok(answer) => Answer::Tensors(answer.0),
            Err(refusal) => Answer::Refused { refusal, state: Tensors::new() },
        })
    }
}
