//! What a hello claims: names that the suite knows.

use std::collections::BTreeSet;

use super::Finding;
use crate::arithmetic::DataType;
use crate::operation::{Operation, dialects_of};
use crate::subject::Hello;

/// The options that there are.
pub(super) const OPTIONS: [&str; 4] = ["gradients", "double_backward", "channels_last", "strided"];

/// The checks of a hello.
pub(super) fn run(hello: &Hello) -> [(&'static str, Finding); 5] {
    [
        ("it says who it is, with a name", name(hello)),
        ("it claims operations that the suite knows", operations(hello)),
        ("it claims data types that an input can have", dtypes(hello)),
        ("it claims options that there are", options(hello)),
        ("it claims dialects that there are, of operations that it claims", dialects(hello)),
    ]
}

/// Whether the hello has the option.
pub(super) fn claims(hello: &Hello, option: &str) -> bool {
    hello.options.iter().any(|name| name == option)
}

fn name(hello: &Hello) -> Finding {
    match hello.name.trim() {
        "" => Finding::failed("its name is empty", r#""name": "my layer""#),
        _ => Finding::Ok,
    }
}

fn operations(hello: &Hello) -> Finding {
    let unknown: Vec<_> = hello.operations.iter().filter(|name| !Operation::NAMES.contains(&name.as_str())).collect();
    let distinct: BTreeSet<_> = hello.operations.iter().collect();
    let right = format!("some of {}", Operation::NAMES.join(", "));
    if hello.operations.is_empty() {
        Finding::failed("it claims none, so it would be asked nothing", right)
    } else if !unknown.is_empty() {
        Finding::failed(format!("it claims {unknown:?}, which would never be asked"), right)
    } else if distinct.len() < hello.operations.len() {
        Finding::failed("it claims one twice", "each operation once")
    } else {
        Finding::Ok
    }
}

fn dtypes(hello: &Hello) -> Finding {
    let right = "some of F64, F32, F16, BF16";
    if hello.dtypes.is_empty() {
        Finding::failed("it claims none, so it would be asked nothing", right)
    } else if hello.dtypes.contains(&DataType::I64) {
        Finding::failed("it claims I64, which is for counters alone", right)
    } else {
        Finding::Ok
    }
}

fn options(hello: &Hello) -> Finding {
    let unknown: Vec<_> = hello.options.iter().filter(|name| !OPTIONS.contains(&name.as_str())).collect();
    if !unknown.is_empty() {
        Finding::failed(format!("it claims {unknown:?}"), format!("some of {}, or none", OPTIONS.join(", ")))
    } else if claims(hello, "double_backward") && !claims(hello, "gradients") {
        Finding::failed("it claims double_backward but not gradients", "both: a request for the one asks for the other")
    } else {
        Finding::Ok
    }
}

fn dialects(hello: &Hello) -> Finding {
    for (operation, dialects) in &hello.dialects {
        if !hello.operations.contains(operation) {
            return Finding::failed(
                format!("it has dialects of {operation:?}, which it does not claim"),
                "claim both or neither",
            );
        }
        let known = |name: &&String| dialects_of(operation).contains(&name.as_str());
        if let Some(unknown) = dialects.iter().find(|name| !known(name)) {
            return Finding::failed(
                format!("it has the dialect {unknown:?} of {operation}, which would never be asked"),
                "`normative check --help` lists the dialects",
            );
        }
    }
    Finding::Ok
}
