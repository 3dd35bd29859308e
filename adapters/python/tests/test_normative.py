"""The protocol module: documents, frames, data types, layouts, and what a served program does with each of them."""

from __future__ import annotations

import json
import math
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from client import FOLDER, Client, Reply, pack, request, shapes, unpack

import normative
from normative import ProtocolError, RawTensor

DTYPES = ["F64", "F32", "F16", "BF16"]

ADAPTER = """
import os, subprocess, sys
import numpy as np
import normative

{before}

@normative.operation("layer_norm", dtypes={dtypes})
def layer_norm(request):
    x = request.tensors["input"]
    {body}

@normative.operation("rms_norm", dtypes={dtypes}, dialects=["pytorch", "llama"])
def rms_norm(request):
    return {{"output": request.tensors["input"]}}

normative.serve(name="a test", version="1", options={options})
"""


@pytest.fixture
def adapter(tmp_path: Path):
    """Starts an adapter whose layer_norm has a given body."""
    clients = []

    def start(body: str = 'return {"output": x}', before: str = "", dtypes=tuple(DTYPES), options=()) -> Client:
        program = tmp_path / "adapter.py"
        program.write_text(
            ADAPTER.format(
                body=body.replace("\n", "\n    "), before=before, dtypes=repr(list(dtypes)), options=repr(list(options))
            )
        )
        clients.append(Client(program))
        return clients[-1]

    yield start
    for client in clients:
        client.__exit__()


