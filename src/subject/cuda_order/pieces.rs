//! What of PyTorch's kernels is re-enacted, and how certain each piece is.

/// How certain it is that a piece has a kernel's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Its answers have the bits of the simulated machine code, in every recorded case.
    BitEqual,
    /// Its order was read in the machine code or the source, and nothing was recorded that it could be compared with.
    Read,
    /// The kernel's order is not known; another one stands in.
    Unknown,
}

impl Certainty {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Certainty::BitEqual => "bit-equal",
            Certainty::Read => "order read",
            Certainty::Unknown => "order not known",
        }
    }
}

/// A part of the emulation.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The operations that it is part of.
    pub operations: &'static [&'static str],
    /// What it computes.
    pub what: &'static str,
    /// How certain it is.
    pub certainty: Certainty,
    /// What that rests on.
    pub evidence: &'static str,
}

const SASS: &str = "machine code of 2.15.0, sm_80";
const ROWS: &[&str] = &["layer_norm", "rms_norm"];
const BATCH: &[&str] = &["batch_norm", "instance_norm"];

/// Every part.
pub const PIECES: &[Piece] = &[
    piece(ROWS, "vectorized rows: N a multiple of 4", Certainty::BitEqual, SASS),
    piece(ROWS, "row-wise: any other N, inputs that are not aligned", Certainty::BitEqual, SASS),
    piece(ROWS, "gradient of the input", Certainty::BitEqual, SASS),
    piece(ROWS, "gradients of weight and bias", Certainty::BitEqual, SASS),
    piece(
        &["rms_norm"],
        "channels-last input",
        Certainty::Unknown,
        "PyTorch composes it of other kernels; the contiguous one stands in",
    ),
    piece(BATCH, "contiguous: statistics, transform, gradients in training", Certainty::BitEqual, SASS),
    piece(&["batch_norm"], "running statistics", Certainty::BitEqual, SASS),
    piece(BATCH, "evaluation: output", Certainty::BitEqual, SASS),
    piece(&["batch_norm"], "contiguous, evaluation: gradients", Certainty::BitEqual, SASS),
    piece(
        BATCH,
        "evaluation: gradients without weight and bias, channels last, or of instance norm",
        Certainty::Read,
        "PyTorch's source",
    ),
    piece(&["batch_norm"], "channels last, and one position a channel", Certainty::BitEqual, SASS),
    piece(
        &["batch_norm"],
        "channels last where blocks share a channel",
        Certainty::Read,
        "machine code of 2.15.0, sm_80, not run",
    ),
    piece(
        &["batch_norm"],
        "strided input: statistics",
        Certainty::Unknown,
        "a general reduction; the contiguous order stands in",
    ),
    piece(
        &["instance_norm"],
        "running statistics; gradients of weight and bias of several samples",
        Certainty::Unknown,
        "a general reduction over the samples; here one after the other",
    ),
    piece(&["group_norm"], "statistics, fold, transform", Certainty::BitEqual, SASS),
    piece(&["group_norm"], "gradients", Certainty::BitEqual, SASS),
    piece(&["group_norm"], "gradients of weight and bias, more than 128 samples", Certainty::Read, "PyTorch's source"),
    piece(
        &["group_norm"],
        "channels-last input",
        Certainty::Unknown,
        "kernels of its own; the contiguous ones stand in",
    ),
    piece(
        &["layer_norm", "rms_norm", "batch_norm", "instance_norm", "group_norm"],
        "F16 and BF16",
        Certainty::Read,
        "the same templates; group norm's eps and saved statistics, which PyTorch rounds, stay F32",
    ),
];

const fn piece(
    operations: &'static [&'static str],
    what: &'static str,
    certainty: Certainty,
    evidence: &'static str,
) -> Piece {
    Piece { operations, what, certainty, evidence }
}
