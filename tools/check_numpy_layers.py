#!/usr/bin/env python3
"""Judges numpy layers behind the protocol, right and wrong on purpose, and checks what the suite says of them.

    python3 tools/check_numpy_layers.py target/release/normative

Right programs must be conformant (status 0). A program with one mistake must not be (status 1), and the report must name
the planted bug or the class that the mistake belongs to.
"""

import json
import pathlib
import subprocess
import sys

SUBJECTS = pathlib.Path(__file__).parent.parent / "adapters" / "python" / "tests" / "subjects.py"

RIGHT = ["two_pass", "sequential", "welford", "folded", "f64"]

# Mistake: the planted bug, and its class.
WRONG = {
    "biased_running_var": ("biased_running_var", "running_var_bias"),
    "unbiased_output": ("unbiased_variance", "variance_denominator"),
    "eps_outside": ("eps_outside_root", "eps_place"),
    "eps_dropped": ("eps_dropped", "eps_value"),
    "eps_squared": ("eps_squared", "eps_value"),
    "eps_doubled": ("eps_doubled", "eps_value"),
    "one_pass": ("one_pass_variance", "cancellation"),
    "scale_off": ("scale_off", "scale"),
    "f16_statistics": ("half_statistics", "low_precision_statistics"),
    "momentum_flipped": ("momentum_flipped", "momentum_sense"),
    "running_std": ("running_standard_deviation", "running_quantity"),
    "eps_in_running_var": ("eps_in_running_var", "running_quantity"),
    "update_in_eval": ("updates_in_eval", "state_update"),
    "batch_statistics_in_eval": ("batch_statistics_in_eval", "mode"),
    "counter_frozen": ("counter_frozen", "counter"),
    "cumulative_off_by_one": ("cumulative_off_by_one", "cumulative_average"),
    "strided_groups": ("strided_groups", "group_axis"),
    "affine_per_group": ("affine_per_group", "affine_shape"),
    "leak": ("leaks", "batch_variance"),
    "clipped": ("clipped", "clipped"),
    "nan_replaced": ("nan_replaced", "nan_propagation"),
    "batch_of_one_accepted": ("one_value_accepted", "batch_one"),
}


def check(binary: str, program: str) -> tuple[int, dict]:
    """The exit status and the JSON report of one program."""
    subject = f"{sys.executable} {SUBJECTS} {program}"
    command = [binary, "check", "--subject", subject, "--format", "json", "--failures", "target/numpy-failures"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def explained(report: dict, bug: str, flag: str) -> float:
    """The share of the failures that name the bug or its class."""
    failed = [verdict for verdict in report.get("verdicts", []) if verdict["verdict"] == "fail"]
    named = [v for v in failed if v.get("nearest_bug") == bug or v.get("flag") == flag]
    return len(named) / max(len(failed), 1)


def main() -> int:
    binary = sys.argv[1]
    problems = 0
    for program in RIGHT:
        status, report = check(binary, program)
        problems += status != 0
        print(f"{program:26} status {status}  {report.get('summary')}")
    for program, (bug, flag) in WRONG.items():
        status, report = check(binary, program)
        share = explained(report, bug, flag)
        good = status == 1 and share > 0.5
        problems += not good
        print(f"{program:26} status {status}  {share:4.0%} of the failures name {bug} or {flag}{'' if good else '  <-- wrong'}")
    print(f"{len(RIGHT) + len(WRONG) - problems} passed, {problems} failed")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
