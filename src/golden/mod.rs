//! Documents: the bytes of the subject protocol and of golden files, which are recorded answers.
//!
//! A [`Document`] is a safetensors byte string with JSON in its metadata. On a pipe a [frame](write_frame) carries one
//! [`Message`]; on disk a [`GoldenFile`] holds cases with the answers of a named subject, and a recording is a folder
//! of them, read by [`load`] and written by [`write_recording`]. A [`KnownList`] names the failures that are expected.
//!
//! Whatever the bytes are, reading gives a value or a typed error of one line: never a panic, and never an allocation
//! for bytes that were declared but are not there.

mod deviations;
#[cfg(feature = "cli")]
mod device_run;
mod document;
mod file;
mod frame;
mod glob;
mod message;
mod quick;
mod recording;

pub use deviations::{Entry, Key, KnownError, KnownList};
#[cfg(feature = "cli")]
pub use device_run::{TAR_LIMIT, Unpacked, unpack};
pub use document::{Document, DocumentError, EMPTY_LIMIT};
pub use file::{GoldenError, GoldenFile, Place, Provenance, RecordedCase};
pub use frame::{FrameError, read_frame, write_frame};
pub use glob::glob_match;
pub use message::{
    Message, MessageError, VERSION, read_hello, read_reply, read_request, write_hello, write_hello_reply, write_reply,
    write_request,
};
pub use quick::{QUICK, QUICK_RECORDING, quick};
pub use recording::{FILE_LIMIT, WriteMode, load, write_recording};
#[cfg(feature = "cli")]
pub(crate) use recording::{find, folder_of, load_found};

/// Foreign text for an error message: control characters escaped, long text cut.
fn one_line(text: &str) -> String {
    const LIMIT: usize = 200;
    let mut line = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == LIMIT {
            line.push('…');
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}
