"""Serve a normalization layer to *normative*, the conformance suite, over standard input and output.

An adapter is a program of a few lines::

    import normative

    @normative.operation("layer_norm", dtypes=["F32", "F64"])
    def layer_norm(request):
        ...
        return {"output": y}

    normative.serve(name="my layer", version="1")

The suite starts it, asks what it can do (*hello*), then sends one request at a time. The module speaks the subject
protocol, version 1; the handler sees arrays and hyper-parameters only. It needs the standard library and numpy; with
``framework="torch"`` the tensors are torch tensors, with ``"jax"`` they are JAX arrays, and with ml_dtypes installed
numpy has a bfloat16 of its own. What a handler returns may be an array of any framework.

`normative.testing` judges a layer from a test, without an adapter.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import numpy as np

try:  # numpy has no bfloat16; ml_dtypes adds one where it is installed
    from ml_dtypes import bfloat16 as _bfloat16
except ImportError:
    _bfloat16 = None

__all__ = [
    "Layout", "ProtocolError", "RawTensor", "Refusal", "Request", "Subject", "Unsupported",
    "decode", "encode", "fingerprint", "operation", "read_frame", "round_bf16", "serve", "strides", "take_pipe",
    "write_frame",
]  # fmt: skip

PROTOCOL = 1

#: The data types of the protocol and how many bytes an element takes.
ITEM_SIZE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}

#: The tensors that an operation hands back beside its output, because a call changes them.
STATE = {
    "batch_norm": (
        "running_mean", "running_var", "hidden_mean", "hidden_var", "scale_factor", "num_batches_tracked",
    ),
    "sync_batch_norm": ("running_mean", "running_var", "num_batches_tracked"),
    "instance_norm": ("running_mean", "running_var", "num_batches_tracked"),
    "spectral_norm": ("u", "v"),
    "spade": ("running_mean", "running_var", "num_batches_tracked"),
    "ghost_batch_norm": ("running_mean", "running_var"),
    "split_batch_norm": ("running_mean", "running_var"),
    "masked_batch_norm": ("running_mean", "running_var"),
    "evo_norm_b0": ("running_var",),
    "evo_norm_b1": ("running_var",),
    "evo_norm_b2": ("running_var",),
    "batch_renorm": ("running_mean", "running_std"),
}

#: The tensors that an operation is differentiated by.
DIFFERENTIABLE = {
    "spectral_norm": ("input",),
    "frozen_batch_norm": ("input",),
    "conv_batch_norm_fold": ("input", "conv_bias", "weight", "bias"),
    "qk_norm": ("input", "key", "weight", "key_weight"),
    "rms_norm_gated": ("input", "gate", "weight"),
    "filter_response_norm": ("input", "weight", "bias", "tau"),
    "ada_layer_norm": ("input", "scale", "shift"),
    "ada_group_norm": ("input", "scale", "shift"),
    "ada_instance_norm": ("input", "style"),
    "film": ("input", "gamma", "beta"),
    "spade": ("input", "gamma", "beta"),
    "scaled_weight_standardization": ("input", "gain"),
    "dynamic_tanh": ("input", "alpha", "weight", "bias"),
    "dynamic_erf": ("input", "alpha", "shift", "weight", "bias"),
    "weight_demodulation": ("input", "style"),
    "evo_norm_b0": ("input", "weight", "bias", "v"),
    "evo_norm_s0": ("input", "weight", "bias", "v"),
}

#: The same for all other operations.
DIFFERENTIABLE_ELSEWHERE = ("input", "weight", "bias")

REFUSAL_KINDS = ("dtype", "shape", "parameter", "empty", "too_few_values", "other")


class Refusal(Exception):
    """The layer refuses the case, as a careful layer refuses to train on one value per channel.

    ``kind`` is one of `REFUSAL_KINDS`. ``state`` holds the state tensors after the call, where the layer changes
    them before it refuses (PyTorch counts a batch before it looks at its size).
    """

    def __init__(self, kind: str, message: str, state: Mapping[str, Any] | None = None) -> None:
        if kind not in REFUSAL_KINDS:
            raise ValueError(f"a refusal's kind is one of {', '.join(REFUSAL_KINDS)}, not {kind!r}")
        super().__init__(message)
        self.kind, self.message, self.state = kind, message, dict(state or {})


class Unsupported(Exception):
    """The layer has no such operation, data type, dialect, layout or option: it makes no claim about the case."""


class ProtocolError(Exception):
    """The bytes on the pipe are not the protocol. Nobody can answer them, so the program ends."""


class _BadAnswer(TypeError):
    """A handler returned something that no document can hold: a mistake in the adapter, not an answer."""


# ---------------------------------------------------------------------------------------------------------------------
# Documents: complete safetensors byte strings whose metadata holds one JSON text.


class RawTensor(NamedTuple):
    """A tensor as a document stores it: C-contiguous little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview


