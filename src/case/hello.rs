//! What a subject says of itself before it is asked anything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arithmetic::{DataType, SummationDepth};

/// What a subject is and what it can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Its name, such as `pytorch`.
    pub name: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Where it computes, such as `cpu`.
    #[serde(default)]
    pub device: String,
    /// The operations it claims.
    pub operations: Vec<String>,
    /// The data types it claims, of the input.
    pub dtypes: Vec<DataType>,
    /// The dialects it speaks, for each operation; `pytorch` where an operation is not listed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dialects: BTreeMap<String, Vec<String>>,
    /// What it can besides forward requests in contiguous layout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// How it sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<Declared>,
    /// Free strings for the report.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// How a subject says that it sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// The type it accumulates in, for inputs no wider; `None`: F64 for F64, F32 for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accumulate: Option<DataType>,
    /// The shape of its summation tree.
    #[serde(default)]
    pub depth: SummationDepth,
}
