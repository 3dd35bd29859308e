"""The speed of the reference beside PyTorch's binary64 kernels on a CPU, as ratios of times.

Both normalize the same shapes with a fresh output each time, turn by turn; of 30 turns the medians are compared, with one
thread each and with two. A backward pass takes the gradient of the output and gives those of input, weight and bias: the
reference computes the statistics again, PyTorch has kept them.

    cargo build --release --example speed
    python3 tools/compare_speed.py [--turns 30] [--threads 1,2] [OPERATION ...]

It needs `torch` and a machine that does nothing else. A ratio below 1: the reference is faster.
"""

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

import torch

PROGRAM = Path(__file__).resolve().parent.parent / "target" / "release" / "examples" / "speed"
IMAGES, ROWS = (32, 64, 56, 56), (4096, 1024)
SHAPES = {"layer_norm": (ROWS, 1024), "rms_norm": (ROWS, 1024), "batch_norm": (IMAGES, 64), "group_norm": (IMAGES, 64)}


def calls(operation):
    """PyTorch's forward and backward pass, without what a module or autograd's bookkeeping would add."""
    shape, parameters = SHAPES[operation]
    x, seed = torch.rand(shape, dtype=torch.float64) + 0.5, torch.rand(shape, dtype=torch.float64) + 0.5
    weight, bias, mean, variance = (torch.rand(parameters, dtype=torch.float64) + 0.5 for _ in range(4))
    samples, groups = shape[0], 32
    aten = torch.ops.aten
    if operation == "layer_norm":
        arguments = (x, [parameters], weight, bias, 1e-5)
        _, mean, inverse = aten.native_layer_norm(*arguments)
        backward = lambda: aten.native_layer_norm_backward(seed, x, [parameters], mean, inverse, weight, bias, [True] * 3)
        return lambda: aten.native_layer_norm(*arguments), backward
    if operation == "group_norm":
        sizes = (samples, shape[1], shape[2] * shape[3], groups)
        _, mean, inverse = aten.native_group_norm(x, weight, bias, *sizes, 1e-5)
        backward = lambda: aten.native_group_norm_backward(seed, x, mean, inverse, weight, *sizes, [True] * 3)
        return lambda: aten.native_group_norm(x, weight, bias, *sizes, 1e-5), backward
    if operation == "batch_norm":
        forward = lambda: aten.native_batch_norm(x, weight, bias, mean, variance, True, 0.1, 1e-5)
        _, saved_mean, inverse = forward()
        backward = lambda: aten.native_batch_norm_backward(
            seed, x, weight, mean, variance, saved_mean, inverse, True, 1e-5, [True] * 3
        )
        return forward, backward
    leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    output = torch.nn.functional.rms_norm(leaves[0], [parameters], leaves[1], 1e-5)
    backward = lambda: torch.autograd.grad(output, leaves, seed, retain_graph=True)
    return lambda: torch.nn.functional.rms_norm(x, [parameters], weight, 1e-5), backward


def seconds(call):
    """The time of one call, its output's release included."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(program, operation, which, turns):
    """The median time of the reference over PyTorch's."""
    call = calls(operation)[which == "backward"]

    def ask():
        program.stdin.write(f"{operation} {which}\n")
        program.stdin.flush()
        return float(program.stdout.readline())

    for _ in range(3):
        ask(), call()
    times = [(ask(), seconds(call)) for _ in range(turns)]
    return statistics.median(t for t, _ in times) / statistics.median(t for _, t in times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=30, help="turns of each (30)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (1,2)")
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=f"some of {', '.join(SHAPES)}")
    options = parser.parse_args()
    threads = [int(count) for count in options.threads.split(",")]
    unknown = set(options.operations) - SHAPES.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")

    print(f"time of the reference / time of PyTorch {torch.__version__}, binary64")
    print(f"{'operation':12} {'shape':18} {'pass':9}" + "".join(f"{f'{count} thread' + 's' * (count > 1):>11}" for count in threads))
    rows = {}
    for count in threads:
        torch.set_num_threads(count)
        environment = {**os.environ, "RAYON_NUM_THREADS": str(count)}
        pipe = subprocess.PIPE
        program = subprocess.Popen([PROGRAM], stdin=pipe, stdout=pipe, text=True, env=environment)
        for operation in options.operations or SHAPES:
            for which in ("forward", "backward"):
                rows.setdefault((operation, which), []).append(ratio(program, operation, which, options.turns))
        program.stdin.close()
        program.wait()
    for (operation, which), ratios in rows.items():
        shape = "×".join(map(str, SHAPES[operation][0]))
        print(f"{operation:12} {shape:18} {which:9}" + "".join(f"{value:11.2f}" for value in ratios))


if __name__ == "__main__":
    main()