def encode(message: Mapping[str, Any], tensors: Mapping[str, RawTensor] | None = None) -> bytes:
    """Writes a document. Wide data types come first and the header is padded, so every tensor is aligned."""
    tensors = tensors or {}
    header: dict[str, Any] = {"__metadata__": {"normative": json.dumps(_to_json(message), allow_nan=False)}}
    order = sorted(tensors, key=lambda name: (-ITEM_SIZE[tensors[name].dtype], name))
    offset = 0
    for name in order:
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(tensors[name].data for name in order)])


def decode(document: bytes | bytearray) -> tuple[dict[str, Any], dict[str, RawTensor]]:
    """Reads a document, checking everything that a reader of safetensors must."""
    view = memoryview(document)
    if len(view) < 8 or (end := 8 + int.from_bytes(view[:8], "little")) > len(view):
        raise ProtocolError(f"a document of {len(view)} bytes is shorter than its header")
    header = _parse(bytes(view[8:end]), "the document's header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get("normative"), str):
        raise ProtocolError('the document has no metadata key "normative"')
    body, tensors = view[end:], {}
    for name, entry in header.items():
        try:
            dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            size = math.prod(shape) * ITEM_SIZE[dtype]
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"tensor {name!r} has a bad entry: {entry!r}") from error
        if not 0 <= start <= stop <= len(body) or stop - start != size or any(extent < 0 for extent in shape):
            raise ProtocolError(f"tensor {name!r} does not fit its bytes: {entry!r}")
        tensors[name] = RawTensor(dtype, shape, body[start:stop])
    if sum(len(tensor.data) for tensor in tensors.values()) != len(body):
        raise ProtocolError("the document's tensors overlap or leave bytes unused")
    return _parse(metadata["normative"], "the message"), tensors


def _parse(text: str | bytes, what: str) -> dict[str, Any]:
    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        value = json.loads(text, parse_constant=no_constant)
    except ValueError as error:
        raise ProtocolError(f"{what} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} is no JSON object")
    return value


def _to_json(value: Any) -> Any:
    """JSON has no NaN and no infinity: the protocol writes them as strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value


def _from_json(value: Any) -> Any:
    """The floats behind the strings "nan", "inf" and "-inf". Only for hyper-parameters: a text may be one of them."""
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Frames: a document behind its length.


def read_frame(stream: BinaryIO) -> bytearray | None:
    """The next document, or None where the pipe was closed between two of them."""
    prefix = _read(stream, 8)
    if not prefix:
        return None
    if len(prefix) < 8:
        raise ProtocolError(f"the pipe closed after {len(prefix)} of the 8 bytes of a frame's length")
    length = int.from_bytes(prefix, "little")
    try:
        document = _read(stream, length)
    except (MemoryError, OverflowError) as error:
        raise ProtocolError(f"a frame declares {length} bytes, more than there is memory for") from error
    if len(document) < length:
        raise ProtocolError(f"the pipe closed after {len(document)} of the {length} bytes of a frame")
    return document


def _read(stream: BinaryIO, length: int) -> bytearray:
    buffer, filled = bytearray(length), 0
    while filled < length and (count := stream.readinto(memoryview(buffer)[filled:])):  # type: ignore[attr-defined]
        filled += count
    return buffer[:filled] if filled < length else buffer


def write_frame(stream: BinaryIO, document: bytes) -> None:
    stream.write(len(document).to_bytes(8, "little"))
    stream.write(document)
    stream.flush()


# ---------------------------------------------------------------------------------------------------------------------
# Layouts: where the elements of a tensor lie in memory.


class Layout(NamedTuple):
    """How the input and the output's gradient lie in memory when the layer is called."""

    format: str = "contiguous"
    offset: int = 0


