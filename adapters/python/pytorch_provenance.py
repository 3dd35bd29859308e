"""What ran: the versions and settings behind an answer of PyTorch's, the kernels of a call, and whether it repeats."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import normative

#: What in the environment changes the arithmetic on a GPU.
ENVIRONMENT = (
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "CUDA_LAUNCH_BLOCKING",
)  # fmt: skip


def no_cuda() -> str | None:
    """Why nothing can be computed on a GPU, None where it can.

    A device is there if it tells its properties and adds two numbers: nothing else may call its answers a device's.
    """
    try:
        if not torch.cuda.is_available():
            return "PyTorch finds no usable CUDA device"
        torch.cuda.get_device_properties(0)
        if torch.ones(1, device="cuda").add_(1).item() != 2:
            return "the CUDA device does not compute"
    except (RuntimeError, AssertionError, OSError) as error:
        first_line = (str(error).splitlines() or [""])[0]
        return f"the CUDA device does not answer: {type(error).__name__}: {first_line}"
    return None


def details(device: str, compiled: bool, autocast: str | None) -> dict[str, str]:
    """What decides the bits of an answer. Nothing here names the machine: recording again gives the same bytes."""
    found = {
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": on(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled),
        "mode": "compiled" if compiled else "eager",
        "autocast": autocast or "off",
        "deterministic_algorithms": on(torch.are_deterministic_algorithms_enabled()),
    }
    if (torchvision := version_of("torchvision")) is not None:
        found["torchvision"] = torchvision
    if compiled and (triton := version_of("triton")) is not None:
        found["triton"] = triton
    if device == "cuda":
        found.update(cuda_details())
    return found


def cuda_details() -> dict[str, str]:
    device, cudnn = torch.cuda.get_device_properties(0), torch.backends.cudnn
    found = {
        "torch_commit": str(torch.version.git_version),
        "cuda": str(torch.version.cuda),
        "driver": driver(),
        "gpu": device.name,
        "compute_capability": f"{device.major}.{device.minor}",
        "multiprocessors": str(device.multi_processor_count),
        "cudnn": str(cudnn.version()),
        "cudnn_enabled": on(cudnn.enabled),
        "cudnn_benchmark": on(cudnn.benchmark),
        "cudnn_deterministic": on(cudnn.deterministic),
        "cudnn_tf32": on(cudnn.allow_tf32),
        "matmul_tf32": on(torch.backends.cuda.matmul.allow_tf32),
    }
    return found | {name.lower(): os.environ[name] for name in ENVIRONMENT if name in os.environ}


def driver() -> str:
    """The version of NVIDIA's driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()
        if answer:
            return answer[0]
    except (OSError, subprocess.SubprocessError):
        pass
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split()
        return next((word for word in words if word.count(".") >= 1 and word[0].isdigit()), "unknown")
    except OSError:
        return "unknown"


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def on(flag: Any) -> str:
    return "on" if flag else "off"


def compiled_afresh(answer: normative.Handler) -> normative.Handler:
    """Forgets what was compiled for the request before.

    The compiler keeps a few versions of a function and runs it eagerly after that, without a word.
    """

    def handler(request: normative.Request) -> Mapping[str, Any]:
        torch.compiler.reset()
        return answer(request)

    return handler


class Observer:
    """Answers as another handler does, and writes down what ran.

    Each line of the file is one JSON object: first ``details``, then for each request that was answered its
    ``fingerprint``, its ``kernels`` and, where calls are repeated, the tensors that differ; at the end a summary. Lines
    are added, so that several processes, and one that is started again, share a file.
    """

    def __init__(
        self, answer: normative.Handler, path: str, repeat: int, device: str, details: Mapping[str, str]
    ) -> None:
        self.answer, self.path, self.repeat, self.device = answer, path, repeat, device
        self.calls, self.differing = 0, []  # type: int, list[str]
        self._kernels(lambda: torch.ones(1, device=device).add_(1))  # the profiler's first start takes seconds
        self._write({"details": dict(details), "repeat": repeat})

    def __call__(self, request: normative.Request) -> Mapping[str, Any]:
        # A call changes its state tensors, so each has its own.
        copies = [copy(request) for _ in range(max(self.repeat, 2) - 1)]
        answer = self.answer(request)
        kernels: list[str] = []
        differing: set[str] = set()
        for number, again in enumerate(copies):
            if number == 0:  # the second call: the first one compiles, loads and tunes
                kernels, other = self._kernels(lambda again=again: self.answer(again))
            else:
                other = self.answer(again)
            differing.update(name for name in answer if not same_bits(answer[name], other[name]))
        self.calls += 1
        line: dict[str, Any] = {
            "id": request.id,
            "fingerprint": request.fingerprint,
            "operation": request.name,
            "mode": request.mode,
            "dtype": request.dtypes.get("input"),
            "shape": list(request.tensors["input"].shape),
            "kernels": kernels,
        }
        if differing:
            line["not_repeatable"] = sorted(differing)
            self.differing.append(f"{request.name}, request {request.id}: {', '.join(sorted(differing))}")
        self._write(line)
        return answer

    def close(self) -> None:
        self._write({"calls": self.calls, "not_repeatable": len(self.differing), "which": self.differing})

    def _kernels(self, call: Any) -> tuple[list[str], Any]:
        """The names of the CUDA kernels that a call runs, without copies and fills; on a CPU, ATen's operators."""
        cuda = self.device == "cuda"
        with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
            result = call()
            if cuda:
                torch.cuda.synchronize()
        kind = DeviceType.CUDA if cuda else DeviceType.CPU
        names = {event.name for event in profiler.events() if event.device_type == kind}
        return sorted(name for name in names if not name.startswith(("Memcpy", "Memset", "[", "##"))), result

    def _write(self, line: Mapping[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def copy(request: normative.Request) -> normative.Request:
    """The same request in memory of its own, laid out the same way to the last unused element."""
    return dataclasses.replace(request, tensors={name: copy_of(tensor) for name, tensor in request.tensors.items()})


def copy_of(tensor: Tensor) -> Tensor:
    storage = tensor.untyped_storage().clone()
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return empty.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())


def same_bits(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    flat = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(*flat)
