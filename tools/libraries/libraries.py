#!/usr/bin/env python3
"""Asks the recorded libraries again, each in an environment of its own, and says whether their answers have the same bits.

    python3 tools/libraries/libraries.py target/release/normative            # all of libraries.toml
    python3 tools/libraries/libraries.py target/release/normative keras mlx

For each it makes a virtual environment below target/libraries, installs the versions of libraries.toml with pip, and runs
`normative compare` on its recording. Bits may differ on another processor than the recording's; `normative verify` judges them
all the same. Needs a network. Ends with 1 if any answer differs, 3 if a library could not be installed or asked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / "target" / "libraries"


def main() -> int:
    libraries = tomllib.loads(Path(__file__).with_name("libraries.toml").read_text())
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("normative", type=Path, help="the program, built with --release")
    parser.add_argument("names", nargs="*", metavar="LIBRARY", help=f"of {', '.join(libraries)}; all without one")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(libraries):
        parser.error(f"no such library: {', '.join(sorted(unknown))}")
    status = 0
    for name in arguments.names or libraries:
        worse, said = again(arguments.normative.resolve(), name, libraries[name])
        print(f"{name}: {said}", flush=True)
        status = max(status, worse)
    return status


def again(normative: Path, name: str, library: dict[str, Any]) -> tuple[int, str]:
    """The status of a library that is asked again, and a sentence."""
    environment = ENVIRONMENTS / name
    try:
        subprocess.run([sys.executable, "-m", "venv", environment], check=True, capture_output=True, text=True)
        for packages in library["install"]:
            pip = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(pip, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        return 3, f"not installed: {last_line(error.stderr)}"
    subject = f"{environment}/bin/python {ROOT}/adapters/python/{library['adapter']}"
    compare = [normative, "compare", ROOT / "golden" / library["folder"], "--subject", subject, "--format", "json"]
    done = subprocess.run(compare, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        return 3, f"not asked: {last_line(done.stderr)}"
    report = json.loads(done.stdout)
    outcomes = [case["outcome"] for recording in report["recordings"] for case in recording["cases"]]
    same, asked = outcomes.count("equal"), len(outcomes) - outcomes.count("unanswered")
    said = f"{same} of {asked} cases have the same bits ({report['subject']})"
    if unanswered := len(outcomes) - asked:
        return 3, f"{said}; {unanswered} recorded cases were not answered"
    return done.returncode, said


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1]


if __name__ == "__main__":
    sys.exit(main())
