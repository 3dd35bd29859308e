//! `normative-burn [--device wgpu|flex]`: serves burn's normalization layers to *normative* on standard input and output.

use std::io;
use std::process::ExitCode;

use normative::subject::serve;
use normative_burn::Burn;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut subject = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["--device", "wgpu"] => Burn::wgpu(),
        ["--device", "flex"] => Burn::flex(),
        _ => {
            eprintln!("usage: normative-burn [--device wgpu|flex]");
            return ExitCode::from(2);
        }
    };
    match serve(&mut subject, &mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("normative-burn: {error}");
            ExitCode::FAILURE
        }
    }
}
