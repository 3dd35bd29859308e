//! `target!(name)` makes a target of `normative::fuzzing::name`: under cargo-fuzz one for libFuzzer, whose mutations take
//! turns with those of the target; without it a program that replays the files, and the files
//! of the folders, that its command line names.

#[cfg(fuzzing)]
macro_rules! target {
    ($name:ident) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| normative::fuzzing::$name(data));

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            let target = normative::fuzzing::Target::from_name(stringify!($name)).expect("it is listed");
            match (target.mutate)(&data[..size], seed) {
                Some(mutated) if mutated.len() <= max_size => {
                    data[..mutated.len()].copy_from_slice(&mutated);
                    mutated.len()
                }
                _ => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
            }
        });
    };
}

#[cfg(not(fuzzing))]
macro_rules! target {
    ($name:ident) => {
        fn main() -> std::io::Result<()> {
            shim::replay(normative::fuzzing::$name)
        }
    };
}

/// Runs `body` on every file that the command line names, printing its path first.
#[cfg(not(fuzzing))]
pub fn replay(body: fn(&[u8])) -> std::io::Result<()> {
    let mut paths: Vec<std::path::PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let mut count = 0;
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(path)? {
                paths.push(entry?.path());
            }
        } else {
            println!("{}", path.display());
            body(&std::fs::read(path)?);
            count += 1;
        }
    }
    println!("{count} inputs, no finding");
    Ok(())
}