# --- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, "I64"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (0,), (2, 0, 3)])
def test_document_round_trip(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(math.prod(shape), dtype=np.float64).reshape(shape) - 1
    message, tensors = normative.decode(normative.encode({"type": "x"}, {"t": pack(values, dtype)}))
    assert message == {"type": "x"}
    assert (tensors["t"].dtype, tensors["t"].shape) == (dtype, shape)
    assert np.array_equal(unpack(tensors["t"]), values)


def test_document_is_safetensors() -> None:
    tensors = {"a": pack([1.0], "F16"), "b": pack([2.0, 3.0], "F64"), "c": pack(4, "I64")}
    document = normative.encode({"type": "answer", "id": 1}, tensors)
    (length,) = struct.unpack("<Q", document[:8])
    header = json.loads(document[8 : 8 + length])
    assert length % 8 == 0 and document[8:9] == b"{"
    assert header["__metadata__"] == {"normative": '{"type": "answer", "id": 1}'}
    # Wide types first, so that every tensor is aligned; no gaps.
    assert [(name, entry["data_offsets"]) for name, entry in header.items() if name != "__metadata__"] == [
        ("b", [0, 16]),
        ("c", [16, 24]),
        ("a", [24, 26]),
    ]
    assert len(document) == 8 + length + 26


def test_floats_that_json_lacks() -> None:
    message, _ = normative.decode(normative.encode({"a": [math.nan, math.inf, -math.inf, 0.1], "b": {"c": math.nan}}))
    assert message == {"a": ["nan", "inf", "-inf", 0.1], "b": {"c": "nan"}}


def _document(header: dict | bytes, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


METADATA = {"__metadata__": {"normative": "{}"}}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\1\2\3",
        struct.pack("<Q", 2**63) + b"{}",
        _document(b"no json"),
        _document(b"[]"),
        _document({}),
        _document({"__metadata__": {"other": "{}"}}),
        _document({"__metadata__": {"normative": "NaN"}}),
        _document({"__metadata__": {"normative": '{"eps": NaN}'}}),
        _document({**METADATA, "t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        _document({**METADATA, "t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(3)),
        _document({**METADATA, "t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(8)),
        _document({**METADATA, "t": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        _document({**METADATA, "t": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, bytes(4)),
        _document({**METADATA, "t": {"dtype": "F32"}}, bytes(4)),
    ],
)
def test_bad_documents(document: bytes) -> None:
    with pytest.raises(ProtocolError):
        normative.decode(document)


def _exact_bf16(value: float) -> float:
    """The nearest bfloat16, ties to even, by rational arithmetic."""
    if value == 0 or not math.isfinite(value):
        return value
    exact = Fraction(abs(value))
    exponent = max(math.floor(math.log2(abs(value))), -126) - 7
    while exact >= Fraction(2) ** (exponent + 8):
        exponent += 1
    quotient = round(exact / Fraction(2) ** exponent)  # ties to even
    result = float(quotient * Fraction(2) ** exponent)
    return math.copysign(math.inf if result >= 2.0**128 else result, value)


def test_bf16_is_rounded_once() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 0x7F80, 300).astype(np.uint32) << np.uint32(16)
    exact = bits.view(np.float32).astype(np.float64)
    step = (bits + np.uint32(1 << 16)).view(np.float32).astype(np.float64) - exact
    values = [exact, exact + step / 2]
    for epsilon in (2.0**-30, -(2.0**-30)):  # beside a tie: lost where float32 comes between
        values.append(exact + step * (0.5 + epsilon))
    values.append(rng.normal(size=300) * 10.0 ** rng.uniform(-41, 38, 300))
    values.append(np.array([0.0, -0.0, np.inf, -np.inf, 1e300, -1e300, 3.3961775e38, 1e-300]))
    flat = np.concatenate(values)
    flat = flat[~np.isnan(flat)]
    with np.errstate(over="ignore"):
        narrow = flat.astype(np.float32)
    for wide in (flat, narrow):
        with np.errstate(over="ignore"):
            expected = np.array([_exact_bf16(float(value)) for value in wide])
        found = normative.round_bf16(wide).astype(np.float64)
        assert np.array_equal(found, expected) and np.array_equal(np.signbit(found), np.signbit(expected))
    assert np.isnan(normative.round_bf16(np.array([np.nan, -np.nan])).astype(np.float64)).all()
    assert float(normative.round_bf16(np.float64(1 + 2.0**-8 + 2.0**-40))) == 1 + 2.0**-7  # rank 0


# --- a served program -------------------------------------------------------------------------------------------------


def test_hello_and_a_quiet_end(adapter) -> None:
    client = adapter(dtypes=["F32", "F64"], options=["strided"])
    assert client.hello() == {
        "type": "hello",
        "normative": 1,
        "name": "a test",
        "version": "1",
        "device": "cpu",
        "operations": ["layer_norm", "rms_norm"],
        "dtypes": ["F32", "F64"],
        "options": ["strided"],
        "dialects": {"rms_norm": ["pytorch", "llama"]},
        "details": {},
    }
    assert client.close() == (0, "")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 4), (4, 0)])
def test_every_data_type_and_shape(adapter, dtype: str, shape: tuple[int, ...]) -> None:
    client = adapter()
    values = pack(np.random.default_rng(1).normal(size=shape), dtype)
    reply = client.ask("layer_norm", {"input": values, "num_batches_tracked": 3}, normalized_shape=[3])
    assert reply.message == {"type": "answer", "id": 1}
    assert reply.raw["output"] == values
    assert client.close() == (0, "")


def test_bf16_is_rounded_on_the_way_out(adapter) -> None:
    client = adapter('return {"output": normative.round_bf16(np.float32(x) * np.float32(1.004))}', dtypes=["BF16"])
    reply = client.ask("layer_norm", {"input": pack([1.0, 3.0, -257.0], "BF16")})
    expected = [_exact_bf16(float(np.float32(value) * np.float32(1.004))) for value in (1.0, 3.0, -256.0)]
    assert reply["output"].tolist() == expected


def test_hyper_parameters(adapter) -> None:
    client = adapter(
        'raise normative.Refusal("other", repr(request.parameters) + request.mode + str(request.gradients))'
    )
    reply = client.ask(
        "layer_norm",
        {"input": [1.0]},
        mode="train",
        eps="nan",
        momentum=None,
        p="inf",
        q="-inf",
        r=1e-5,
        text="x",
        s=[2, 3],
    )
    parameters = {"eps": math.nan, "momentum": None, "p": math.inf, "q": -math.inf, "r": 1e-5, "text": "x", "s": [2, 3]}
    assert reply.message["message"] == repr(parameters) + "train" + "False"


def test_refusal_carries_state(adapter) -> None:
    client = adapter('raise normative.Refusal("too_few_values", "one value", {"n": np.int64(4), "none": None})')
    reply = client.ask("layer_norm", {"input": [1.0]})
    assert reply.message == {"type": "refusal", "id": 1, "kind": "too_few_values", "message": "one value"}
    assert reply["n"] == 4 and shapes(reply.raw) == {"n": []}


def test_an_exception_is_a_refusal_that_says_why(adapter) -> None:
    client = adapter("return 1 / 0")
    reply = client.ask("layer_norm", {"input": [1.0]})
    assert (reply.type, reply.kind) == ("refusal", "other")
    assert reply.message["message"] == "ZeroDivisionError: division by zero"
    status, errors = client.close()
    assert status == 0 and "Traceback" in errors


@pytest.mark.parametrize(
    ("operation", "dtype", "rest"),
    [
        ("batch_norm", "F32", {}),
        ("layer_norm", "F16", {}),
        ("layer_norm", "F32", {"dialect": "llama"}),
        ("rms_norm", "F32", {"dialect": "gemma"}),
        ("layer_norm", "F32", {"gradients": True}),
        ("layer_norm", "F32", {"layout": {"format": "channels_last"}}),
        ("layer_norm", "F32", {"layout": {"format": "contiguous", "offset": 1}}),
        ("layer_norm", "F32", {"layout": {"format": "tiled"}}),
    ],
)
def test_what_is_not_claimed_is_unsupported(adapter, operation: str, dtype: str, rest: dict) -> None:
    client = adapter(dtypes=["F32", "F64"])
    reply = client.ask(operation, {"input": pack([1.0], dtype)}, **rest)
    assert reply.type == "unsupported" and reply.message["message"]
    assert client.ask("rms_norm", {"input": [1.0]}, dialect="llama").type == "answer"


def test_the_handler_may_say_unsupported(adapter) -> None:
    reply = adapter('raise normative.Unsupported("not on Mondays")').ask("layer_norm", {"input": [1.0]})
    assert reply.message == {"type": "unsupported", "id": 1, "message": "not on Mondays"}


def test_stray_output_does_not_reach_the_pipe(adapter) -> None:
    client = adapter(
        'print("from the layer"); os.write(1, b"from a library\\n"); subprocess.run(["echo", "from a child"])\n'
        'sys.stdout.write("again"); return {"output": x}',
        before='normative.take_pipe(); print("from an import")',
    )
    assert client.hello()["name"] == "a test"
    for value in (1.0, 2.0):
        assert client.ask("layer_norm", {"input": [value]})["output"].tolist() == [value]
    status, errors = client.close()
    assert status == 0
    for text in ("from the layer", "from a library", "from a child", "again", "from an import"):
        assert text in errors


def test_a_layer_that_reads_standard_input_does_not_eat_frames(adapter) -> None:
    client = adapter('assert sys.stdin.read() == ""; return {"output": x}')
    for value in (1.0, 2.0):
        assert client.ask("layer_norm", {"input": [value]})["output"].tolist() == [value]


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"\5\0\0", "3 of the 8 bytes"),
        (struct.pack("<Q", 100) + b"{}", "2 of the 100 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "9223372036854775808 bytes"),
        (struct.pack("<Q", 3) + b"abc", "shorter than its header"),
    ],
)
def test_broken_frames(adapter, sent: bytes, text: str) -> None:
    client = adapter()
    client.hello()
    client.process.stdin.write(sent)
    status, errors = client.close()
    assert status == 1 and text in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    "message", [{"type": "goodbye"}, {}, {"type": "hello", "normative": 2}, {"type": "request", "id": 1}]
)
def test_unknown_messages_are_errors(adapter, message: dict) -> None:
    client = adapter()
    client.send(normative.encode(message))
    status, errors = client.close()
    assert status == 1 and errors.startswith("normative: ")