def strides(shape: Sequence[int], format: str) -> tuple[int, ...]:
    """The strides, in elements, of a tensor in a layout's format.

    ``channels_last`` keeps the shape N, C, … and puts C innermost, as ``torch.channels_last`` does for rank 4 and
    ``torch.channels_last_3d`` for rank 5. ``strided`` leaves one unused element behind each row of every dimension but
    the last, so that no two dimensions can be merged.
    """
    rank = len(shape)
    order, gap = list(range(rank)), 0
    if format == "channels_last":
        if rank < 3:
            raise Unsupported(f"channels_last needs a spatial dimension, the input has rank {rank}")
        order.append(order.pop(1))
    elif format == "strided":
        gap = 1
    elif format != "contiguous":
        raise Unsupported(f"no layout {format!r}")
    result, step = [0] * rank, 1
    for dimension in reversed(order):
        result[dimension] = step
        step = step * max(shape[dimension], 1) + gap
    return tuple(result)


def _extent(shape: Sequence[int], steps: Sequence[int], offset: int) -> int:
    """How many elements a storage needs to hold a tensor with these strides."""
    return offset + 1 + sum((extent - 1) * step for extent, step in zip(shape, steps) if extent > 0)


# ---------------------------------------------------------------------------------------------------------------------
# Frameworks: raw tensors to arrays and back.


def round_bf16(values: Any) -> np.ndarray:
    """Rounds to bfloat16 once, to nearest, ties to even, from float32 or float64.

    The result is an array of ml_dtypes.bfloat16 where that is installed, else a float32 array of values that
    bfloat16 has exactly.
    """
    bits = _bf16_bits(np.asarray(values))
    return bits.view(_bfloat16) if _bfloat16 else (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _bf16_bits(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        single = np.array(values, np.float32, order="C")
    bits = single.view(np.uint32)
    if values.dtype == np.float64:
        # Rounding twice can miss a tie. Rounding the first time to odd (truncate, and set the last bit if anything
        # was lost) cannot: float32 has more than two bits to spare.
        bits -= (np.abs(single) > np.abs(values)).astype(np.uint32)
        bits |= (bits.view(np.float32) != values).astype(np.uint32)
    with np.errstate(over="ignore"):
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)


class _Numpy:
    """numpy arrays. Without ml_dtypes a BF16 tensor is a float32 array of the same values."""

    _types = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64}
    if _bfloat16:
        _types["BF16"] = _bfloat16
    _names = {np.dtype(value): key for key, value in _types.items()}

    def load(self, raw: RawTensor, layout: Layout) -> np.ndarray:
        if raw.dtype in self._types:
            flat = np.frombuffer(raw.data, np.dtype(self._types[raw.dtype]).newbyteorder("<"))
            array = flat.astype(self._types[raw.dtype]).reshape(raw.shape)
        else:
            bits = np.frombuffer(raw.data, "<u2").astype(np.uint32) << np.uint32(16)
            array = bits.view(np.float32).reshape(raw.shape)
        return array if layout == Layout() else self._lay_out(array, layout)

    def _lay_out(self, array: np.ndarray, layout: Layout) -> np.ndarray:
        steps = strides(array.shape, layout.format)
        # What lies between the elements is NaN: a layer that reads it shows it.
        storage = np.full(_extent(array.shape, steps, layout.offset), np.nan, array.dtype)
        steps = tuple(step * array.itemsize for step in steps)
        view = np.lib.stride_tricks.as_strided(storage[layout.offset :], array.shape, steps)
        view[...] = array
        return view

    def store(self, value: Any, dtype: str | None) -> RawTensor:
        if is_torch(value):
            return _store_torch(value)
        array = _as_numpy(value)
        if dtype == "BF16" and not _bfloat16 and array.dtype in (np.float32, np.float64):
            return RawTensor("BF16", array.shape, _bf16_bits(array).astype("<u2").tobytes())
        name = self._names.get(array.dtype.newbyteorder("="))
        if name is None:
            raise _BadAnswer(f"the protocol has no data type {array.dtype}")
        return RawTensor(name, array.shape, array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


def _as_numpy(value: Any) -> np.ndarray:
    """An array of any framework: through ``__array__``, else through DLPack."""
    if hasattr(value, "__array__") or not hasattr(value, "__dlpack__"):
        return np.asarray(value)
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError):  # it lies in another memory
        return np.from_dlpack(value, device="cpu", copy=True)


