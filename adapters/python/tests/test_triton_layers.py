"""Kernels in Triton behind the pipe: the tutorial's file, of which the kernels alone may run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from client import FOLDER, Client

pytest.importorskip("torch")
pytest.importorskip("triton")

#: Laid out as the tutorial is: a kernel and a function that launches it, amid what needs a GPU and an afternoon.
TUTORIAL = """
import torch
import triton
import triton.language as tl

DEVICE = triton.runtime.driver.active.get_active_torch_device()


@triton.jit
def scale(X, Y, W, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, BLOCK)
    mask = tl.arange(0, BLOCK) < N
    tl.store(Y + at, tl.load(X + at, mask) * tl.load(W + tl.arange(0, BLOCK), mask), mask)


class LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, normalized_shape, weight, bias, eps):
        y = torch.empty_like(x)
        scale[(x.numel() // x.shape[-1],)](x, y, weight, x.shape[-1], triton.next_power_of_2(x.shape[-1]))
        return y


def test_layer_norm():
    raise AssertionError("a test of the tutorial's own")


test_layer_norm()
"""


@pytest.fixture
def tutorial(tmp_path: Path) -> Path:
    file = tmp_path / "05-layer-norm.py"
    file.write_text(TUTORIAL)
    return file


def test_the_tutorials_kernels_run_and_nothing_else_of_it(tutorial: Path) -> None:
    with Client(FOLDER / "triton_layers.py", "--library", "tutorial", "--tutorial", tutorial) as client:
        hello = client.hello()
        assert hello["operations"] == ["layer_norm"] and hello["details"]["tutorial"].startswith("sha256 ")
        x, weight = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0, 3.0])
        reply = client.ask("layer_norm", {"input": x, "weight": weight}, normalized_shape=[3], eps=1e-5)
        assert np.array_equal(reply["output"], x * weight)


def test_an_input_with_gaps_is_left_alone(tutorial: Path) -> None:
    with Client(FOLDER / "triton_layers.py", "--library", "tutorial", "--tutorial", tutorial) as client:
        client.hello()
        layout = {"format": "strided", "offset": 0}
        reply = client.ask("layer_norm", {"input": np.ones((2, 3))}, layout=layout, normalized_shape=[3], eps=1e-5)
        assert reply.type == "unsupported" and "beyond its output" in reply.message["message"]


@pytest.mark.parametrize(("text", "said"), [(None, "No such file"), ("x = 1\n", "no class LayerNorm")])
def test_a_file_without_the_tutorial(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "05-layer-norm.py"
    if text is not None:
        file.write_text(text)
    status, errors = Client(FOLDER / "triton_layers.py", "--library", "tutorial", "--tutorial", file).close()
    assert status == 3 and len(errors.splitlines()) == 1 and said in errors


@pytest.mark.parametrize("arguments", [("tutorial",), ("liger", "--tutorial", "05-layer-norm.py")])
def test_the_file_belongs_to_the_tutorial(arguments: tuple[str, ...]) -> None:
    status, errors = Client(FOLDER / "triton_layers.py", "--library", *arguments).close()
    assert status == 2 and "--library tutorial goes with --tutorial FILE" in errors
