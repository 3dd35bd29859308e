//! The command `normative`.

fn main() -> std::process::ExitCode {
    normative::cli::main()
}