class _Jax(_Numpy):
    """JAX arrays. JAX has F64 where it is told so, and decides by itself how arrays lie in memory."""

    def __init__(self, dtypes: Sequence[str], options: Sequence[str]) -> None:
        import jax

        if layouts := {"channels_last", "strided"} & set(options):
            raise ValueError(f"JAX has no layouts: {', '.join(sorted(layouts))} cannot be claimed")
        if "F64" in dtypes:
            config: Any = jax.config
            config.update("jax_enable_x64", True)
        self._asarray = jax.numpy.asarray

    def load(self, raw: RawTensor, layout: Layout) -> Any:
        return self._asarray(super().load(raw, layout))


class _Torch:
    """torch tensors on one device, every one in storage of its own."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch, self._device = torch, torch.device(device)
        self._types = {
            "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
            "I64": torch.int64,
        }  # fmt: skip
        self._bits = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.int16, "I64": np.int64}

    def load(self, raw: RawTensor, layout: Layout) -> Any:
        torch = self._torch
        array = np.frombuffer(raw.data, self._bits[raw.dtype]).reshape(raw.shape)
        dtype = self._types[raw.dtype]
        steps = strides(raw.shape, layout.format)
        storage = torch.zeros(_extent(raw.shape, steps, layout.offset), dtype=dtype, device=self._device)
        if dtype.is_floating_point:
            storage.fill_(math.nan)  # what lies between the elements: a layer that reads it shows it
        view = storage.as_strided(raw.shape, steps, layout.offset)
        return view.copy_(torch.from_numpy(array.copy()).view(dtype))

    def store(self, value: Any, dtype: str | None) -> RawTensor:
        return _store_torch(self._torch.as_tensor(value))


def is_torch(value: Any) -> bool:
    """Whether it is a torch tensor; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _store_torch(tensor: Any) -> RawTensor:
    """A torch tensor from any device, differentiable or not; numpy alone could not read a bfloat16 one."""
    import torch

    tensor = tensor.detach().to("cpu").contiguous()
    name = _TORCH_NAMES.get(str(tensor.dtype))
    if name is None:
        raise _BadAnswer(f"the protocol has no data type {tensor.dtype}")
    if name == "BF16":
        tensor = tensor.view(torch.int16)
    return RawTensor(name, tuple(tensor.shape), tensor.numpy().tobytes())


