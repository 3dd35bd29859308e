#!/usr/bin/env python3
"""Judges every planted bug and every correct program with the whole suite, and checks what it says of them.

    python3 tools/check_planted_bugs.py target/release/normative [--seeds 2]

A planted bug must not be conformant (status 1); its flag must be among the first three that the report names, and the
planted bug that explains most of the failures must be it or one of its class. The reference and every correct variant
must be conformant (status 0), with each of the seeds.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile


def run(binary: str, *arguments: str) -> tuple[int, dict]:
    """The exit status and the JSON of a command."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([binary, *arguments, "--format", "json"], capture_output=True, text=True, cwd=folder)
    try:
        return done.returncode, json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.exit(f"{arguments}: no JSON\n{done.stdout[:2000]}{done.stderr[:2000]}")


def check(binary: str, name: str, seed: int) -> tuple[int, dict]:
    return run(binary, "check", "--builtin", name, "--seed", str(seed), "--shrink", "0", "--errors", "0")


def trouble_with_bug(binary: str, bug: dict, flags: dict[str, str]) -> str | None:
    """What is wrong with the report on a planted bug, if anything is."""
    status, report = check(binary, bug["name"], 0)
    if status != 1:
        return f"status {status}"
    failures = [verdict for verdict in report["verdicts"] if verdict["verdict"] == "fail"]
    named = collections.Counter(verdict["flag"] for verdict in failures if "flag" in verdict)
    first = [flag for flag, _ in named.most_common(3)]
    if bug["flag"] not in first:
        return f"its flag, {bug['flag']}, is not among {first}"
    nearest = collections.Counter(verdict["nearest_bug"] for verdict in failures if verdict.get("matches_bug"))
    best = nearest.most_common(1)[0][0] if nearest else None
    if best is None or flags[best] != bug["flag"]:
        return f"the nearest bug is {best}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--seeds", type=int, default=2, help="seeds for each correct program")
    arguments = parser.parse_args()
    binary = str(pathlib.Path(arguments.binary).resolve())
    bugs = run(binary, "list", "bugs")[1]["bugs"]
    subjects = run(binary, "list", "subjects")[1]["subjects"]
    correct = [subject["name"] for subject in subjects if subject["correct"]]
    flags = {bug["name"]: bug["flag"] for bug in bugs}
    wrong = 0
    for bug in bugs:
        if trouble := trouble_with_bug(binary, bug, flags):
            print(f"{bug['name']}: {trouble}")
            wrong += 1
    for name in correct:
        for seed in range(arguments.seeds):
            status, report = check(binary, name, seed)
            if status != 0:
                failed = [verdict["case"] for verdict in report["verdicts"] if verdict["verdict"] == "fail"]
                print(f"{name}, seed {seed}: status {status}, {failed[:5]}")
                wrong += 1
    print(f"{len(bugs)} planted bugs, {len(correct)} correct programs with {arguments.seeds} seeds each: {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