TWICE = {
    name: [[1.0, 2.0]] for name in ("input", "weight", "grad_output.output", "grad_grad.input", "grad_grad.weight")
}


def test_double_backward_reaches_the_handler(adapter) -> None:
    body = """assert request.gradients and request.double_backward and request.differentiable == ("input", "weight")
return {"output": x, "grad_input": x, "grad_weight": x, "grad2_input": x, "grad2_weight": x, "grad2_output": x[0]}"""
    client = adapter(body, options=["gradients", "double_backward"])
    assert client.hello()["options"] == ["gradients", "double_backward"]
    reply = client.ask("layer_norm", TWICE, gradients=True, double_backward=True)
    assert set(reply.raw) == {"output", "grad_input", "grad_weight", "grad2_input", "grad2_weight", "grad2_output"}
    assert "'grad2_output' has shape [2], not [1, 2]" in client.close()[1]


def test_double_backward_that_is_not_claimed_is_unsupported(adapter) -> None:
    client = adapter(options=["gradients"])
    client.hello()
    assert client.ask("layer_norm", TWICE, gradients=True, double_backward=True).type == "unsupported"


@pytest.mark.parametrize("missing", ["grad_grad.weight", "gradients"])
def test_half_a_request_for_double_backward_ends_the_program(adapter, missing: str) -> None:
    client = adapter(options=["gradients", "double_backward"])
    client.hello()
    sent = {name: value for name, value in TWICE.items() if name != missing}
    client.send(request("layer_norm", sent, gradients=missing != "gradients", double_backward=True))
    assert client.receive() is None
    status, errors = client.close()
    assert status == 1 and missing in errors