_TORCH_NAMES = {
    "torch.float64": "F64", "torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16",
    "torch.int64": "I64",
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Requests and replies.


def fingerprint(message: Mapping[str, Any], tensors: Mapping[str, RawTensor]) -> str:
    """A name for a request that depends on what it asks alone, and not on its number.

    A golden file holds the requests as well, so what an adapter notes about a call is found again by it.
    """
    asked = {key: message.get(key) for key in ("operation", "mode", "layout")}
    asked.update({key: bool(message.get(key, False)) for key in ("gradients", "double_backward")})
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        digest.update(json.dumps([name, dtype, list(shape)]).encode())
        digest.update(data)
    return digest.hexdigest()


@dataclass
class Request:
    """One step of a case, as a handler sees it. A tensor that was not sent is absent: ``tensors.get`` gives None."""

    id: int
    name: str
    mode: str
    parameters: dict[str, Any]
    tensors: dict[str, Any]
    dtypes: dict[str, str]
    dialect: str = "pytorch"
    layout: Layout = Layout()
    gradients: bool = False
    double_backward: bool = False
    fingerprint: str = ""

    @property
    def differentiable(self) -> tuple[str, ...]:
        """The tensors that were sent and that the operation is differentiated by."""
        names = DIFFERENTIABLE.get(self.name, DIFFERENTIABLE_ELSEWHERE)
        return tuple(name for name in names if name in self.tensors)

    @property
    def state(self) -> dict[str, Any]:
        """The state tensors that were sent, to be returned as they are after the call."""
        return {name: self.tensors[name] for name in STATE.get(self.name, ()) if name in self.tensors}


Handler = Callable[[Request], Mapping[str, Any]]


@dataclass
class _Entry:
    handler: Handler
    dtypes: tuple[str, ...]
    dialects: tuple[str, ...]


_registry: dict[str, _Entry] = {}


def operation(
    name: str, *, dtypes: Sequence[str] = ("F32",), dialects: Sequence[str] = ("pytorch",)
) -> Callable[[Handler], Handler]:
    """Registers a handler for one operation of the suite, with the data types and dialects that it claims.

    What is claimed must be answered. All operations of a program claim the same data types, because the hello has
    one list of them; layers that differ are served by two programs.
    """
    if unknown := set(dtypes) - {"F64", "F32", "F16", "BF16"}:
        raise ValueError(f"no data type {', '.join(sorted(unknown))}; there are F64, F32, F16 and BF16")

    def register(handler: Handler) -> Handler:
        _registry[name] = _Entry(handler, tuple(dtypes), tuple(dialects))
        return handler

    return register


@dataclass
class Subject:
    """What `serve` runs: from the bytes of a request to the bytes of its reply."""

    hello: dict[str, Any]
    operations: Mapping[str, _Entry]
    framework: Any = field(default_factory=_Numpy)

    def reply(self, document: bytes | bytearray) -> bytes:
        message, tensors = decode(document)
        kind = message.get("type")
        if kind == "hello":
            if message.get("normative") != PROTOCOL:
                raise ProtocolError(f"the suite speaks version {message.get('normative')}, this module {PROTOCOL}")
            return encode(self.hello)
        if kind != "request":
            raise ProtocolError(f"unknown message type {kind!r}")
        return self._answer(message, tensors)

    def _answer(self, message: dict[str, Any], raw: dict[str, RawTensor]) -> bytes:
        id = message.get("id")
        try:
            request, handler = self._request(message, raw)
            try:
                answer = handler(request)
            except Refusal as refusal:
                reply = {"type": "refusal", "id": id, "kind": refusal.kind, "message": refusal.message}
                return encode(reply, self._store(request, refusal.state, "refusal's state"))
            except (Unsupported, MemoryError):
                raise
            except Exception as error:
                # Raising is how a layer in Python refuses, so this is a refusal. A bug that raises passes for one on
                # the few cases that must be refused, and fails, with this text, every case that must be answered.
                traceback.print_exc()
                text = f"{type(error).__name__}: {error}"
                return encode({"type": "refusal", "id": id, "kind": "other", "message": text})
        except Unsupported as error:
            return encode({"type": "unsupported", "id": id, "message": str(error)})
        stored = self._store(request, answer, "answer")
        for complaint in _complaints(request, stored):
            print(f"normative: {request.name}, request {id}: {complaint}", file=sys.stderr)
        return encode({"type": "answer", "id": id}, stored)

    def _request(self, message: dict[str, Any], raw: dict[str, RawTensor]) -> tuple[Request, Handler]:
        try:
            parameters = dict(message["operation"])
            name, id, mode = parameters.pop("name"), message["id"], message["mode"]
            layout = Layout(**{k: v for k, v in message.get("layout", {}).items() if k in Layout._fields})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"a request lacks or garbles a field: {message!r}") from error
        dialect = parameters.pop("dialect", "pytorch")
        gradients, twice = bool(message.get("gradients", False)), bool(message.get("double_backward", False))
        entry, options = self.operations.get(name), self.hello["options"]
        dtypes = {key: tensor.dtype for key, tensor in raw.items()}
        if entry is None:
            raise Unsupported(f"no operation {name}")
        if dialect not in entry.dialects:
            raise Unsupported(f"no dialect {dialect} of {name}")
        if dtypes.get("input", entry.dtypes[0]) not in entry.dtypes:
            raise Unsupported(f"no {name} of {dtypes['input']}")
        if gradients and "gradients" not in options:
            raise Unsupported(f"no gradients of {name}")
        if twice and "double_backward" not in options:
            raise Unsupported(f"no double backward of {name}")
        needed = "strided" if layout.format == "contiguous" and layout.offset else layout.format
        if needed != "contiguous" and needed not in options:
            raise Unsupported(f"no layout {layout.format} with offset {layout.offset}")
        rank = len(raw["input"].shape) if "input" in raw else 0

        def laid_out(key: str, tensor: RawTensor) -> bool:
            # An output of another rank, such as a folded bias, has no layout of the input's.
            return key == "input" or (key.startswith("grad_output.") and len(tensor.shape) == rank)

        tensors = {
            key: self.framework.load(tensor, layout if laid_out(key, tensor) else Layout())
            for key, tensor in raw.items()
        }
        parameters = {key: _from_json(value) for key, value in parameters.items()}
        request = Request(
            id, name, mode, parameters, tensors, dtypes, dialect, layout, gradients, twice, fingerprint(message, raw)
        )
        missing = [key for key in request.differentiable if twice and f"grad_grad.{key}" not in raw]
        if missing or (twice and not gradients):
            lacking = f"grad_grad.{missing[0]}" if missing else '"gradients": true'
            raise ProtocolError(f"a request for double backward lacks {lacking}")
        return request, entry.handler

    def _store(self, request: Request, tensors: Any, what: str) -> dict[str, RawTensor]:
        where = f"{request.name}, request {request.id}: the {what}"
        if not isinstance(tensors, Mapping):
            raise _BadAnswer(f"{where} is a {type(tensors).__name__}, not a dict of tensors")
        stored = {}
        for key, value in tensors.items():
            if value is None:
                continue
            if not isinstance(key, str):
                raise _BadAnswer(f"{where} has a tensor with the name {key!r}, which is no text")
            try:
                stored[key] = self.framework.store(value, _expected_dtype(request, key))
            except (TypeError, ValueError, RuntimeError) as error:
                raise _BadAnswer(f"{where} has a tensor {key!r} that cannot be sent: {error}") from error
        return stored


