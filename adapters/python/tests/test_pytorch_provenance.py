"""What is written down about a run of PyTorch's: details, kernels, and whether calls repeat."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from client import FOLDER, Client, batch_norm, pack, running, unpack

import normative

torch = pytest.importorskip("torch")

import pytorch_provenance as provenance  # noqa: E402

NO_GPU = "PyTorch finds no usable CUDA device"


def request(**tensors: Any) -> normative.Request:
    return normative.Request(7, "layer_norm", "eval", {}, tensors, {"input": "F32"}, fingerprint="f")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_copies_are_laid_out_as_they_were() -> None:
    for format, offset in [("contiguous", 0), ("channels_last", 0), ("strided", 3)]:
        steps = normative.strides((2, 3, 4), format)
        storage = torch.full((200,), float("nan"))
        tensor = storage.as_strided((2, 3, 4), steps, offset).copy_(torch.randn(2, 3, 4))
        copy = provenance.copy(request(input=tensor)).tensors["input"]
        assert (copy.stride(), copy.storage_offset()) == (tensor.stride(), offset)
        assert torch.equal(copy, tensor) and copy.data_ptr() != tensor.data_ptr()
        assert copy.untyped_storage().nbytes() == storage.untyped_storage().nbytes()


def test_bits_are_compared_and_not_values() -> None:
    nan, zero = torch.tensor([float("nan")]), torch.zeros(1)
    assert provenance.same_bits(nan, nan.clone())
    assert not provenance.same_bits(zero, -zero)
    assert not provenance.same_bits(zero, zero.double()) and not provenance.same_bits(zero, zero[0])
    assert provenance.same_bits(torch.ones(2, 3).T, torch.ones(3, 2)) and provenance.same_bits(zero[0], zero[0])
    assert provenance.same_bits(torch.zeros(0, 2, dtype=torch.bfloat16), torch.zeros(0, 2, dtype=torch.bfloat16))


def test_calls_that_do_not_repeat_are_named(tmp_path: Path) -> None:
    calls = []

    def answer(request: normative.Request) -> dict[str, Any]:
        calls.append(request.tensors["input"].tolist())
        request.tensors["input"].add_(1)  # as a layer changes its state
        return {"output": torch.tensor(float(len(calls))), "grad_input": torch.zeros(1)}

    path = tmp_path / "kernels"
    observer = provenance.Observer(answer, str(path), 5, "cpu", {"torch": "x"})
    first = observer(request(input=torch.ones(1)))
    observer.close()
    assert first["output"] == 1 and calls == [[1.0]] * 5
    start, line, end = lines(path)
    assert start == {"details": {"torch": "x"}, "repeat": 5}
    assert (line["id"], line["fingerprint"], line["not_repeatable"]) == (7, "f", ["output"])
    assert end == {"calls": 1, "not_repeatable": 1, "which": ["layer_norm, request 7: output"]}


def test_what_is_refused_is_not_written_down(tmp_path: Path) -> None:
    def answer(request: normative.Request) -> dict[str, Any]:
        raise normative.Refusal("shape", "no")

    observer = provenance.Observer(answer, str(tmp_path / "kernels"), 2, "cpu", {})
    with pytest.raises(normative.Refusal):
        observer(request(input=torch.ones(1)))
    assert len(lines(tmp_path / "kernels")) == 1


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "kernels"
    sent = {"input": pack(np.arange(12.0).reshape(4, 3)), **running(3)}
    outputs = []
    for _ in range(2):
        with Client(FOLDER / "pytorch.py", "--kernels", path, "--repeat", "3") as client:
            client.hello()
            outputs.append(client.ask("batch_norm", sent, mode="train", **batch_norm()))
            assert client.close()[0] == 0
    written = lines(path)
    assert len(written) == 6
    details, call, end = written[:3]
    assert details["details"]["mode"] == "eager" and details["repeat"] == 3
    assert call["operation"] == "batch_norm" and call["shape"] == [4, 3] and call["dtype"] == "F32"
    assert any("batch_norm" in name for name in call["kernels"]) and "not_repeatable" not in call
    assert end == {"calls": 1, "not_repeatable": 0, "which": []}
    assert written[4] == call
    # The state moved once, however many calls there were.
    assert all(reply["num_batches_tracked"] == 1 for reply in outputs)
    assert np.allclose(outputs[0]["running_mean"], 0.1 * unpack(sent["input"]).mean(0))


# --- a GPU, as far as it can be told without one ----------------------------------------------------------------------


def test_details_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(provenance, "driver", lambda: "580.1")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    found = provenance.details("cuda", True, "bf16")
    expected = {
        "gpu": "NVIDIA H100 80GB HBM3", "compute_capability": "9.0", "multiprocessors": "132", "driver": "580.1",
        "cudnn_enabled": "on", "cudnn_benchmark": "off", "mode": "compiled", "autocast": "bf16",
        "deterministic_algorithms": "off", "nvidia_tf32_override": "0",
    }  # fmt: skip
    assert found.items() >= expected.items()
    assert {"torch", "torch_commit", "cuda", "cudnn", "cudnn_tf32", "matmul_tf32", "triton"} <= set(found)
    assert all(isinstance(value, str) for value in found.values())


def test_the_drivers_version(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = SimpleNamespace(stdout="580.159.04\n580.159.04\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert provenance.driver() == "580.159.04"

    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", missing)
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025\n"
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert provenance.driver() == "580.95.05"


def test_a_device_is_there_if_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert provenance.no_cuda() == NO_GPU

    def broken(index: int) -> None:
        raise RuntimeError("CUDA unknown error\nat a path")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    assert provenance.no_cuda() == "the CUDA device does not answer: RuntimeError: CUDA unknown error"
    # Properties alone are not enough: a device that was only pretended computes nothing.
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(name="a pretence"))
    if not torch.cuda.device_count():
        assert "does not answer" in str(provenance.no_cuda())
