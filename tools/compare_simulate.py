#!/usr/bin/env python3
"""Compares `normative simulate` with live PyTorch.

    python tools/compare_simulate.py [PATH OF normative]

Trains torch.nn.BatchNorm1d, many channels at once, on normal batches of 1, 2, 4 and 32 samples with 1, 10 and 3136 values
each, and holds what simulate computes by formula against what PyTorch's running statistics came to. Each interval of
PyTorch's own estimate holds but for one time in ten thousand. Exit status 1 if a figure is outside.
"""

import json
import math
import subprocess
import sys

import torch

Z = 3.89
STEPS = 50
MOMENTUM = 0.1
BETWEEN = 0.5
DRAWS = 60_000_000


def simulate(normative, batch, values):
    command = [normative, "simulate", "--batch", str(batch), "--values", str(values), "--steps", str(STEPS)]
    command += ["--momentum", str(MOMENTUM), "--between", str(BETWEEN), "--format", "json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def train(batch, values):
    """The running mean and variance of each channel; None where PyTorch refuses."""
    channels = max(200, min(20_000, DRAWS // (STEPS * batch * values)))
    layer = torch.nn.BatchNorm1d(channels, momentum=MOMENTUM, affine=False, dtype=torch.float64)
    for _ in range(STEPS):
        shared = math.sqrt(BETWEEN) * torch.randn(batch, channels, 1, dtype=torch.float64)
        # float32 draws are fine enough for a statistic, and take half the memory.
        x = torch.randn(batch, channels, values).double().add_(shared).add_(1.0)
        try:
            layer(x)
        except ValueError as refusal:
            print(f"  PyTorch refuses: {refusal}")
            return None
    return layer.running_mean, layer.running_var


def average(x):
    return x.mean().item(), (x.std() / math.sqrt(len(x))).item()


def spread(x):
    d = x - x.mean()
    second, fourth = (d**2).mean().item(), (d**4).mean().item()
    return math.sqrt(second), math.sqrt((fourth - second**2) / len(x)) / (2 * math.sqrt(second))


def main():
    torch.manual_seed(1)
    normative = sys.argv[1] if len(sys.argv) > 1 else "target/release/normative"
    compared, outside = 0, 0
    for batch in (1, 2, 4, 32):
        for values in (1, 10, 3136):
            said = simulate(normative, batch, values)
            trained = train(batch, values)
            print(f"batch {batch} x {values}: refused {said['refused']}")
            compared += 1
            outside += said["refused"] != (trained is None)
            if trained is None:
                continue
            figures = {figure["name"]: figure for figure in said["figures"]}
            mean, variance = trained
            found = {
                "running_mean": average(mean),
                "running_mean_sd": spread(mean),
                "running_var": average(variance),
                "running_var_sd": spread(variance),
            }
            for name, (estimate, error) in found.items():
                formula = figures[name]["value"]
                fits = abs(formula - estimate) <= Z * error
                compared, outside = compared + 1, outside + (not fits)
                mark = "" if fits else "   OUTSIDE"
                print(f"  {name:16} formula {formula:.6f}   PyTorch {estimate:.6f} ± {Z * error:.6f}{mark}")
    print(f"{compared} comparisons, {outside} outside; torch {torch.__version__}")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