def _like(request: Request, name: str) -> str | None:
    """The tensor of the request that an answer's tensor resembles: its own for a state tensor or a gradient."""
    own = (name, name.removeprefix("grad_"), name.removeprefix("grad2_"))
    seed = f"grad_output.{name.removeprefix('grad2_')}"
    return next((key for key in (*own, seed) if key in request.dtypes), None)


def _expected_dtype(request: Request, name: str) -> str | None:
    """The data type that the protocol wants: that of the tensor it resembles, else the input's."""
    if name in ("save_mean", "save_invstd"):
        return None
    return request.dtypes.get(_like(request, name) or "input")


def _complaints(request: Request, answer: Mapping[str, RawTensor]) -> list[str]:
    """What the suite will object to. The answer is sent all the same: judging it is the suite's work."""
    found = []
    for name in request.state:
        if name not in answer:
            found.append(f"the answer lacks {name!r}, a state tensor that was sent")
    if "output" not in answer and not any(name.startswith("folded_") for name in answer):
        found.append("the answer lacks 'output'")
    for name, tensor in answer.items():
        dtype = _expected_dtype(request, name)
        if dtype and tensor.dtype != dtype:
            found.append(f"{name!r} is {tensor.dtype}, not {dtype}")
        like = "input" if name in ("output", "folded_weight") else _like(request, name)
        shape = tuple(request.tensors[like].shape) if like else None
        if shape is not None and tensor.shape != shape:
            found.append(f"{name!r} has shape {list(tensor.shape)}, not {list(shape)}")
    return found


