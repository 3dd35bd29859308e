//! The command `normative`.

// Many short-lived tensors on all cores: it takes a fifth less time than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    normative::cli::main()
}
