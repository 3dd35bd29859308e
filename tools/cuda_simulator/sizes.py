#!/usr/bin/env python3
"""Records the simulator at sizes around the edges of its kernels, beyond the catalogue's, for other programs to match.

    python tools/cuda_simulator/sizes.py --architecture sm_80 --into OUT
    normative compare OUT --builtin cuda-order

Warps have 32 lanes, vectors 4 values, blocks 128 or 512 threads; a kernel's order changes at these sizes and where a
thread goes round more than once. The values are numpy's, from a seed, and belong in no commit: the recordings of the
catalogue do.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "adapters/python"))

import normative
from normative import RawTensor

#: Rows and their width: tails of vectors, one round of a block and more, each kernel for the gradients of parameters.
ROWS = [(2, 5), (3, 31), (2, 130), (2, 511), (3, 1030), (1, 2047), (2, 12), (2, 256), (3, 516), (2, 2048), (1, 6000),
        (63, 9), (64, 33), (70, 40), (127, 32), (128, 32), (130, 70), (255, 64), (256, 64), (300, 12),
        (600, 96)]  # fmt: skip
#: Shapes of batch norm: widths of blocks, more samples than a block is high, columns of rows.
BATCHES = [(4, 3, 35), (2, 5, 700), (40, 2, 65), (3, 2, 1500), (20, 4, 8, 8), (70, 3, 2), (2, 3, 256), (2, 3, 257),
           (33, 3), (300, 5), (600, 70), (900, 2), (65, 40, 1, 1)]  # fmt: skip
#: Shapes with the channels last.
LAST = [(4, 40, 9, 7), (2, 3, 12, 11), (16, 64, 6, 6), (3, 5, 4, 3, 7)]
#: Shapes of group norm and the number of groups: warps and blocks, vectors or not, channels or positions above 512.
GROUPS = [(2, 8, 70, 2), (2, 6, 513, 3), (2, 4, 1024, 2), (3, 12, 2, 4), (3, 1040, 1, 2), (2, 1040, 4, 2),
          (2, 12, 1, 3), (100, 6, 5, 2), (2, 4, 640, 4), (1, 3, 1, 1)]  # fmt: skip
AFFINE = [("weight", "bias"), ("weight",), ("bias",), ()]


def steps(values: np.random.Generator) -> Iterator[tuple[str, dict[str, Any], dict[str, np.ndarray]]]:
    """The name, the request and the tensors of each case."""

    def normal(*shape: int) -> np.ndarray:
        return (2 * values.standard_normal(shape) + values.choice([0, 3, -50])).astype(np.float32)

    def request(operation: dict[str, Any], mode: str = "eval", **layout: Any) -> dict[str, Any]:
        layout = {"format": "contiguous"} | layout
        return {"type": "request", "mode": mode, "gradients": True, "layout": layout, "operation": operation}

    def tensors(x: np.ndarray, parameters: tuple[str, ...], size: int) -> dict[str, np.ndarray]:
        return {"input": x, "grad_output.output": normal(*x.shape), **{name: normal(size) for name in parameters}}

    for (m, n), affine, name in itertools.product(ROWS, AFFINE, ("layer_norm", "rms_norm")):
        if name == "rms_norm" and "bias" in affine:
            continue
        operation = {"name": name, "normalized_shape": [n], "eps": 1e-5}
        for offset in (0, 1) if n % 4 == 0 else (0,):
            layout = {"offset": offset} if offset else {}
            title = f"{name}-{m}x{n}-{'-'.join(affine)}-{offset}"
            yield title, request(operation, **layout), tensors(normal(m, n), affine, n)
    every = [*((shape, "contiguous") for shape in BATCHES), *((shape, "channels_last") for shape in LAST)]
    for (shape, format), affine, mode in itertools.product(every, AFFINE, ("train", "eval")):
        operation = {"name": "batch_norm", "spatial_dims": None, "eps": 1e-5, "momentum": 0.1}
        given = tensors(normal(*shape), affine, shape[1])
        given |= {"running_mean": normal(shape[1]), "running_var": np.abs(normal(shape[1]))}
        title = f"batch_norm-{'x'.join(map(str, shape))}-{'-'.join(affine)}-{mode}-{format}"
        yield title, request(operation, mode, format=format), given
    for (n, c, l, groups), affine in itertools.product(GROUPS, AFFINE):
        operation = {"name": "group_norm", "num_groups": groups, "eps": 1e-5}
        shape = (n, c) if l == 1 else (n, c, l)
        title = f"group_norm-{n}x{c}x{l}-{groups}-{'-'.join(affine)}"
        yield title, request(operation), tensors(normal(*shape), affine, c)
    for n, c, l in [(3, 4, 35), (1, 4, 700), (5, 2, 513)]:
        operation = {"name": "instance_norm", "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}
        affine = AFFINE[0] if n == 1 else ()
        yield f"instance_norm-{n}x{c}x{l}", request(operation), tensors(normal(n, c, l), affine, c)


def stored(array: np.ndarray) -> RawTensor:
    return RawTensor("F32", array.shape, np.ascontiguousarray(array, "<f4").tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="sm_80")
    parser.add_argument("--into", type=Path, required=True)
    arguments = parser.parse_args()
    command = [sys.executable, str(HERE / "subject.py"), "--architecture", arguments.architecture]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(message: dict[str, Any], tensors: dict[str, RawTensor]) -> tuple[dict[str, Any], dict[str, RawTensor]]:
        normative.write_frame(process.stdin, normative.encode(message, tensors))
        document = normative.read_frame(process.stdout)
        if document is None:
            sys.exit("sizes.py: the simulator ended; what it said is above")
        return normative.decode(document)

    hello, _ = ask({"type": "hello", "normative": 1}, {})
    cases: list[dict[str, Any]] = []
    every: dict[str, RawTensor] = {}
    left_out: list[str] = []
    for number, (title, request, tensors) in enumerate(steps(np.random.default_rng(11))):
        sent = {name: stored(array) for name, array in tensors.items()}
        reply, answer = ask(request | {"id": number}, sent)
        if reply.pop("type") == "unsupported":
            left_out.append(f"{title}: {reply['message']}")
            continue
        name = f"sizes-{title}".replace("--", "-")
        reply = {"type": "answer" if "kind" not in reply else "refusal"} | {k: v for k, v in reply.items() if k != "id"}
        cases.append({
            "name": name, "comment": "around the edges of a kernel", "level": "required", "flags": [],
            "steps": [{"request": request, "reply": reply}],
        })  # fmt: skip
        every |= {f"{name}/0/request/{key}": tensor for key, tensor in sent.items()}
        every |= {f"{name}/0/answer/{key}": tensor for key, tensor in answer.items()}
    process.stdin.close()
    process.wait()
    golden = {"type": "golden", "normative": 1, "provenance": "simulated", "subject": hello, "cases": cases}
    plain = normative.encode(golden, every)
    body = plain[8 + int.from_bytes(plain[:8], "little") :]
    arguments.into.mkdir(parents=True, exist_ok=True)
    path = arguments.into / f"sizes-{arguments.architecture}.safetensors"
    path.write_bytes(normative.encode(golden | {"sha256": hashlib.sha256(body).hexdigest()}, every))
    values = sum(math.prod(tensor.shape) for tensor in every.values())
    print(f"{len(cases)} cases, {values} values in {path}; not simulated: {len(left_out)}", *left_out, sep="\n  ")


if __name__ == "__main__":
    main()
