"""The numpy programs and the hostile ones: the right are right, each mistake shows, each breach is the one it says."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import subjects
from client import FOLDER, Client, Reply, batch_norm, in_process, pack, request, running, unpack

import normative
from normative import ProtocolError, Subject, _Entry

RNG = np.random.default_rng(7)
AFFINE = {"weight": pack(RNG.uniform(0.5, 2, 4)), "bias": pack(RNG.normal(size=4))}
TRACKED: dict[str, Any] = {
    "running_mean": pack(RNG.normal(size=4)),
    "running_var": pack(RNG.uniform(0.5, 2, 4)),
    "num_batches_tracked": 5,
}
#: A mean of hundreds of deviations, for one-pass variances and half-precision statistics; one value that is clipped.
INPUT = 300 + 0.03 * RNG.normal(size=(3, 4, 5))
INPUT[1, 2, 3] = 301


def subject(name: str) -> Subject:
    program = subjects.Program(name)
    entries = {o: _Entry(program, tuple(subjects.DTYPES), ("pytorch",)) for o in subjects.OPERATIONS}
    return Subject({"options": ["channels_last", "strided"]}, entries)


def questions() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Name, operation, tensors, the rest: enough to tell every mistake from the truth."""
    x = {"input": pack(INPUT)}
    batch = {"mode": "train", **batch_norm(eps=0.01)}
    yield "train", "batch_norm", {**x, **AFFINE, **TRACKED}, batch
    yield "untracked", "batch_norm", x, batch
    yield "cumulative", "batch_norm", {**x, **TRACKED}, {**batch, "momentum": None}
    yield "eval", "batch_norm", {**x, **AFFINE, **TRACKED}, {**batch, "mode": "eval"}
    yield "one value", "batch_norm", {"input": pack(INPUT[:1, :, :1]), **TRACKED}, batch
    yield "nan", "batch_norm", {"input": pack(np.where(INPUT == INPUT[0, 0, 0], np.nan, INPUT))}, batch
    yield (
        "rows",
        "layer_norm",
        {"input": pack(np.swapaxes(INPUT, 1, 2)), **AFFINE},
        {"normalized_shape": [4], "eps": 0.01},
    )
    yield "matrix", "layer_norm", {"input": pack(INPUT)}, {"normalized_shape": [4, 5], "eps": 0.01}
    yield "groups", "group_norm", {**x, **AFFINE}, {"num_groups": 2, "eps": 0.01}
    yield "whole", "group_norm", x, {"num_groups": 1, "eps": 0.01}
    yield "one value", "group_norm", {"input": pack(INPUT[:1, :, 0])}, {"num_groups": 4, "eps": 0.01}
    small = pack(np.swapaxes(INPUT - 300, 1, 2))
    yield "rms", "rms_norm", {"input": small, "weight": AFFINE["weight"]}, {"normalized_shape": [4], "eps": 0.01}
    spike = {"input": pack([[1.0] + 99 * [0.01]])}
    yield "spike", "rms_norm", spike, {"normalized_shape": [100], "eps": 1e-5}


def different(a: Reply, b: Reply) -> bool:
    """More than rounding: these questions magnify it to about 1e-3."""
    if a.type != b.type or set(a.raw) != set(b.raw):
        return True
    return any(not np.allclose(a[name], b[name], rtol=3e-5, atol=3e-5, equal_nan=True) for name in a.raw)


def asked(name: str) -> dict[tuple[str, str], Reply]:
    program = subject(name)
    return {(o, n): in_process(program, o, tensors, **rest) for n, o, tensors, rest in questions()}


TRUTH = asked("f64")