def test_a_fingerprint_depends_on_what_is_asked_alone(adapter) -> None:
    body = """return {"output": x * 0 + int(request.fingerprint[:8], 16) % 2**20}"""
    client = adapter(body)
    client.hello()

    def fingerprint(value: float, eps: float) -> float:
        return client.ask("layer_norm", {"input": pack([value], "F64")}, eps=eps)["output"][0]

    first = fingerprint(1.0, 0.5)
    assert fingerprint(1.0, 0.5) == first  # its id is another
    assert len({first, fingerprint(2.0, 0.5), fingerprint(1.0, 0.25)}) == 3


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('return {"output": x.astype(np.float64)}', "'output' is F64, not F32"),
        ('return {"output": x[:1]}', "'output' has shape [1], not [2]"),
        ('return {"y": x}', "the answer lacks 'output'"),
    ],
)
def test_wrong_answers_are_sent_and_explained(adapter, body: str, text: str) -> None:
    client = adapter(body)
    assert client.ask("layer_norm", {"input": [1.0, 2.0]}).type == "answer"
    status, errors = client.close()
    assert status == 0 and text in errors


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return x", "is a ndarray, not a dict of tensors"),
        ('return {"output": x.astype(np.complex64)}', "no data type complex64"),
        ('return {"output": [[1.0], [1.0, 2.0]]}', "'output' that cannot be sent"),
        ("return {1: x}", "the name 1"),
        ('raise normative.Refusal("other", "no", {"n": "text"})', "refusal's state has a tensor 'n'"),
    ],
)
def test_answers_that_no_document_holds_end_the_program(adapter, body: str, text: str) -> None:
    client = adapter(body)
    client.send(request("layer_norm", {"input": [1.0]}))
    status, errors = client.close()
    assert status == 1 and text in errors and "layer_norm, request 0" in errors


def test_operations_of_different_types_need_two_programs(tmp_path: Path) -> None:
    program = tmp_path / "adapter.py"
    program.write_text(
        "import normative\n"
        'normative.operation("a", dtypes=["F32"])(print)\nnormative.operation("b", dtypes=["F64"])(print)\n'
        'normative.serve(name="x", version="1")\n'
    )
    status, errors = Client(program).close()
    assert status == 1 and "a second one" in errors


