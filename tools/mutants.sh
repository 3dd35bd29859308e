#!/usr/bin/env bash
# Changes the code that judges, a little at a time, and sees whether a test notices.
#
#   tools/mutants.sh PART [K/N]    a part (judge, running, arithmetic, property), or its K-th of N shards, K from 0
#   tools/mutants.sh --diff FILE   of all parts only what a change touches: git diff main... > FILE
#
# First the part's own unit tests (those of the arithmetic and of the properties in a crate of their own, built in a second);
# what they let through meets slower ones: of a family of laws all that is known, else all unit tests and integration tests.
# What became of each mutant stands in target/mutants-PART; the last lines count.
# The exit status is 0 where all were caught. JOBS=2 tools/mutants.sh ... tests two mutants at a time.
set -uo pipefail
cd "$(dirname "$0")/.."

part=${1:?a part: judge, running, arithmetic, property; or --diff FILE}
judge=(-f 'src/judge/**')
running=(-f src/operation/running.rs -f src/operation/normalization.rs -f src/property/statistic/evidence.rs -f src/property/statistic/ledger.rs)
arithmetic=(-f 'src/arithmetic/**')
property=(-f 'src/property/**')
narrower=()
units=()
name=$part
case $part in
  judge) scope=("${judge[@]}") tests=(truth momentum properties) units=(judge::) ;;
  running) scope=("${running[@]}") tests=(momentum statistics properties) units=(operation:: property:: judge::) ;;
  arithmetic) scope=("${arithmetic[@]}") tests=(truth momentum properties gradients) ;;
  property) scope=("${property[@]}") ;;
  --diff)
    scope=("${judge[@]}" "${running[@]}" "${arithmetic[@]}" "${property[@]}")
    tests=(truth momentum properties drawn statistics)
    narrower=(--in-diff "${2:?a file with the change}")
    name=diff
    ;;
  *) echo "there is no part $part" >&2 && exit 1 ;;
