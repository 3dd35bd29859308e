//! A subject that misbehaves on demand: `hostile_subject BEHAVIOUR [FILE]`.
//!
//! It answers every request that it claims with its input, which is well formed if not right, but misbehaves where it is
//! asked for a group norm, or from the start, or at the ends of the protocol. `tests/hostile_subjects.rs` shows that the
//! suite names each misdeed and goes on, `tests/adapter_test.rs` that `adapter test` finds it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use normative::arithmetic::DataType;
use normative::case::{Answer, Step};
use normative::golden::{MessageError, read_frame, read_request, write_frame, write_hello_reply, write_reply};
use normative::operation::{Refusal, RefusalKind};
use normative::subject::Hello;
use normative::{Tensor, Tensors};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let behaviour = arguments.first().map_or("none", String::as_str);
    let file = arguments.get(1).map_or("", String::as_str);
    if behaviour == "heartbeat" {
        beat(file);
    }
    start(behaviour, file);

    let mut calls = 0.0;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    read_frame(&mut input, u64::MAX).map_err(io::Error::other)?;
    write_frame(&mut output, &write_hello_reply(&hello(behaviour)))?;
    if behaviour == "reads no request" {
        sleep();
    }
    while let Some(bytes) = read_frame(&mut input, u64::MAX).map_err(io::Error::other)? {
        let (id, call) = match read_request(&bytes) {
            Ok(request) => request,
            Err(MessageError::Unknown { id: Some(id), .. }) if behaviour != "reads what it knows" => {
                write_frame(&mut output, &write_reply(id, &Answer::Unsupported("unknown".into())))?;
                continue;
            }
            Err(_) if behaviour == "ends well on garbage" => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        };
        if let Some(lacking) = hello(behaviour).lacks(&call).filter(|_| behaviour != "answers what it does not claim") {
            write_frame(&mut output, &write_reply(id, &Answer::Unsupported(lacking.to_string())))?;
            continue;
        }
        if call.operation.name() == "group_norm" || behaviour == "exits always" {
            misbehave(behaviour, file, id, &call, &mut output)?;
        } else {
            let (id, answer) = misreply(behaviour, id, &call, &mut calls);
            write_frame(&mut output, &write_reply(id, &answer))?;
        }
    }
    match behaviour {
        "goes on after the end" => sleep(),
        "fails at the end" => process::exit(9),
        "prints at the end" => output.write_all(b"goodbye\n"),
        _ => Ok(()),
    }
}

fn hello(behaviour: &str) -> Hello {
    let names = ["batch_norm", "layer_norm", "group_norm", "rms_norm"];
    let more: &[&str] = if behaviour == "claims what there is not" { &["no_such_norm"] } else { &[] };
    let options: &[&str] = if behaviour == "claims what there is not" { &["no_such_option"] } else { &[] };
    Hello {
        name: if behaviour == "has no name" { "".into() } else { "hostile".into() },
        version: "1".into(),
        device: "cpu".into(),
        operations: names.iter().chain(more).map(|&name| name.to_owned()).collect(),
        dtypes: vec![DataType::F32],
        dialects: Default::default(),
        options: options.iter().map(|&name| name.to_owned()).collect(),
        arithmetic: None,
        details: Default::default(),
    }
}

/// The input as output, and every state as it was.
fn answer(call: &Step) -> Tensors {
    let states = call.operation.signature().state.iter();
    let sent = |&name: &&str| Some((name.to_owned(), call.tensors.get(name)?.clone()));
    let mut tensors: Tensors = states.filter_map(sent).collect();
    tensors.insert("output".into(), call.tensors["input"].clone());
    tensors
}

/// The id and the answer of a reply that may be wrong in a small way. `calls` counts them.
fn misreply(behaviour: &str, id: u64, call: &Step, calls: &mut f64) -> (u64, Answer) {
    let mut tensors = answer(call);
    let refused = |kind| Answer::Refused { refusal: Refusal { kind, message: "no".into() }, state: Tensors::new() };
    *calls += 1.0;
    match behaviour {
        "cuts ids" => return (id & 0xffff_ffff, Answer::Tensors(tensors)),
        "refuses everything" => return (id, refused(RefusalKind::Other)),
        "forgets the state" => tensors.retain(|name, _| name == "output"),
        "tidies NaN" => tensors.values_mut().for_each(tidy),
        "remembers" => {
            let input = &call.tensors["input"];
            let values = vec![*calls; input.len()];
            tensors.insert("output".into(), Tensor::rounded(input.dtype(), input.shape(), values));
        }
        _ => (),
    }
    (id, Answer::Tensors(tensors))
}

