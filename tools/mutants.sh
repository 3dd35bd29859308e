#!/usr/bin/env bash
# Changes the code that judges, a little at a time, and sees whether a test notices.
#
#   tools/mutants.sh PART [K/N]    a part (judge, running, arithmetic, property), or its K-th of N shards, K from 0
#   tools/mutants.sh --diff FILE   of all parts only what a change touches: git diff main... > FILE
#
# First the unit tests alone, which take seconds (for the arithmetic in a crate of its own, which takes one to build); what they
# let through meets integration tests too. What became of each mutant stands in target/mutants-PART; the last lines count. The
# exit status is 0 where all were caught. JOBS=2 tools/mutants.sh ... tests two mutants at a time.
set -uo pipefail
cd "$(dirname "$0")/.."

part=${1:?a part: judge, running, arithmetic, property; or --diff FILE}
judge=(-f 'src/judge/**')
running=(-f src/operation/running.rs -f src/operation/normalization.rs -f src/property/statistic/evidence.rs -f src/property/statistic/ledger.rs)
arithmetic=(-f 'src/arithmetic/**')
property=(-f 'src/property/**')
narrower=()
name=$part
case $part in
  judge) scope=("${judge[@]}") tests=(truth momentum properties) ;;
  running) scope=("${running[@]}") tests=(momentum statistics properties) ;;
  arithmetic) scope=("${arithmetic[@]}") tests=(truth momentum properties gradients) ;;
  property) scope=("${property[@]}") tests=(properties drawn statistics) ;;
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
rm -rf "$output" && mkdir -p "$output/units" "$output/all"
mutants() {
  cargo mutants --colors never --jobs "${JOBS:-1}" "${scope[@]}" "$@"
}
# The arithmetic needs nothing else of the crate, but that its tests draw values.
arithmetic_alone() {
  mkdir -p "$1/src/case" "$1/.cargo"
  cp -r src/arithmetic "$1/src" && cp src/case/values.rs "$1/src/case"
  cp Cargo.lock "$1" && cp .cargo/mutants.toml "$1/.cargo"
  local unused='^(default-run|criterion|jsonschema|assert_cmd|proptest)'
  awk -v unused="$unused" '/^\[/ { skip = /^\[\[(bin|example|bench)\]\]/ } !skip && $0 !~ unused' Cargo.toml >"$1/Cargo.toml"
  echo 'pub mod arithmetic; pub mod case { pub mod values; }' >"$1/src/lib.rs"
}
lines() {
  sort -u "$@" 2>/dev/null | sed '/^$/d'
}

alone=()
if [[ $part == arithmetic ]]; then
  arithmetic_alone "$output/alone"
  alone=(--dir "$output/alone" --minimum-test-timeout 20)
fi
mutants --output "$output/units" "${narrower[@]}" "${alone[@]}" -C=--lib
missed=$output/units/mutants.out/missed.txt
chosen=()
while read -r mutant; do
  chosen+=(--re "^$(sed 's/[][\\.*^$+?(){}|]/\\&/g' <<<"$mutant")\$")
done < <(lines "$missed")
if [[ ${#chosen[@]} -gt 0 ]]; then
  # With the unit tests again: cargo-mutants takes the deletions of fields along whatever is chosen.
  mutants --output "$output/all" "${chosen[@]}" -C=--lib "${tests[@]/#/-C=--test=}"
  missed=$output/all/mutants.out/missed.txt
fi

for outcome in caught timeout unviable; do
  echo "$outcome: $(lines "$output"/*/mutants.out/"$outcome".txt | wc -l)"
done
echo "missed: $(lines "$missed" | wc -l)"
lines "$missed"
[[ -z $(lines "$missed") ]]
