#!/usr/bin/env python3
"""Judges the same goldens as `normative verify` and as a pytest file that a framework's author would write, side by side.

    python3 tools/compare_with_pytest.py target/release/normative

The pytest file loads the goldens, recomputes each forward and backward pass with PyTorch in float64 and compares with
`torch.testing.assert_close` at its default tolerances. Both judge every recorded case of batch, layer, group, RMS and
instance norm of one step that PyTorch answered, turn by turn. The script prints the ratio of cases a second by the medians
of both, and the least and greatest of a turn; needs torch, pytest and safetensors, and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "golden" / "pytorch-2.15-cpu"
OPERATIONS = ("batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm")

#: What an author would write: a test for each golden.
TESTS = '''
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

CASES = []
for operation in {operations!r}:
    path = "{golden}/" + operation + ".00.safetensors"
    with safe_open(path, "pt") as file:
        message = json.loads(file.metadata()["normative"])
        by_case = {{}}
        for name in file.keys():
            case, _, rest = name.partition("/0/")
            by_case.setdefault(case, []).append((rest, name))
        for case in message["cases"]:
            steps = case["steps"]
            if len(steps) > 1 or steps[0]["reply"]["type"] != "answer":
                continue
            tensors = {{rest: file.get_tensor(name) for rest, name in by_case[case["name"]]}}
            CASES.append((case["name"], steps[0]["request"], tensors))


def forward(call, sent):
    operation, name = call["operation"], call["operation"]["name"]
    x, weight, bias = sent["input"], sent.get("weight"), sent.get("bias")
    mean, variance = sent.get("running_mean"), sent.get("running_var")
    eps, train = operation["eps"], call["mode"] == "train"
    if name == "layer_norm":
        return F.layer_norm(x, operation["normalized_shape"], weight, bias, eps)
    if name == "rms_norm":
        return F.rms_norm(x, operation["normalized_shape"], weight, eps)
    if name == "group_norm":
        return F.group_norm(x, operation["num_groups"], weight, bias, eps)
    momentum = operation["momentum"]
    momentum = 1 / (int(sent.get("num_batches_tracked", 0)) + 1) if momentum is None else momentum
    if name == "instance_norm":
        batched = x if x.dim() == operation["spatial_dims"] + 2 else x[None]
        y = F.instance_norm(batched, mean, variance, weight, bias, train or mean is None, momentum, eps)
        return y if batched is x else y[0]
    return F.batch_norm(x, mean, variance, weight, bias, train or mean is None, momentum, eps)


@pytest.mark.parametrize("name, call, tensors", CASES, ids=[case[0] for case in CASES])
def test_golden(name, call, tensors):
    sent = {{}}
    for path, tensor in tensors.items():
        side, _, tensor_name = path.partition("/")
        if side == "request":
            wide = tensor.double() if tensor.is_floating_point() else tensor
            sent[tensor_name] = wide
    differentiable = [n for n in ("input", "weight", "bias") if n in sent and call.get("gradients")]
    for n in differentiable:
        sent[n].requires_grad_()
    output = forward(call, sent)
    found = {{"output": output.detach()}}
    if differentiable:
        gradients = torch.autograd.grad(output, [sent[n] for n in differentiable], sent["grad_output.output"])
        found.update(zip(("grad_" + n for n in differentiable), gradients))
    for n, tensor in found.items():
        answer = tensors["answer/" + n]
        torch.testing.assert_close(tensor.to(answer.dtype), answer, equal_nan=True)
'''


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("normative", type=Path, help="the program, built with --release")
    parser.add_argument("--turns", type=int, default=9)
    arguments = parser.parse_args()
    files = [str(GOLDEN / f"{operation}.00.safetensors") for operation in OPERATIONS]
    with tempfile.TemporaryDirectory() as folder:
        tests = Path(folder) / "test_goldens.py"
        tests.write_text(TESTS.format(operations=OPERATIONS, golden=GOLDEN))
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", str(tests)]
        report = Path(folder) / "report.json"
        verify = [str(arguments.normative.resolve()), "verify", *files, "--format", "json", "--report", str(report)]
        times: dict[str, list[float]] = {"pytest": [], "normative": []}
        for _ in range(arguments.turns):
            for name, command in (("pytest", pytest), ("normative", verify)):
                started = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
                times[name].append(time.perf_counter() - started)
                if name == "pytest":
                    last = done.stdout.strip().splitlines()[-1]
        verdicts = json.loads(report.read_text())["verdicts"]
    numbers = [int(word) for word in last.replace(",", "").split() if word.isdigit()]
    by_pytest, by_normative = sum(numbers), len(verdicts)
    if not by_pytest or not by_normative:
        print(f"nothing was judged: {last}")
        return 1
    per_case = [(theirs / by_pytest) / (ours / by_normative) for theirs, ours in zip(times["pytest"], times["normative"])]
    theirs, ours = statistics.median(times["pytest"]), statistics.median(times["normative"])
    ratio = (theirs / by_pytest) / (ours / by_normative)
    print(f"pytest: {by_pytest} cases ({last})")
    print(f"normative: {by_normative} cases, with bounds, gradients of gradients, states and sequences")
    print(
        f"cases a second, normative to pytest, start and loading included: {ratio:.0f} by the medians of {arguments.turns} turns, "
        f"{min(per_case):.0f} to {max(per_case):.0f} in a turn"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
