#!/usr/bin/env bash
# Builds every target for an engine: into $OUT go the programs, their seeds as zip files, and the dictionary.
# Beside the image it runs on any machine with cargo-fuzz: OUT="$PWD/target/engine" .clusterfuzzlite/build.sh
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d fuzz ] || cd "$SRC/normative"
triple=x86_64-unknown-linux-gnu
: "${OUT:?a folder for what is built}"
mkdir -p "$OUT"

# The image chooses its own nightly; elsewhere it is named.
toolchain=()
if ! rustc --version | grep -q nightly; then toolchain=(+nightly); fi
cargo "${toolchain[@]}" fuzz build -O --debug-assertions --target "$triple"

for target in $(fuzz/targets); do
  cp "fuzz/target/$triple/release/$target" "$OUT/"
  cp fuzz/normative.dict "$OUT/$target.dict"
  seeds=(fuzz/corpus/"$target"/*.* fuzz/regressions/"$target"/*)
  python3 - "$OUT/${target}_seed_corpus.zip" "${seeds[@]}" <<'PYTHON'
import os, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as archive:
    for path in filter(os.path.isfile, sys.argv[2:]):
        archive.write(path, os.path.basename(path))
PYTHON
done