def serve(
    name: str,
    version: str = "",
    *,
    device: str = "cpu",
    framework: str = "numpy",
    options: Sequence[str] = (),
    arithmetic: Mapping[str, Any] | None = None,
    details: Mapping[str, str] | None = None,
) -> None:
    """Serves the registered operations until the suite closes the pipe.

    ``options`` are among ``channels_last``, ``strided`` (this module lays the tensors out), ``gradients`` (the
    handler returns ``grad_<tensor>`` when ``request.gradients``) and ``double_backward`` (it returns
    ``grad2_<tensor>`` as well when ``request.double_backward``). ``arithmetic`` says in which type the layer
    accumulates, where that is wider than the suite assumes: ``{"accumulate": "F64", "depth": "any"}``. With
    ``framework="torch"`` tensors are torch tensors on ``device``, with ``"jax"`` JAX arrays.
    """
    if not _registry:
        raise ValueError("nothing to serve: no operation is registered")
    claims = {entry.dtypes for entry in _registry.values()}
    if len({frozenset(claim) for claim in claims}) > 1:
        raise ValueError("all operations of a program claim the same data types; serve the others from a second one")
    hello: dict[str, Any] = {
        "type": "hello", "normative": PROTOCOL, "name": name, "version": version, "device": device,
        "operations": list(_registry), "dtypes": list(next(iter(_registry.values())).dtypes), "options": list(options),
    }  # fmt: skip
    if dialects := {key: list(e.dialects) for key, e in _registry.items() if e.dialects != ("pytorch",)}:
        hello["dialects"] = dialects
    if arithmetic:
        hello["arithmetic"] = dict(arithmetic)
    hello["details"] = dict(details or {})
    subject = Subject(hello, _registry, _framework(framework, device, hello["dtypes"], options))

    source, sink = take_pipe()
    try:
        while (document := read_frame(source)) is not None:
            write_frame(sink, subject.reply(document))
    except (ProtocolError, _BadAnswer) as error:
        sys.exit(f"normative: {error}")
    except BrokenPipeError:
        sys.exit("normative: the pipe was closed before the reply")


def _framework(name: str, device: str, dtypes: Sequence[str], options: Sequence[str]) -> Any:
    if name == "numpy":
        return _Numpy()
    if name == "torch":
        return _Torch(device)
    if name == "jax":
        return _Jax(dtypes, options)
    raise ValueError(f"the framework is numpy, torch or jax, not {name!r}")


_pipe: tuple[BinaryIO, BinaryIO] | None = None


def take_pipe() -> tuple[BinaryIO, BinaryIO]:
    """Keeps the pipe for frames alone: other output goes to standard error, and other readers find the end of the file.

    The descriptors themselves are moved, so that a library in C cannot reach the pipe either. `serve` does this; call
    it first in an adapter whose imports print.
    """
    global _pipe
    if _pipe is None:
        _pipe = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        sys.stdout.flush()  # what was printed before and still waits goes to standard error as well
        sys.stdout = sys.stderr
    return _pipe
