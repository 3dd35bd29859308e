"""The suite's side of the pipe, as far as the tests of this folder need it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(FOLDER), str(FOLDER / "tests")]

import normative  # noqa: E402
from normative import RawTensor  # noqa: E402

_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}


def pack(values: Any, dtype: str = "F32") -> RawTensor:
    """Numbers to a tensor of the protocol, rounded to its data type."""
    array = np.asarray(values)
    if dtype == "BF16":
        return RawTensor("BF16", array.shape, normative._bf16_bits(array.astype(np.float64)).astype("<u2").tobytes())
    return RawTensor(dtype, array.shape, array.astype(_NUMPY[dtype]).tobytes())


def unpack(raw: RawTensor) -> np.ndarray:
    """A tensor's values, exactly: as float64, counters as int64."""
    if raw.dtype == "BF16":
        bits = np.frombuffer(raw.data, "<u2").astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).astype(np.float64).reshape(raw.shape)
    array = np.frombuffer(raw.data, _NUMPY[raw.dtype]).reshape(raw.shape)
    return array if raw.dtype == "I64" else array.astype(np.float64)


class Reply:
    """A subject's answer: its message and, by name, its tensors."""

    def __init__(self, message: dict[str, Any], raw: dict[str, RawTensor]) -> None:
        self.message, self.raw = message, raw
        self.type, self.kind = message["type"], message.get("kind")

    def __getitem__(self, name: str) -> np.ndarray:
        return unpack(self.raw[name])

    def __repr__(self) -> str:
        return f"{self.message} {self.raw}"


def request(
    operation: str,
    tensors: Mapping[str, Any],
    *,
    mode: str = "eval",
    id: int = 0,
    layout: Mapping[str, Any] | None = None,
    gradients: bool = False,
    double_backward: bool = False,
    **parameters: Any,
) -> bytes:
    """A request's document. Tensors may be numbers, which become F32, or an int, which becomes a counter."""
    message = {
        "type": "request", "id": id, "mode": mode, "gradients": gradients, "layout": layout or {"format": "contiguous"},
        "operation": {"name": operation, **parameters},
    }  # fmt: skip
    if double_backward:
        message["double_backward"] = True
    counters = {name: pack(value, "I64") for name, value in tensors.items() if isinstance(value, int)}
    others = {n: v if isinstance(v, RawTensor) else pack(v) for n, v in tensors.items() if not isinstance(v, int)}
    return normative.encode(message, {**counters, **others})


def in_process(subject: normative.Subject, operation: str, tensors: Mapping[str, Any], **rest: Any) -> Reply:
    """The same question to a subject without a process."""
    return Reply(*normative.decode(subject.reply(request(operation, tensors, **rest))))


class Client:
    """A subject program at the end of a pipe."""

    def __init__(self, *command: str | Path, env: Mapping[str, str] | None = None) -> None:
        path = os.pathsep.join(filter(None, [str(FOLDER), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, **(env or {})}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)], stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
        self.id = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def send(self, document: bytes) -> None:
        assert self.process.stdin
        normative.write_frame(self.process.stdin, document)  # type: ignore[arg-type]

    def receive(self) -> Reply | None:
        assert self.process.stdout
        document = normative.read_frame(self.process.stdout)  # type: ignore[arg-type]
        return None if document is None else Reply(*normative.decode(document))

    def hello(self) -> dict[str, Any]:
        self.send(normative.encode({"type": "hello", "normative": 1}))
        reply = self.receive()
        assert reply is not None, self.close()
        return reply.message

    def ask(self, operation: str, tensors: Mapping[str, Any], **rest: Any) -> Reply:
        self.id += 1
        self.send(request(operation, tensors, id=self.id, **rest))
        reply = self.receive()
        assert reply is not None, self.close()
        assert reply.message["id"] == self.id
        return reply

    def close(self) -> tuple[int, str]:
        """Ends the conversation: exit status and standard error."""
        _, errors = self.process.communicate()
        return self.process.returncode, errors.decode()


def batch_norm(dims: int | None = 1, eps: Any = 1e-5, momentum: Any = 0.1) -> dict[str, Any]:
    """Batch norm's hyper-parameters, with the defaults of PyTorch."""
    return {"spatial_dims": dims, "eps": eps, "momentum": momentum}


def running(channels: int = 1, counter: int | None = 0, dtype: str = "F32") -> dict[str, Any]:
    """The running statistics of a fresh module."""
    state: dict[str, Any] = {
        "running_mean": pack(np.zeros(channels), dtype),
        "running_var": pack(np.ones(channels), dtype),
    }
    return state if counter is None else {**state, "num_batches_tracked": counter}


def shapes(tensors: Mapping[str, RawTensor]) -> dict[str, Sequence[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}
