#!/usr/bin/env bash
# Builds the fuzz targets, replays what is committed, and fuzzes each for $1 seconds (20). Where cargo-fuzz and a nightly
# toolchain are neither there nor can be installed, builds and replays them on stable Rust.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-20}
triple=x86_64-unknown-linux-gnu
mapfile -t targets < <(./targets)

# Without a fuzzer, the targets still build and replay what is committed.
replay() {
  for target in "${targets[@]}"; do
    mkdir -p "regressions/$target"
    cargo run --locked --quiet --bin "$target" -- "corpus/$target" "regressions/$target" | tail -n 1
  done
}

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "not fuzzed: this is not $triple"
  replay
  exit
fi
if ! cargo +nightly --version >/dev/null 2>&1 && ! rustup toolchain install nightly --profile minimal; then
  echo "not fuzzed: no nightly toolchain"
  replay
  exit
fi
if ! cargo fuzz --version >/dev/null 2>&1 && ! cargo install cargo-fuzz --version 0.13.2 --locked; then
  echo "not fuzzed: no cargo-fuzz"
  replay
  exit
fi
# On all cores, and optimized a little (the profile `dev` here): to build is most of the time that this takes.
export RUSTFLAGS="${RUSTFLAGS:-} -Ccodegen-units=16" CARGO_INCREMENTAL=0
cargo +nightly fuzz build --dev --target "$triple"
for target in "${targets[@]}"; do
  found=$(mktemp -d)
  mkdir -p "regressions/$target"
  cargo +nightly fuzz run --dev "$target" --target "$triple" "$found" "corpus/$target" "regressions/$target" -- \
    -max_total_time="$seconds" -entropic=0 -print_funcs=0 -rss_limit_mb=2048 -timeout=30 -dict=normative.dict -verbosity=0 -print_final_stats=1
  rm -r "$found"
done