# --- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "format", "expected"),
    [
        ((2, 3, 4), "contiguous", (12, 4, 1)),
        ((2, 3, 4), "channels_last", (12, 1, 3)),
        ((2, 3, 4, 5), "channels_last", (60, 1, 15, 3)),
        ((2, 3, 4, 5), "strided", (76, 25, 6, 1)),
        ((3, 4), "strided", (5, 1)),
        ((3,), "strided", (1,)),
        ((), "strided", ()),
        ((0, 3), "contiguous", (3, 1)),
    ],
)
def test_strides(shape: tuple[int, ...], format: str, expected: tuple[int, ...]) -> None:
    assert normative.strides(shape, format) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 0, 4), (1, 1, 1)])
def test_layouts_keep_the_values(adapter, dtype: str, format: str, shape: tuple[int, ...]) -> None:
    client = adapter(
        "steps = tuple(s // x.itemsize for s in x.strides)\n"
        "assert x.size == 0 or steps == normative.strides(x.shape, request.layout.format), steps\n"
        "assert x.base is not None or request.layout.offset == 0\n"
        'return {"output": x}',
        options=["channels_last", "strided"],
    )
    values = pack(np.arange(math.prod(shape)).reshape(shape), dtype)
    for offset in (0, 3):
        reply = client.ask("layer_norm", {"input": values}, layout={"format": format, "offset": offset})
        assert reply.type == "answer", reply
        assert reply.raw["output"] == values


def test_an_outputs_gradient_of_another_rank_has_no_layout(adapter) -> None:
    body = """seed = request.tensors["grad_output.output"], request.tensors["grad_output.folded_bias"]
assert [array.flags.c_contiguous for array in (x, *seed)] == [False, False, True]
return {"output": x}"""
    client = adapter(body, options=["gradients", "channels_last"])
    client.hello()
    sent = {"input": np.ones((2, 3, 4)), "grad_output.output": np.ones((2, 3, 4)), "grad_output.folded_bias": [1.0]}
    reply = client.ask("layer_norm", sent, gradients=True, layout={"format": "channels_last"})
    assert reply.type == "answer", reply


def test_channels_last_needs_a_spatial_dimension(adapter) -> None:
    client = adapter(options=["channels_last"])
    assert (
        client.ask("layer_norm", {"input": np.zeros((2, 3))}, layout={"format": "channels_last"}).type == "unsupported"
    )


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_example_is_a_layer_norm() -> None:
    with Client(FOLDER / "examples" / "numpy_layer_norm.py") as client:
        assert client.hello()["operations"] == ["layer_norm"]
        x, weight, bias = (pack(values) for values in (np.arange(6.0).reshape(2, 3), [1.0, 2.0, 3.0], [0.5, 0.0, -1.0]))
        rest = {"normalized_shape": [3], "eps": 1e-5}
        found: Reply = client.ask("layer_norm", {"input": x, "weight": weight, "bias": bias}, **rest)
        row = np.array([-1.0, 0.0, 1.0]) / math.sqrt(2 / 3 + 1e-5) * [1, 2, 3] + [0.5, 0, -1]
        assert found.raw["output"].dtype == "F32" and np.allclose(found["output"], [row, row], rtol=1e-6)
        assert client.ask("layer_norm", {"input": x, "weight": bias}, normalized_shape=[2], eps=0.1).kind == "shape"
        assert client.ask("layer_norm", {"input": x, "weight": pack(np.ones(3), "F64")}, **rest).kind == "dtype"
        half = client.ask("layer_norm", {"input": pack(unpack(x), "F16"), "weight": weight}, **rest)
        assert half.raw["output"].dtype == "F16"
        assert client.close() == (0, "")


def test_examples_are_short() -> None:
    for example in (FOLDER / "examples").glob("*.py"):
        assert len(example.read_text().splitlines()) < 72


def test_raw_tensor_of_a_foreign_byte_order() -> None:
    stored = normative._Numpy().store(np.array([1.0, 2.0], ">f4"), None)
    assert stored == RawTensor("F32", (2,), struct.pack("<2f", 1, 2))
