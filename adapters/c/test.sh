#!/usr/bin/env bash
# Compiles norms.c with every warning and with sanitizers, has normative test and judge it, and feeds it damaged frames.
#
#     adapters/c/test.sh target/release/normative
set -euo pipefail
cd "$(dirname "$0")/../.."

normative=${1:?the program normative}
folder=target/c
mkdir -p "$folder"
warnings=(-Wall -Wextra -Wconversion -Wshadow -pedantic -Werror)
"${CC:-cc}" -std=c11 "${warnings[@]}" -O2 -o "$folder/norms" adapters/c/norms.c -lm
"${CC:-cc}" -std=c11 "${warnings[@]}" -g -fsanitize=address,undefined -fno-sanitize-recover=all \
  -o "$folder/norms-sanitized" adapters/c/norms.c -lm

for program in norms norms-sanitized; do
  "$normative" adapter test "$folder/$program" >"$folder/adapter.txt" || { cat "$folder/adapter.txt"; exit 1; }
  "$normative" check --subject "$folder/$program" --failures "$folder/failures" --format json --report "$folder/report.json"
done

# A frame: the length of a document, then the document.
document=golden/examples/request.safetensors
size=$(stat -c %s "$document" 2>/dev/null || stat -f %z "$document")
{
  for ((i = 0; i < 8; i++)); do printf "\\x$(printf %02x $((size >> 8 * i & 255)))"; done
  cat "$document"
} >"$folder/frame"

# It may read a damaged frame all the same, or end with status 1 and a line of its own. Nothing else.
for ((i = 0; i < size + 8; i++)); do
  # Every fourth is cut, of the others a byte is replaced.
  bytes=("" '\x00' '\x22' '\xff')
  {
    head -c "$i" "$folder/frame"
    if ((i % 4)); then printf "${bytes[i % 4]}" && tail -c "+$((i + 2))" "$folder/frame"; fi
  } >"$folder/damaged"
  status=0
  "$folder/norms-sanitized" <"$folder/damaged" >/dev/null 2>"$folder/errors" || status=$?
  errors=$(<"$folder/errors")
  if ((status > 1)) || [[ "$errors" && ("$errors" != "norms: "* || "$errors" == *$'\n'*) ]]; then
    echo "byte $i: status $status: $errors"
    exit 1
  fi
done
echo "$((size + 8)) damaged frames did no harm"
