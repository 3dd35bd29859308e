"""The kernels that Inductor generates, behind the pipe: what runs is theirs, and it is the norm that was asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from client import FOLDER, Client, batch_norm, pack, running, unpack

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
if torch.version.cuda is None:
    pytest.skip("Inductor generates kernels for CUDA in a PyTorch that knows it", allow_module_level=True)

INTERPRETED = not torch.cuda.is_available()
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def inductor() -> Iterator[Client]:
    with Client(FOLDER / "inductor_layers.py") as client:
        client.hello()
        yield client


def test_hello() -> None:
    with Client(FOLDER / "inductor_layers.py") as client:
        hello = client.hello()
    assert hello["operations"] == ["batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm"]
    expected = ("cpu", "interpreted") if INTERPRETED else ("cuda", "device")
    assert (hello["device"], hello["details"]["provenance"]) == expected


@pytest.mark.parametrize(
    ("operation", "shape", "parameters"),
    [
        ("layer_norm", (4, 6), {"normalized_shape": [6], "eps": 1e-5}),
        ("layer_norm", (2, 3000), {"normalized_shape": [3000], "eps": 1e-5}),  # in blocks
        ("rms_norm", (4, 6), {"normalized_shape": [6], "eps": 1e-5}),
        ("group_norm", (2, 6, 5), {"num_groups": 3, "eps": 1e-5}),
        ("instance_norm", (2, 6, 5), batch_norm()),
    ],
)
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_outputs_and_gradients(inductor: Client, operation: str, shape: tuple, parameters: dict, dtype: str) -> None:
    tensors, leaves = sent(operation, shape, dtype)
    output = eager(operation, leaves, parameters)
    reply = inductor.ask(operation, tensors, gradients=True, mode="train", **parameters)
    tolerance = 2e-5 if dtype == "F32" else 1e-2
    assert np.allclose(reply["output"], output.detach().numpy(), rtol=tolerance, atol=tolerance)
    gradient = torch.tensor(unpack(tensors["grad_output.output"]))
    for name, expected in zip(leaves, torch.autograd.grad(output, list(leaves.values()), gradient)):
        assert reply.raw[f"grad_{name}"].dtype == dtype
        assert np.allclose(reply[f"grad_{name}"], expected.numpy(), rtol=tolerance, atol=tolerance)


def sent(operation: str, shape: tuple[int, ...], dtype: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A request's tensors, and the differentiable ones of them as leaves in F64."""
    size = shape[-1:] if operation in ("layer_norm", "rms_norm") else shape[1:2]
    names = ["input", "weight"] if operation == "rms_norm" else ["input", "weight", "bias"]
    tensors = {name: pack(RNG.normal(size=shape if name == "input" else size), dtype) for name in names}
    leaves = {name: torch.tensor(unpack(raw), requires_grad=True) for name, raw in tensors.items()}
    return {**tensors, "grad_output.output": pack(RNG.normal(size=shape), dtype)}, leaves


def eager(operation: str, leaves: dict[str, Any], parameters: dict[str, Any]) -> Any:
    functional, (x, *affine) = torch.nn.functional, leaves.values()
    if operation == "group_norm":
        return functional.group_norm(x, parameters["num_groups"], *affine, parameters["eps"])
    if operation == "instance_norm":
        return functional.instance_norm(x, None, None, *affine, eps=parameters["eps"])
    return getattr(functional, operation)(x, parameters["normalized_shape"], *affine, parameters["eps"])


def test_running_statistics_move_once(inductor: Client) -> None:
    x = RNG.normal(1.0, 2.0, size=(5, 2, 3))
    tensors = {"input": pack(x), **running(2), "grad_output.output": pack(np.ones(x.shape))}
    reply = inductor.ask("batch_norm", tensors, gradients=True, mode="train", **batch_norm())
    assert np.allclose(reply["running_mean"], 0.1 * x.mean((0, 2)), rtol=1e-5)
    assert np.allclose(reply["running_var"], 0.9 + 0.1 * x.var((0, 2), ddof=1), rtol=1e-5)
    assert reply["num_batches_tracked"] == 1
    evaluated = inductor.ask("batch_norm", {"input": pack(x), **running(2)}, **batch_norm())
    assert np.allclose(evaluated["output"], x, rtol=1e-4) and evaluated["num_batches_tracked"] == 0


def test_refusals(inductor: Client) -> None:
    reply = inductor.ask("batch_norm", {"input": np.ones((1, 2))}, mode="train", **batch_norm())
    assert reply.kind == "too_few_values"
    reply = inductor.ask("rms_norm", {"input": np.ones((2, 3))}, normalized_shape=[4], eps=1e-5)
    assert reply.kind == "shape"
    reply = inductor.ask("batch_norm", {"input": np.ones((2, 3))}, **batch_norm(dims=2))
    assert reply.kind == "shape"


def test_what_is_computed_without_inductor_is_no_answer(inductor: Client) -> None:
    tensors = {"input": np.ones((4, 2)), **running(2)}
    reply = inductor.ask("batch_norm", tensors, mode="train", **batch_norm(momentum=None))
    assert reply.type == "unsupported" and "without Inductor" in reply.message["message"]


#: Prints the name of each kernel that Inductor launches. On a GPU the names are in the profiler's hands.
KERNELS = """
import inductor_layers, torch
from torch._inductor.runtime.triton_heuristics import CachingAutotuner

inductor_layers.run_on_cpu()
run, backward = CachingAutotuner.run, inductor_layers.fused_backward


def recorded(*arguments):
    print("fused")
    return backward(*arguments)


def named(self, *arguments, **options):
    print(type(self.fn).__name__, self.fn.__name__)
    return run(self, *arguments, **options)


CachingAutotuner.run = named
inductor_layers.ON_GPU[torch.ops.normative.rms_norm_backward.default] = recorded
x = torch.ones(2, 3, 4, 8)
for x in (x, x.contiguous(memory_format=torch.channels_last)):
    module = torch.nn.RMSNorm(8)
    module.compile(backend=inductor_layers.backend, dynamic=False)
    module(x.requires_grad_()).sum().backward()
    print("next")
"""


@pytest.mark.skipif(not INTERPRETED, reason="this machine has a GPU")
def test_the_kernels_are_inductors() -> None:
    run = subprocess.run([sys.executable, "-c", KERNELS], check=False, cwd=FOLDER, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    contiguous, last = ({*part.splitlines()} - {""} for part in run.stdout.split("next\n")[:2])
    # A GPU has RMS norm as one operation, but for channels-last inputs.
    assert "fused" in contiguous and "fused" not in last
    kernels = (contiguous | last) - {"fused"}
    assert kernels and all(line.startswith("InterpretedFunction triton_") for line in kernels)