#: Where each mistake must show; it must show nowhere else.
SHOWS = {
    "biased_running_var": {("batch_norm", "train"), ("batch_norm", "cumulative")},
    "running_std": {("batch_norm", "train"), ("batch_norm", "cumulative")},
    "eps_in_running_var": {("batch_norm", "train"), ("batch_norm", "cumulative")},
    "momentum_flipped": {("batch_norm", "train"), ("batch_norm", "cumulative")},
    "counter_frozen": {("batch_norm", "train"), ("batch_norm", "cumulative"), ("batch_norm", "one value")},
    "cumulative_off_by_one": {("batch_norm", "cumulative")},
    "update_in_eval": {("batch_norm", "eval")},
    "batch_statistics_in_eval": {("batch_norm", "eval")},
    "strided_groups": {("group_norm", "groups")},
    "affine_per_group": {("group_norm", "groups")},
    "nan_replaced": {("batch_norm", "nan")},
    "batch_of_one_accepted": {("batch_norm", "one value"), ("group_norm", "one value")},
}


@pytest.mark.parametrize("name", subjects.CORRECT)
def test_correct_programs_agree(name: str) -> None:
    for key, reply in asked(name).items():
        assert reply.type == TRUTH[key].type, key
        for tensor in reply.raw:
            # Rounding, magnified by a mean of ten thousand deviations.
            assert np.allclose(reply[tensor], TRUTH[key][tensor], rtol=2e-3, atol=2e-3, equal_nan=True), (key, tensor)


@pytest.mark.parametrize("base", ["two_pass", "f64"])
@pytest.mark.parametrize("mistake", subjects.MISTAKES)
def test_each_mistake_shows_where_it_is(mistake: str, base: str) -> None:
    truth, wrong = asked(base), asked(f"{base}+{mistake}")
    shown = {key for key in truth if different(truth[key], wrong[key])}
    if mistake in SHOWS:
        assert shown == SHOWS[mistake]
    elif (mistake, base) == ("one_pass", "f64"):
        assert not shown  # in float64 the variance survives this input
    else:
        centred = mistake in ("unbiased_output", "one_pass")
        assert {operation for operation, _ in shown} >= {"batch_norm", "layer_norm", "group_norm"}
        assert ("rms_norm" in {operation for operation, _ in shown}) == (not centred)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_types_are_rounded_once(dtype: str) -> None:
    x = pack(RNG.normal(size=(50, 64)), dtype)
    rest = {"normalized_shape": [64], "eps": 1e-5}
    found = in_process(subject("f64"), "layer_norm", {"input": x}, **rest)
    wide = in_process(subject("f64"), "layer_norm", {"input": pack(unpack(x), "F64")}, **rest)
    assert found.raw["output"] == pack(wide["output"], dtype)


def test_half_input_with_f32_statistics() -> None:
    tensors = {"input": pack(INPUT - 300, "BF16"), **TRACKED}
    found = in_process(subject("two_pass"), "batch_norm", tensors, mode="train", **batch_norm())
    assert {name: raw.dtype for name, raw in found.raw.items()} == {
        "output": "BF16", "running_mean": "F32", "running_var": "F32", "num_batches_tracked": "I64",
    }  # fmt: skip
    tensors["running_var"] = pack(unpack(TRACKED["running_var"]), "BF16")
    found = in_process(subject("two_pass"), "batch_norm", tensors, mode="train", **batch_norm())
    assert found.kind == "dtype" and found["num_batches_tracked"] == 6


@pytest.mark.parametrize("length", [1, 2, 4095, 4096, 4097, 10000])
def test_welford_in_chunks(length: int) -> None:
    values = RNG.normal(size=(3, length)) + 5
    mean, var = subjects.welford(values)
    assert np.allclose(mean[:, 0], values.mean(1), rtol=1e-13) and np.allclose(var[:, 0], values.var(1), rtol=1e-12)


@pytest.mark.parametrize("name", subjects.CORRECT)
def test_a_million_elements_are_quick(name: str) -> None:
    start = time.monotonic()
    reply = in_process(
        subject(name), "layer_norm", {"input": RNG.normal(size=(1, 10**6))}, normalized_shape=[10**6], eps=0
    )
    assert reply.type == "answer" and time.monotonic() - start < 5