esac
if [[ $part != --diff && $# -gt 1 ]]; then
  narrower=(--shard "$2")
  name=$part-${2/\//-of-}
fi

command -v cargo-mutants >/dev/null || cargo install cargo-mutants --locked
output=target/mutants-$name
rm -rf "$output" && mkdir -p "$output"/{units,slow,all}
at_a_time=(--jobs "${JOBS:-1}")
mutants() {
  cargo mutants --colors never "${at_a_time[@]}" "${scope[@]}" "$@"
}
# The arithmetic needs nothing else of the crate, but that its tests draw values; and few of its dependencies.
arithmetic_alone() {
  mkdir -p "$1/src/case" "$1/.cargo"
  cp -r src/arithmetic "$1/src" && cp src/case/values.rs "$1/src/case"
  echo 'pub mod arithmetic; pub mod case { pub mod values; }' >"$1/src/lib.rs"
  cp Cargo.lock "$1" && cp .cargo/mutants.toml "$1/.cargo"
  sed -n '/^\[package\]/,/^$/p' Cargo.toml | grep -v '^default-run' >"$1/Cargo.toml"
  printf '[features]\ndefault = []\n[dependencies]\n' >>"$1/Cargo.toml"
  sed -n '/^\[\(dev-\)\?dependencies\]/,/^$/p' Cargo.toml | while read -r dependency _; do
    grep -rq "\b${dependency//-/_}::" "$1/src" && grep "^$dependency = " Cargo.toml
  done >>"$1/Cargo.toml"
  sed -n '/^\[profile\./,/^$/p' Cargo.toml | sed '/jsonschema/,/^$/d' >>"$1/Cargo.toml"
}
# The properties are a crate upon the rest, which is built once, optimized, with all that the crate keeps to itself made public.
property_alone() {
  local rest=$1/rest
  mkdir -p "$1"/{src,docs,.cargo} "$rest/golden"
  cp -r src/property "$1/src" && cp docs/matrix.md "$1/docs" && cp Cargo.lock "$1" && cp .cargo/mutants.toml "$1/.cargo"
  cp -r src "$rest" && cp -r golden/examples "$rest/golden"
  # A macro that is the crate's own cannot be made public.
  find "$rest/src" -name '*.rs' -exec sed -i '/joined/!s/pub(crate)/pub/' {} +
  sed -i -E 's/^mod ([a-z_]+);/pub mod \1;/' "$rest/src/lib.rs"
  sed -E '/^\[(\[|dev-dependencies|profile)/,/^$/d; /^default-run/d; s/^name = "normative"/name = "rest"/' Cargo.toml >"$rest/Cargo.toml"
  {
    sed -nE 's/^(pub )?mod ([a-z_]+);/\2/p' src/lib.rs | grep -vx 'cli\|property' | sed 's/.*/pub use rest::&;/'
    sed -n 's/^pub use \(layer\|tensor\)::/pub use rest::\1::/p' src/lib.rs
    echo 'pub mod property;'
  } >"$1/src/lib.rs"
  sed -E '/^(default-run|readme)/d; /^\[\[/,/^$/d; /^cli = \[/,/^\]/d; s/^default = .*/default = []/; /optional = true/d' Cargo.toml |
    sed '/^criterion\|^jsonschema\|^assert_cmd/d; /profile.test.package.jsonschema/,/^$/d' |
    sed 's/^\[dependencies\]/&\nrest = { path = "rest", default-features = false }/' >"$1/Cargo.toml"
}
lines() {
  sort -u "$@" 2>/dev/null | sed '/^$/d'
}

# Tests what is chosen, all at first, and chooses what was missed.
chosen=("${narrower[@]}")
stage() {
  local stage=$output/$1 status=0
  mutants --output "$stage" "${chosen[@]}" "${@:2}" || status=$?
  # 2: some were missed, 3: some never ended; else nothing was tested, as where the tests fail without a mutant.
  [[ $status -eq 0 || $status -eq 2 || $status -eq 3 ]] || exit "$status"
  missed=$stage/mutants.out/missed.txt
  choose < <(lines "$missed")
}
# Chooses the mutants of these lines.
choose() {
  chosen=()
  while read -r mutant; do
    chosen+=(--re "^$(sed 's/[][\\.*^$+?(){}|]/\\&/g' <<<"$mutant")\$")
  done
}

# Without optimization a change to what is inlined everywhere is built in seconds too.
export CARGO_PROFILE_MUTANTS_OPT_LEVEL=0
if [[ $part == arithmetic ]]; then
  arithmetic_alone "$output/alone"
  alone=(--dir "$output/alone" --minimum-test-timeout 20 -C=--lib)
  slow=(squares_carry sums_of_many a_million)
  stage units "${alone[@]}" --cargo-test-arg=-- "${slow[@]/#/--cargo-test-arg=--skip=}"
  [[ ${#chosen[@]} -eq 0 ]] || stage slow "${alone[@]}"
elif [[ $part == property ]]; then
  # In place, so that the rest is built once, and so one at a time; for two cores run two shards.
  at_a_time=()
  property_alone "$output/alone"
  alone=(--dir "$output/alone" --in-place --minimum-test-timeout 20 -C=--lib)
  stage units "${alone[@]}"
  # What the laws of a family find is known of all bugs and operations: of a family's file that family is asked, of others all.
  lines "$missed" >"$output/units.txt" && : >"$output/open.txt"
  for file in $(cut -d: -f1 "$output/units.txt" | sort -u); do
    family=$(basename "$file" .rs)
    grep -q "families!(.*\b$family\b" src/property/tests.rs || family=
    scope=(-f "$file")
    choose < <(grep "^$file:" "$output/units.txt")
    stage "family-${file//\//-}" "${alone[@]}" --cargo-test-arg=-- --cargo-test-arg=--include-ignored --cargo-test-arg="family::$family"
    grep -Fxf "$output/units.txt" "$missed" >>"$output/open.txt"
  done
  missed=$output/open.txt chosen=()
else
  stage units -C=--lib --cargo-test-arg=-- "${units[@]/#/--cargo-test-arg=}"
fi
unset CARGO_PROFILE_MUTANTS_OPT_LEVEL
# With the unit tests again: cargo-mutants takes the deletions of fields along whatever is chosen.
[[ ${#chosen[@]} -eq 0 ]] || stage all -C=--lib "${tests[@]/#/-C=--test=}"

for outcome in caught timeout unviable; do
  echo "$outcome: $(lines "$output"/*/mutants.out/"$outcome".txt | wc -l)"
done
echo "missed: $(lines "$missed" | wc -l)"
lines "$missed"
[[ -z $(lines "$missed") ]]
