//! Frames: on a pipe, each document is preceded by its length, an unsigned 64-bit little-endian integer.

use std::io::{self, Read, Write};

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended inside the eight bytes of the length.
    #[error("the stream ended after {arrived} of the 8 bytes of a frame's length")]
    TruncatedLength {
        /// Bytes that arrived.
        arrived: usize,
    },
    /// The stream ended inside the document.
    #[error("the stream ended after {arrived} of a frame's {declared} bytes")]
    Truncated {
        /// The length that the frame declared.
        declared: u64,
        /// Bytes that arrived.
        arrived: u64,
    },
    /// The frame declares more than the reader takes.
    #[error("a frame of {declared} bytes was declared, where at most {limit} are taken")]
    TooLong {
        /// The length that the frame declared.
        declared: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// The stream could not be read.
    #[error("the stream cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Writes one document with its length before it, and flushes.
///
/// # Errors
/// That of the writer.
pub fn write_frame(writer: &mut impl Write, document: &[u8]) -> io::Result<()> {
    writer.write_all(&(document.len() as u64).to_le_bytes())?;
    writer.write_all(document)?;
    writer.flush()
}

/// Reads one document of at most `limit` bytes; `None` if the stream ends where a frame could begin.
///
/// Memory grows with what arrives, not with what is declared.
///
/// # Errors
/// [`FrameError::TooLong`] if the frame declares more than `limit`, [`FrameError::TruncatedLength`] and
/// [`FrameError::Truncated`] if the stream ends inside it, [`FrameError::Io`] if it cannot be read.
///
/// ```
/// use normative::golden::{read_frame, write_frame};
/// let mut pipe = Vec::new();
/// write_frame(&mut pipe, b"document").unwrap();
/// assert_eq!(pipe[..8], [8, 0, 0, 0, 0, 0, 0, 0]);
/// let mut pipe = pipe.as_slice();
/// assert_eq!(read_frame(&mut pipe, 1024).unwrap(), Some(b"document".to_vec()));
/// assert_eq!(read_frame(&mut pipe, 1024).unwrap(), None);
/// ```
pub fn read_frame(reader: &mut impl Read, limit: u64) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = Vec::with_capacity(8);
    reader.by_ref().take(8).read_to_end(&mut length)?;
    let declared = match length.try_into() {
        Ok(bytes) => u64::from_le_bytes(bytes),
        Err(part) if part.is_empty() => return Ok(None),
        Err(part) => return Err(FrameError::TruncatedLength { arrived: part.len() }),
    };
    if declared > limit {
        return Err(FrameError::TooLong { declared, limit });
    }
    let mut document = Vec::new();
    let arrived = reader.by_ref().take(declared).read_to_end(&mut document)? as u64;
    if arrived < declared {
        return Err(FrameError::Truncated { declared, arrived });
    }
    Ok(Some(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_cut_anywhere_says_where() {
        let mut pipe = Vec::new();
        write_frame(&mut pipe, b"abc").unwrap();
        assert!(matches!(read_frame(&mut &pipe[..0], 3), Ok(None)));
        for cut in 1..8 {
            let error = read_frame(&mut &pipe[..cut], 3).unwrap_err();
            assert!(matches!(error, FrameError::TruncatedLength { arrived } if arrived == cut), "{error}");
        }
        for cut in 8..11 {
            let error = read_frame(&mut &pipe[..cut], 3).unwrap_err();
            assert!(matches!(error, FrameError::Truncated { declared: 3, arrived } if arrived == cut as u64 - 8));
        }
        assert_eq!(read_frame(&mut &pipe[..], 3).unwrap().unwrap(), b"abc");
    }

    #[test]
    fn a_declared_length_is_not_allocated() {
        let hostile = [&(1_u64 << 63).to_le_bytes()[..], b"abc"].concat();
        let error = read_frame(&mut hostile.as_slice(), 1 << 20).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { declared, limit: 0x10_0000 } if declared == 1 << 63));
        let error = read_frame(&mut hostile.as_slice(), u64::MAX).unwrap_err();
        assert!(matches!(error, FrameError::Truncated { arrived: 3, .. }), "{error}");
    }

    #[test]
    fn bytes_that_trickle_are_put_together() {
        struct Trickle<'a>(&'a [u8]);
        impl Read for Trickle<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let count = buffer.len().min(1);
                self.0.read(&mut buffer[..count])
            }
        }
        let mut pipe = Vec::new();
        write_frame(&mut pipe, b"abc").unwrap();
        assert_eq!(read_frame(&mut Trickle(&pipe), 3).unwrap().unwrap(), b"abc");
    }
}