/// Every NaN becomes the same one.
fn tidy(tensor: &mut Tensor) {
    if tensor.dtype() != DataType::I64 {
        let values = tensor.to_f64().iter().map(|&x| if x.is_nan() { f64::NAN } else { x }).collect();
        *tensor = Tensor::rounded(tensor.dtype(), tensor.shape(), values);
    }
}

/// Misbehaves before the hello.
fn start(behaviour: &str, file: &str) {
    match behaviour {
        "dies at hello" => {
            eprintln!("no such framework");
            process::exit(3);
        }
        "prints at hello" => println!("Loading weights, please wait"),
        "says no hello" => sleep(),
        "starts once" if fs::exists(file).expect("a file name") => process::exit(4),
        "starts once" => fs::write(file, "").expect("a file to write"),
        _ => (),
    }
}

/// Misbehaves in the place of an answer to `call`.
fn misbehave(behaviour: &str, file: &str, id: u64, call: &Step, output: &mut impl Write) -> io::Result<()> {
    let mut tensors = answer(call);
    match behaviour {
        "exits" | "exits always" | "starts once" => {
            eprintln!("out of luck");
            process::exit(7);
        }
        "floods standard error" => {
            eprintln!("{}last words", "x".repeat(1 << 20));
            process::exit(1);
        }
        "hangs" => sleep(),
        "prints" => output.write_all(b"shape (2, 4)\n")?,
        "prints a word" => output.write_all(b"ok\n")?,
        "sends garbage" => return write_frame(output, b"this is no document"),
        "declares too much" => return output.write_all(&(1_u64 << 63).to_le_bytes()).and_then(|()| output.flush()),
        "ends in the middle" => {
            output.write_all(&[100, 0, 0, 0, 0, 0, 0, 0, 1, 2])?;
            output.flush()?;
            process::exit(0);
        }
        "hangs in the middle" => {
            output.write_all(&[100, 0, 0, 0, 0, 0, 0, 0, 1, 2])?;
            output.flush()?;
            sleep();
        }
        "leaves a child" => {
            Command::new("sleep").arg("30").spawn()?;
            process::exit(5);
        }
        "hangs with a child" => {
            Command::new(std::env::current_exe()?).args(["heartbeat", file]).spawn()?;
            sleep();
        }
        #[cfg(unix)]
        "hangs with a child that escaped" => {
            use std::os::unix::process::CommandExt;
            Command::new("sleep").arg("20").process_group(0).spawn()?;
            sleep();
        }
        #[cfg(unix)]
        "closes standard output" => {
            use std::os::unix::process::CommandExt;
            return Err(Command::new("sleep").arg("30").stdout(process::Stdio::null()).exec());
        }
        "answers another request" => return write_frame(output, &write_reply(id + 1, &Answer::Tensors(tensors))),
        "supports nothing" => return write_frame(output, &write_reply(id, &Answer::Unsupported("no".into()))),
        "forgets the output" => drop(tensors.remove("output")),
        "invents a tensor" => drop(tensors.insert("y".into(), Tensor::counter(1))),
        "flattens" => drop(tensors.insert("output".into(), Tensor::rounded(DataType::F32, &[8], vec![0.0; 8]))),
        "widens" => drop(tensors.insert("output".into(), Tensor::rounded(DataType::F64, &[2, 4], vec![0.0; 8]))),
        _ => (),
    }
    write_frame(output, &write_reply(id, &Answer::Tensors(tensors)))
}

fn sleep() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Writes to `file` for as long as it lives, 30 s at most.
fn beat(file: &str) -> ! {
    let mut file = OpenOptions::new().create(true).append(true).open(file).expect("a file to write");
    for _ in 0..3000 {
        file.write_all(b".").expect("a file to write");
        thread::sleep(Duration::from_millis(10));
    }
    process::exit(0);
}
