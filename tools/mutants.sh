#!/usr/bin/env bash
# Changes the code that judges, a line at a time, and sees whether a test notices.
#
#   tools/mutants.sh PART [K/N]      a part (judge, running, arithmetic, property), or its K-th of N shards, K from 0
#   tools/mutants.sh --diff FILE     only what a change touches: `git diff main... > FILE`
#
# First the unit tests alone, which take a second; what they let through meets the integration tests too. The outcome of each
# mutant stands in target/mutants/PART-K-N. The exit status is that of `cargo mutants`: 0 all caught, 2 some missed, 3 timed out.
set -uo pipefail
cd "$(dirname "$0")/.."

part=${1:?the part: judge, running, arithmetic, property, or --diff FILE}
case $part in
  judge) scope=(-f 'src/judge/**') tests=(truth momentum properties) ;;
  running) scope=(-f src/operation/normalization.rs -f src/property/statistic/evidence.rs) tests=(momentum statistics properties truth) ;;
  arithmetic) scope=(-f 'src/arithmetic/**') tests=(truth momentum properties gradients) ;;
  property) scope=(-f 'src/property/**') tests=(properties drawn statistics) ;;
  --diff) scope=(--in-diff "${2:?a file with the change}") tests=(truth momentum properties drawn statistics) ;;
  *) echo "there is no part $part" >&2; exit 1 ;;
esac
shard=() name=$part
if [[ $part != --diff && $# -gt 1 ]]; then
  shard=(--shard "$2") name=$part-${2/\//-}
fi

command -v cargo-mutants >/dev/null || cargo install cargo-mutants --locked
output=target/mutants.d/${name#--}
mkdir -p "$output"
mutants() {
  cargo mutants --output "$output" --jobs 1 --no-times --colors never "${scope[@]}" "${shard[@]}" "$@"
}

mutants -C=--lib
status=$?
if [[ $status == 2 ]]; then
  mutants --iterate "${tests[@]/#/-C=--test=}" -C=--lib
  status=$?
fi
for outcome in caught missed timeout unviable; do
  # An iteration leaves out what the run before it caught.
  lines=$(cat "$output"/mutants.out*/"$outcome.txt" 2>/dev/null | sort -u | wc -l)
  echo "$outcome $lines"
done
exit "$status"
