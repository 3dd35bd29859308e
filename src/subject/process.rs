//! A child process and its pipes. Every wait has a limit, and killing it kills its children.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use process_wrap::std::{ChildWrapper, CommandWrap};

use super::Fault;
use crate::golden::{self, FrameError};

/// How much of standard error is kept.
const STDERR_KEPT: usize = 64 << 10;
/// How much of a reply's beginning is kept, to name what it is where it is no reply.
const HEARD_KEPT: usize = 200;
/// How often a silent process is asked whether it still runs.
const POLL: Duration = Duration::from_millis(20);
/// How long what a process left behind (a status, the rest of a pipe) may take to arrive.
const GRACE: Duration = Duration::from_millis(500);
/// How long a process may take to end by itself once its input is closed, and to end once it is killed.
const END: Duration = Duration::from_secs(2);

/// A running program that answers one document with another.
///
/// One thread talks and one listens to standard error. Neither is ever joined: a grandchild that left the process
/// group may hold a pipe open for as long as it likes.
pub(super) struct Process {
    child: Box<dyn ChildWrapper>,
    /// Dropped to close the program's standard input.
    questions: Option<Sender<Question>>,
    replies: Receiver<Result<Option<Vec<u8>>, FrameError>>,
    heard: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<VecDeque<u8>>>,
    /// Disconnected once standard error has ended.
    stderr_open: Receiver<()>,
}

/// A document to send, and the longest document that can answer it.
struct Question {
    document: Vec<u8>,
    limit: u64,
}

impl Process {
    /// Starts `words[0]` with the arguments that follow it.
    ///
    /// # Errors
    /// The system's reason why the program cannot be started.
    pub fn spawn(words: &[String]) -> io::Result<Process> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = CommandWrap::from(command);
        #[cfg(unix)]
        command.wrap(process_wrap::std::ProcessGroup::leader());
        let mut child = command.spawn()?;

        let stdin = child.stdin().take().expect("standard input is piped");
        let stdout = child.stdout().take().expect("standard output is piped");
        let stderr = child.stderr().take().expect("standard error is piped");
        let (questions, asked) = mpsc::channel();
        let (replied, replies) = mpsc::channel();
        let (open, stderr_open) = mpsc::channel();
        let heard = Arc::default();
        let kept = Arc::default();
        let (tap, tail) = (Arc::clone(&heard), Arc::clone(&kept));
        thread::spawn(move || talk(stdin, stdout, &asked, &replied, tap));
        thread::spawn(move || listen(stderr, &tail, open));
        Ok(Process { child, questions: Some(questions), replies, heard, stderr: kept, stderr_open })
    }

    /// Sends `document` and waits for the document that answers it, of at most `limit` bytes. After an error the
    /// process and its children are dead.
    ///
    /// # Errors
    /// - [`Fault::TimedOut`] if the exchange, sending included, takes longer than `time`;
    /// - [`Fault::Exited`] if the program ended before it had answered;
    /// - [`Fault::TooLong`] if it declared more than `limit` bytes;
    /// - [`Fault::Malformed`] if it closed its standard output, or printed text to it.
    pub fn exchange(&mut self, document: Vec<u8>, limit: u64, time: Duration) -> Result<Vec<u8>, Fault> {
        // That the talking thread is gone shows in the reply that it does not give.
        let _ = self.questions.as_ref().map(|questions| questions.send(Question { document, limit }));
        match self.wait_for_reply(time) {
            Reply::Frame(bytes) => Ok(bytes),
            Reply::Silence => Err(match self.printed_text(limit) {
                Some(text) => self.malformed(text),
                None => {
                    self.kill();
                    Fault::TimedOut { limit: time, stderr: self.stderr() }
                }
            }),
            Reply::Ended(error) => Err(match (self.printed_text(limit), error) {
                (Some(text), _) => self.malformed(text),
                (None, Some(FrameError::TooLong { declared, limit })) => {
                    self.kill();
                    Fault::TooLong { declared, limit }
                }
                (None, error) => self.ended(error),
            }),
        }
    }

    /// Closes the program's standard input and gives it `time` to end by itself.
    pub fn finish(mut self, time: Duration) -> Ending {
        self.questions = None;
        let status = self.wait_for_end(time);
        let stray = match self.replies.recv_timeout(GRACE) {
            Ok(Ok(Some(bytes))) => bytes,
            _ => Vec::new(),
        };
        self.kill();
        Ending { status, stray, stderr: self.stderr() }
    }

    /// Kills the process and its children, and says what was wrong with its reply.
    pub fn malformed(&mut self, reason: impl Into<String>) -> Fault {
        self.kill();
        Fault::Malformed { reason: reason.into(), stderr: self.stderr() }
    }

    /// Kills the process and its children.
    pub fn kill(&mut self) {
        // The group may be gone already. A process in the hands of a device driver may not end: it is left behind.
        let _ = self.child.start_kill();
        self.wait_for_end(END);
    }

    fn wait_for_reply(&mut self, time: Duration) -> Reply {
        let start = Instant::now();
        loop {
            let left = time.saturating_sub(start.elapsed());
            match self.replies.recv_timeout(left.min(POLL)) {
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Reply::Silence,
                Err(RecvTimeoutError::Timeout) if !self.has_ended() => (),
                // It ended, but a child of its own may hold the pipe open: what it wrote is there, its end may not be.
                Err(RecvTimeoutError::Timeout) => return Reply::new(self.replies.recv_timeout(GRACE)),
                reply => return Reply::new(reply),
            }
        }
    }

    /// The fault of a process whose standard output ended.
    fn ended(&mut self, error: Option<FrameError>) -> Fault {
        // Tearing a framework down takes time.
        let status = self.wait_for_end(END);
        self.kill();
        let started = self.heard().len();
        match (status, error) {
            (Some(status), _) if started == 0 => Fault::Exited { status: status.to_string(), stderr: self.stderr() },
            (Some(status), _) => {
                Fault::Exited { status: format!("{status}, in the middle of a reply"), stderr: self.stderr() }
            }
            (None, None) => self.malformed("it closed its standard output but did not end"),
            (None, Some(error)) => self.malformed(format!("{error}; it did not end")),
        }
    }

    fn printed_text(&self, limit: u64) -> Option<String> {
        let text = printed_text(&self.heard(), limit)?;
        Some(format!("it seems to print text to standard output, which is for replies alone: {text:?}"))
    }

    fn heard(&self) -> MutexGuard<'_, Vec<u8>> {
        self.heard.lock().expect("no thread panics with the lock")
    }

    /// The end of standard error.
    fn stderr(&self) -> String {
        let _ = self.stderr_open.recv_timeout(GRACE);
        let mut kept = self.stderr.lock().expect("no thread panics with the lock");
        String::from_utf8_lossy(kept.make_contiguous()).into_owned()
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn wait_for_end(&mut self, time: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(None) if start.elapsed() < time => thread::sleep(Duration::from_millis(2)),
                status => return status.ok().flatten(),
            }
        }
    }
}