def test_served() -> None:
    program = FOLDER / "tests" / "subjects.py"
    with Client(program, "welford") as client:
        hello = client.hello()
        assert hello["name"] == "numpy-welford" and hello["arithmetic"] == {"accumulate": "F32", "depth": "any"}
        reply = client.ask("batch_norm", {"input": INPUT, **running(4)}, mode="train", **batch_norm())
        assert reply.type == "answer" and reply["num_batches_tracked"] == 1
        assert client.close() == (0, "")
    status, errors = Client(program, "no such program").close()
    assert status == 1 and errors.startswith("usage:")
    listed = subprocess.run([sys.executable, program, "--list"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == [*subjects.CORRECT, *subjects.MISTAKES]


# --- hostile ----------------------------------------------------------------------------------------------------------

HOSTILE = FOLDER / "tests" / "hostile.py"


def fifth(client: Client) -> None:
    """Four requests that are answered well, and a fifth that is sent."""
    client.hello()
    for _ in range(4):
        assert client.ask("rms_norm", {"input": [3.0, 4.0]}, normalized_shape=[2], eps=0).type == "answer"
    client.send(request("rms_norm", {"input": [3.0, 4.0]}, id=5, normalized_shape=[2], eps=0))


def test_hostile_exits() -> None:
    with Client(HOSTILE, "exits") as client:
        fifth(client)
        status, errors = client.close()
        assert status == 7 and "I leave" in errors
    with Client(HOSTILE, "dies_at_hello") as client:
        client.send(normative.encode({"type": "hello", "normative": 1}))
        assert client.close()[0] == 7


@pytest.mark.parametrize("mode", ["hangs", "spawns_child", "huge_length"])
def test_hostile_hangs(mode: str) -> None:
    with Client(HOSTILE, mode, "2") as client:
        fifth(client)
        start = time.monotonic()
        if mode == "huge_length":
            assert client.process.stdout.read(8) == (2**63).to_bytes(8, "little")
        assert client.process.wait() == 7
        client.process.stdout.read()  # the end of the file comes when nobody holds the pipe any more
        assert time.monotonic() - start > 1.5


def test_hostile_slow_hello() -> None:
    with Client(HOSTILE, "slow_hello", "1") as client:
        start = time.monotonic()
        client.hello()
        assert time.monotonic() - start > 1
        for _ in range(6):
            assert client.ask("rms_norm", {"input": [3.0, 4.0]}, normalized_shape=[2], eps=0).type == "answer"


def test_hostile_prints() -> None:
    with Client(HOSTILE, "prints") as client:
        fifth(client)
        assert client.process.stdout.read(7) == b"epoch 5"


def test_hostile_garbage() -> None:
    with Client(HOSTILE, "garbage") as client:
        fifth(client)
        with pytest.raises(ProtocolError):
            client.receive()


@pytest.mark.parametrize(
    ("mode", "id", "tensors"),
    [
        ("wrong_id", 6, {"output": ("F32", (2,))}),
        ("wrong_shape", 5, {"output": ("F32", (2, 1))}),
        ("wrong_dtype", 5, {"output": ("F64", (2,))}),
        ("missing_tensor", 5, {}),
        ("extra_tensor", 5, {"output": ("F32", (2,)), "surprise": ("F32", ())}),
    ],
)
def test_hostile_answers(mode: str, id: int, tensors: dict) -> None:
    with Client(HOSTILE, mode) as client:
        fifth(client)
        reply = client.receive()
        assert reply is not None and reply.message == {"type": "answer", "id": id}
        assert {name: (raw.dtype, raw.shape) for name, raw in reply.raw.items()} == tensors
        client.id = 5
        assert client.ask("rms_norm", {"input": [3.0]}, normalized_shape=[1], eps=0)["output"].tolist() == [1.0]


def test_hostile_unsupported_always() -> None:
    with Client(HOSTILE, "unsupported_always") as client:
        assert client.hello()["operations"] == subjects.OPERATIONS
        assert client.ask("rms_norm", {"input": [3.0]}, normalized_shape=[1], eps=0).type == "unsupported"