impl Drop for Process {
    /// Closes the pipe, waits a little for the program to end by itself, then kills what is left.
    fn drop(&mut self) {
        self.questions = None;
        self.wait_for_end(END);
        self.kill();
    }
}

/// How a program ended once its standard input was closed.
pub(super) struct Ending {
    /// `None` if it had to be killed.
    pub status: Option<ExitStatus>,
    /// The first bytes of what it wrote to standard output besides its replies.
    pub stray: Vec<u8>,
    /// The end of its standard error.
    pub stderr: String,
}

/// What came of a question.
enum Reply {
    Frame(Vec<u8>),
    /// Its standard output ended, or the frame was none.
    Ended(Option<FrameError>),
    Silence,
}

impl Reply {
    fn new(reply: Result<Result<Option<Vec<u8>>, FrameError>, RecvTimeoutError>) -> Reply {
        match reply {
            Ok(Ok(Some(bytes))) => Reply::Frame(bytes),
            Ok(Ok(None)) | Err(_) => Reply::Ended(None),
            Ok(Err(error)) => Reply::Ended(Some(error)),
        }
    }
}

/// The text that `heard` begins with, if it cannot be the beginning of a reply of at most `limit` bytes.
fn printed_text(heard: &[u8], limit: u64) -> Option<String> {
    let declared = heard.first_chunk().map(|length| u64::from_le_bytes(*length));
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let text: Vec<u8> = heard.iter().copied().take_while(is_text).collect();
    // The bytes of a length are text now and then, but not three of them in one that is too long.
    let seems_text = text.len() >= 3 && declared.is_none_or(|declared| declared > limit);
    seems_text.then(|| String::from_utf8_lossy(&text).into_owned())
}

/// Sends each question and reads its reply, until nobody asks any more. What comes after the last reply is sent as well.
fn talk(
    mut stdin: ChildStdin,
    stdout: ChildStdout,
    asked: &Receiver<Question>,
    replied: &Sender<Result<Option<Vec<u8>>, FrameError>>,
    heard: Arc<Mutex<Vec<u8>>>,
) {
    let mut stdout = BufReader::new(Tap { inner: stdout, heard: Arc::clone(&heard) });
    for Question { document, limit } in asked {
        *heard.lock().expect("no thread panics with the lock") = stdout.buffer().to_vec();
        // A program that does not read may still have something to say: its end, or a text.
        let _ = golden::write_frame(&mut stdin, &document);
        if replied.send(golden::read_frame(&mut stdout, limit)).is_err() {
            return;
        }
    }
    drop(stdin);
    let mut stray = Vec::new();
    // Nobody may be there to hear of it, or of a pipe that cannot be read.
    let _ = stdout.take(HEARD_KEPT as u64).read_to_end(&mut stray);
    let _ = replied.send(Ok(Some(stray)));
}

/// Keeps the end of standard error; `_open` lives as long as it does.
fn listen(mut stderr: ChildStderr, tail: &Mutex<VecDeque<u8>>, _open: Sender<()>) {
    let mut chunk = [0; 4096];
    loop {
        let read = match stderr.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let mut tail = tail.lock().expect("no thread panics with the lock");
        tail.extend(&chunk[..read]);
        let excess = tail.len().saturating_sub(STDERR_KEPT);
        tail.drain(..excess);
    }
}

/// Keeps the first bytes that pass.
struct Tap {
    inner: ChildStdout,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut heard = self.heard.lock().expect("no thread panics with the lock");
        let room = HEARD_KEPT.saturating_sub(heard.len());
        heard.extend(&buffer[..read.min(room)]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_lengths() {
        let limit = 1 << 20;
        assert_eq!(printed_text(b"Loading weights\n", limit).as_deref(), Some("Loading weights\n"));
        assert_eq!(printed_text(b"ok\n\x20\x01\0\0\0\0\0\0{", limit).as_deref(), Some("ok\n "));
        assert_eq!(printed_text(b"ok\n", limit).as_deref(), Some("ok\n"));
        assert_eq!(printed_text(b"\x20\x20\x01\0\0\0\0\0{", limit), None);
        assert_eq!(printed_text(&(1_u64 << 63).to_le_bytes(), limit), None);
        assert_eq!(printed_text(b"abc\0\0\0\0\0", u64::from_le_bytes(*b"abc\0\0\0\0\0")), None);
        assert_eq!(printed_text(b"", limit), None);
    }
}
