"""PyTorch behind the pipe: the facts about its modules that the suite relies on, asked of the served adapter."""

from __future__ import annotations

import importlib
import importlib.util
import math
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from client import FOLDER, Client, Reply, batch_norm, pack, running, unpack

import normative
from normative import RawTensor, strides

torch = pytest.importorskip("torch")
nn = torch.nn

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
RNG = np.random.default_rng(3)

#: The batches of the momentum table: [1, 2, 4], then [10, 20], one channel.
FIRST, SECOND = np.array([[1.0], [2.0], [4.0]]), np.array([[10.0], [20.0]])


OPERATIONS = [
    "batch_norm", "sync_batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm", "local_response_norm",
    "cross_map_lrn", "normalize", "renorm", "weight_norm", "spectral_norm", "frozen_batch_norm", "conv_batch_norm_fold",
]  # fmt: skip


@pytest.fixture(scope="module")
def pytorch() -> Iterator[Client]:
    with Client(FOLDER / "pytorch.py") as client:
        client.hello()
        yield client


def state_of(reply: Reply) -> dict[str, Any]:
    """A step's state, for the next step."""
    return {name: raw for name, raw in reply.raw.items() if name.startswith(("running", "num_batches"))}


# --- the program ------------------------------------------------------------------------------------------------------


def test_hello() -> None:
    hellos = []
    for _ in range(2):
        with Client(FOLDER / "pytorch.py", "--threads", "2") as client:
            hellos.append(client.hello())
            assert client.close()[0] == 0
    hello = hellos[0]
    assert hellos[1] == hello  # recording again gives the same bytes
    assert (hello["name"], hello["version"], hello["device"]) == ("pytorch", torch.__version__.split("+")[0], "cpu")
    assert set(hello["operations"]) | {"frozen_batch_norm"} == {*OPERATIONS, "frozen_batch_norm"}
    assert hello["dtypes"] == ["F64", "F32", "F16", "BF16"]
    assert hello["options"] == ["gradients", "double_backward", "channels_last", "strided"]
    assert hello["arithmetic"] == {"accumulate": "F32", "depth": "any"}
    assert hello["details"]["threads"] == "2" and hello["details"]["torch"] == torch.__version__
    assert all(isinstance(value, str) and "/" not in value for value in hello["details"].values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_cuda_is_one_clear_line() -> None:
    status, errors = Client(FOLDER / "pytorch.py", "--device", "cuda").close()
    assert status == 3 and len(errors.splitlines()) == 1 and "CUDA" in errors


# --- answers are the module's own, to the bit -------------------------------------------------------------------------


def tensor(raw: RawTensor) -> Any:
    return torch.tensor(unpack(raw), dtype=DTYPES[raw.dtype])


MODULES = [
    ("batch_norm", lambda: nn.BatchNorm2d(4), (3, 4, 5, 6), (4,), batch_norm(2)),
    ("batch_norm", lambda: nn.BatchNorm3d(4), (3, 4, 2, 3, 2), (4,), batch_norm(3)),
    ("batch_norm", lambda: nn.BatchNorm1d(4), (3, 4, 5), (4,), batch_norm(1)),
    ("batch_norm", lambda: nn.BatchNorm1d(4), (7, 4), (4,), batch_norm(None)),
    ("layer_norm", lambda: nn.LayerNorm([5, 6]), (3, 5, 6), (5, 6), {"normalized_shape": [5, 6], "eps": 1e-5}),
    ("group_norm", lambda: nn.GroupNorm(2, 4), (3, 4, 5, 6), (4,), {"num_groups": 2, "eps": 1e-5}),
    ("rms_norm", lambda: nn.RMSNorm([6]), (3, 5, 6), (6,), {"normalized_shape": [6], "eps": None}),
]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("operation", "build", "shape", "affine", "parameters"), MODULES)
def test_bits_are_the_modules(pytorch: Client, operation, build, shape, affine, parameters, dtype, mode) -> None:
    x, weight, bias, seed = (pack(RNG.normal(size=size), dtype) for size in (shape, affine, affine, shape))
    sent = {"input": x, "weight": weight, "grad_output.output": seed}
    module = build().to(DTYPES[dtype])
    module.weight = nn.Parameter(tensor(weight))
    if operation != "rms_norm":
        sent["bias"] = bias
        module.bias = nn.Parameter(tensor(bias))
    if operation == "batch_norm":
        sent.update(running(4, dtype=dtype))
    reply = pytorch.ask(operation, sent, mode=mode, gradients=True, **parameters)

    torch.set_num_threads(1)
    input = tensor(x).requires_grad_()
    output = module.train(mode == "train")(input)
    output.backward(tensor(seed))
    expected = {"output": output, "grad_input": input.grad, "grad_weight": module.weight.grad}
    if operation != "rms_norm":
        expected["grad_bias"] = module.bias.grad
    expected.update(module.named_buffers())
    assert set(reply.raw) == set(expected)
    for name, value in expected.items():
        assert reply.raw[name].dtype == ("I64" if name == "num_batches_tracked" else dtype)
        assert np.array_equal(reply[name], value.detach().double().numpy()), name


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize(("operation", "build", "shape", "affine", "parameters"), MODULES)
def test_half_input_with_f32_parameters(pytorch: Client, operation, build, shape, affine, parameters, dtype) -> None:
    sent = {"input": pack(RNG.normal(size=shape), dtype), "weight": pack(np.ones(affine))}
    sent["grad_output.output"] = sent["input"]
    sent.update(running(4) if operation == "batch_norm" else {})
    reply = pytorch.ask(operation, sent, mode="train", gradients=True, **parameters)
    for name, raw in reply.raw.items():
        wanted = {"output": dtype, "grad_input": dtype, "num_batches_tracked": "I64"}.get(name, "F32")
        assert raw.dtype == wanted, name


def test_layouts_are_pytorchs() -> None:
    for shape, format in [((2, 3, 4, 5), torch.channels_last), ((2, 3, 4, 5, 6), torch.channels_last_3d)]:
        x = torch.empty(shape).to(memory_format=format)
        assert x.stride() == strides(shape, "channels_last")
        assert torch.empty_strided(shape, strides(shape, "channels_last")).is_contiguous(memory_format=format)


@pytest.mark.parametrize("layout", ["channels_last", "strided"])
def test_layouts_reach_the_kernel(pytorch: Client, layout: str) -> None:
    """The kernels for other layouts sum in another order, so bits differ; the values must not."""
    x = pack(RNG.normal(size=(8, 4, 33, 31)) + 10)
    sent = {"input": x, "grad_output.output": x, **running(4)}
    rest = {"mode": "train", "gradients": True, **batch_norm(2)}
    plain = pytorch.ask("batch_norm", sent, **rest)
    other = pytorch.ask("batch_norm", sent, layout={"format": layout, "offset": 3}, **rest)
    changed = [name for name in plain.raw if plain.raw[name] != other.raw[name]]
    assert changed
    for name in plain.raw:
        assert np.allclose(plain[name], other[name], rtol=1e-3, atol=1e-3), name


# --- momentum ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("momentum", "first", "second"),
    [
        (0.1, (0.233333, 1.133333), (1.71, 6.02)),
        (0.0, (0, 1), (0, 1)),
        (1.0, (2.333333, 2.333333), (15, 50)),
        (1, (2.333333, 2.333333), (15, 50)),
        (None, (2.333333, 2.333333), (8.666667, 26.16667)),
        (-0.5, (-1.166667, 0.333333), (-9.25, -24.5)),
        (2.0, (4.666667, 3.666667), (25.33333, 96.33334)),
        ("nan", (math.nan, math.nan), (math.nan, math.nan)),
        ("inf", (math.nan, math.nan), (math.nan, math.nan)),
    ],
)
def test_momentum(pytorch: Client, momentum: Any, first: tuple, second: tuple) -> None:
    rest = {"mode": "train", **batch_norm(momentum=momentum)}
    reply = pytorch.ask("batch_norm", {"input": FIRST, **running()}, **rest)
    found = (float(reply["running_mean"][0]), float(reply["running_var"][0]))
    assert np.allclose(found, first, rtol=1e-5, equal_nan=True) and reply["num_batches_tracked"] == 1
    reply = pytorch.ask("batch_norm", {"input": SECOND, **state_of(reply)}, **rest)
    found = (float(reply["running_mean"][0]), float(reply["running_var"][0]))
    assert np.allclose(found, second, rtol=1e-5, equal_nan=True) and reply["num_batches_tracked"] == 2


CUMULATIVE = {"mode": "train", **batch_norm(momentum=None)}


def test_cumulative_average_weighs_all_batches_seen(pytorch: Client) -> None:
    reply = pytorch.ask("batch_norm", {"input": SECOND, **running(counter=3)}, **CUMULATIVE)
    assert np.isclose(reply["running_mean"][0], 15 / 4)


def test_without_a_counter_the_cumulative_average_does_not_move(pytorch: Client) -> None:
    reply = pytorch.ask("batch_norm", {"input": FIRST, **running(counter=None)}, **CUMULATIVE)
    assert reply["running_mean"][0] == 0 and reply["running_var"][0] == 1 and "num_batches_tracked" not in reply.raw


def test_a_counter_of_minus_one_divides_by_zero(pytorch: Client) -> None:
    reply = pytorch.ask("batch_norm", {"input": FIRST, **running(counter=-1)}, **CUMULATIVE)
    assert reply.type == "refusal" and "division by zero" in reply.message["message"]
    assert reply["num_batches_tracked"] == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1)])
def test_a_refused_batch_is_counted(pytorch: Client, shape: tuple[int, ...]) -> None:
    reply = pytorch.ask("batch_norm", {"input": np.ones(shape), **running()}, mode="train", **batch_norm(1))
    assert (reply.type, reply.kind) == ("refusal", "too_few_values")
    assert (reply["num_batches_tracked"], reply["running_mean"][0], reply["running_var"][0]) == (1, 0, 1)


def test_an_empty_batch_is_counted_and_shifts_the_cumulative_average(pytorch: Client) -> None:
    reply = pytorch.ask("batch_norm", {"input": FIRST, **running()}, **CUMULATIVE)
    reply = pytorch.ask("batch_norm", {"input": np.ones((0, 1)), **state_of(reply)}, **CUMULATIVE)
    assert reply.type == "answer" and reply["output"].shape == (0, 1) and reply["num_batches_tracked"] == 2
    reply = pytorch.ask("batch_norm", {"input": SECOND, **state_of(reply)}, **CUMULATIVE)
    assert np.isclose(reply["running_mean"][0], 6.5556, atol=1e-4)


def test_eval_changes_nothing(pytorch: Client) -> None:
    sent = {"input": FIRST, **running(counter=4)}
    reply = pytorch.ask("batch_norm", sent, **batch_norm())
    assert all(reply.raw[name] == sent[name] for name in ("running_mean", "running_var"))
    assert reply["num_batches_tracked"] == 4
    assert np.allclose(reply["output"], FIRST / math.sqrt(1 + 1e-5))


def test_eval_without_statistics_uses_the_batch(pytorch: Client) -> None:
    train = pytorch.ask("batch_norm", {"input": FIRST}, mode="train", **batch_norm())
    assert pytorch.ask("batch_norm", {"input": FIRST}, **batch_norm()).raw == train.raw
    assert pytorch.ask("batch_norm", {"input": np.ones((1, 3))}, **batch_norm()).kind == "too_few_values"
    assert pytorch.ask("batch_norm", {"input": np.ones((1, 1)), **running()}, **batch_norm()).type == "answer"


def test_a_counter_without_statistics_does_not_move(pytorch: Client) -> None:
    reply = pytorch.ask("batch_norm", {"input": FIRST, "num_batches_tracked": 3}, mode="train", **batch_norm())
    assert reply.type == "answer" and reply["num_batches_tracked"] == 3


@pytest.mark.parametrize(
    ("mode", "missing"), [(m, n) for m in ("train", "eval") for n in ("running_mean", "running_var")]
)
def test_one_statistic_without_the_other(pytorch: Client, mode: str, missing: str) -> None:
    sent = {"input": FIRST, **running()}
    del sent[missing]
    reply = pytorch.ask("batch_norm", sent, mode=mode, **batch_norm())
    assert reply.type == "refusal" and "running" in reply.message["message"]
    assert missing not in reply.raw and reply["num_batches_tracked"] == (mode == "train")


def test_nan_stays_in_the_running_statistics(pytorch: Client) -> None:
    for momentum in (0.0, 0.1):
        sent = {"input": np.where(FIRST == 2, np.nan, FIRST), **running()}
        assert np.isnan(pytorch.ask("batch_norm", sent, mode="train", **batch_norm(momentum=momentum))["running_mean"])
    sent = {"input": FIRST, **running(), "running_mean": [math.nan]}
    assert np.isnan(pytorch.ask("batch_norm", sent, mode="train", **batch_norm(momentum=1.0))["running_mean"])


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(operation: str, kind: str, tensors: dict[str, Any], **rest: Any) -> Any:
    return pytest.param(operation, kind, tensors, rest, id=f"{operation}-{kind}-{len(str(tensors)) + len(str(rest))}")


def zeros(*shape: int, dtype: str = "F32") -> RawTensor:
    return pack(np.zeros(shape), dtype)


TRAIN = {"mode": "train"}
LAYER, GROUP = {"normalized_shape": [4], "eps": 1e-5}, {"num_groups": 2, "eps": 1e-5}
RMS = {"normalized_shape": [4], "eps": None}


@pytest.mark.parametrize(
    ("operation", "kind", "tensors", "rest"),
    [
        refused("batch_norm", "too_few_values", {"input": zeros(1, 3)}, **TRAIN, **batch_norm(1)),
        refused("batch_norm", "too_few_values", {"input": zeros(1, 3, 1)}, **TRAIN, **batch_norm(1)),
        refused("batch_norm", "too_few_values", {"input": zeros(1, 3, 1, 1)}, **TRAIN, **batch_norm(2)),
        refused("batch_norm", "too_few_values", {"input": zeros(1, 3, 1, 1, 1)}, **TRAIN, **batch_norm(3)),
        refused("batch_norm", "shape", {"input": zeros(3)}, **batch_norm(1)),
        refused("batch_norm", "shape", {"input": zeros(3, 3, 3, 3)}, **batch_norm(1)),
        refused("batch_norm", "shape", {"input": zeros(3, 3, 3)}, **batch_norm(2)),
        refused("batch_norm", "shape", {"input": zeros(3, 3, 3, 3, 3)}, **batch_norm(2)),
        refused("batch_norm", "shape", {"input": zeros(3, 3, 3, 3)}, **batch_norm(3)),
        refused("batch_norm", "shape", {"input": zeros(3)}, **batch_norm(None)),
        refused("batch_norm", "shape", {"input": zeros(2, 4), **running(3)}, **TRAIN, **batch_norm()),
        refused("batch_norm", "shape", {"input": zeros(2, 4), "weight": zeros(3)}, **TRAIN, **batch_norm()),
        refused(
            "batch_norm", "shape", {"input": zeros(2, 2), **running(2), "running_mean": zeros(1, 2)}, **batch_norm()
        ),
        refused("batch_norm", "parameter", {"input": zeros(2, 3)}, **TRAIN, **batch_norm(eps=0.0)),
        refused("batch_norm", "parameter", {"input": zeros(2, 3), **running(3)}, **batch_norm(eps=-1e-5)),
        refused("batch_norm", "empty", {"input": zeros(2, 0), "weight": zeros(0)}, **TRAIN, **batch_norm()),
        refused(
            "batch_norm", "dtype", {"input": zeros(2, 3), "weight": zeros(3, dtype="F64")}, **TRAIN, **batch_norm()
        ),
        refused(
            "batch_norm", "dtype", {"input": zeros(2, 3, dtype="F64"), "weight": zeros(3)}, **TRAIN, **batch_norm()
        ),
        refused(
            "batch_norm",
            "dtype",
            {"input": zeros(2, 3, dtype="F16"), "weight": zeros(3), **running(3, dtype="F16")},
            **TRAIN,
            **batch_norm(),
        ),
        refused("group_norm", "too_few_values", {"input": zeros(1, 4)}, **TRAIN, **{**GROUP, "num_groups": 4}),
        refused("group_norm", "too_few_values", {"input": zeros(1, 4, 1, 1)}, **{**GROUP, "num_groups": 4}),
        refused("group_norm", "parameter", {"input": zeros(2, 4)}, **{**GROUP, "num_groups": 3}),
        refused("group_norm", "parameter", {"input": zeros(2, 4)}, **{**GROUP, "num_groups": 8}),
        refused("group_norm", "parameter", {"input": zeros(2, 3)}, **{**GROUP, "num_groups": 0}),
        refused("group_norm", "parameter", {"input": zeros(2, 3)}, **{**GROUP, "num_groups": -1}),
        refused("group_norm", "empty", {"input": zeros(2, 0)}, **{**GROUP, "num_groups": 1}),
        refused("group_norm", "empty", {"input": zeros(2, 4, 0)}, **GROUP),
        refused("group_norm", "shape", {"input": zeros(4)}, **{**GROUP, "num_groups": 1}),
        refused("group_norm", "shape", {"input": zeros(2, 4), "weight": zeros(3)}, **GROUP),
        refused("group_norm", "dtype", {"input": zeros(2, 4), "weight": zeros(4, dtype="F64")}, **GROUP),
        refused("layer_norm", "shape", {"input": zeros(2, 3)}, **LAYER),
        refused("layer_norm", "shape", {"input": zeros(4)}, **{**LAYER, "normalized_shape": [2, 4]}),
        refused("layer_norm", "shape", {"input": zeros(2, 4), "weight": zeros(1, 4)}, **LAYER),
        refused("layer_norm", "parameter", {"input": zeros(2, 4)}, **{**LAYER, "normalized_shape": []}),
        refused("layer_norm", "parameter", {"input": zeros(2, 4)}, **{**LAYER, "eps": None}),
        refused("layer_norm", "dtype", {"input": zeros(2, 4), "weight": zeros(4, dtype="BF16")}, **LAYER),
        refused("rms_norm", "shape", {"input": zeros(2, 3)}, **RMS),
        refused("rms_norm", "shape", {"input": zeros(4)}, **{**RMS, "normalized_shape": [2, 4]}),
        refused("rms_norm", "shape", {"input": zeros(2, 4), "weight": zeros(1, 4)}, **RMS),
        refused("rms_norm", "parameter", {"input": zeros(2, 4)}, **{**RMS, "normalized_shape": []}),
    ],
)
def test_refusals(pytorch: Client, operation: str, kind: str, tensors: dict, rest: dict) -> None:
    reply = pytorch.ask(operation, tensors, **rest)
    assert (reply.type, reply.kind) == ("refusal", kind), reply
    assert set(reply.raw) == set(tensors) & {"running_mean", "running_var", "num_batches_tracked"}
    assert reply.message["message"] and "/" not in reply.message["message"]
    if "num_batches_tracked" in tensors:
        # The check of the input's rank comes before the count, every other one after it.
        assert reply["num_batches_tracked"] == (rest.get("mode") == "train")


def test_a_wrong_rank_is_refused_before_it_is_counted(pytorch: Client) -> None:
    reply = pytorch.ask("batch_norm", {"input": np.ones((2, 1, 2)), **running()}, mode="train", **batch_norm(2))
    assert reply.kind == "shape" and reply["num_batches_tracked"] == 0


@pytest.mark.parametrize(
    ("operation", "tensors", "rest"),
    [
        ("batch_norm", {"input": zeros(0, 3), **running(3)}, {**TRAIN, **batch_norm()}),
        ("batch_norm", {"input": zeros(2, 3, 0), **running(3)}, {**TRAIN, **batch_norm()}),
        ("batch_norm", {"input": zeros(2, 0)}, {**TRAIN, **batch_norm()}),
        ("batch_norm", {"input": zeros(2, 3), "bias": zeros(3)}, {**TRAIN, **batch_norm()}),
        ("batch_norm", {"input": zeros(2, 3, 1, 1, 1, 2)}, {**TRAIN, **batch_norm(None)}),
        ("batch_norm", {"input": zeros(2, 3), **running(3)}, batch_norm(eps=0.0)),
        ("group_norm", {"input": zeros(0, 4)}, GROUP),
        ("group_norm", {"input": zeros(2, 4)}, {**GROUP, "num_groups": 4}),
        ("layer_norm", {"input": zeros(0, 4), "bias": zeros(4)}, LAYER),
        ("layer_norm", {"input": zeros(2, 0)}, {**LAYER, "normalized_shape": [0]}),
        ("layer_norm", {"input": zeros(4)}, LAYER),
        ("rms_norm", {"input": zeros(0, 4)}, RMS),
        ("rms_norm", {"input": zeros(2, 4), "weight": zeros(4, dtype="F64")}, RMS),
        ("rms_norm", {"input": zeros(2, 4, dtype="F16"), "weight": zeros(4, dtype="BF16")}, RMS),
    ],
)
def test_accepted(pytorch: Client, operation: str, tensors: dict, rest: dict) -> None:
    reply = pytorch.ask(operation, tensors, **rest)
    assert reply.type == "answer", reply
    assert (reply.raw["output"].dtype, reply.raw["output"].shape) == (tensors["input"].dtype, tensors["input"].shape)
    with_gradients = pytorch.ask(operation, {**tensors, "grad_output.output": tensors["input"]}, gradients=True, **rest)
    gradients = {f"grad_{name}": name for name in ("input", "weight", "bias") if name in tensors}
    assert set(with_gradients.raw) == set(reply.raw) | set(gradients)
    for gradient, name in gradients.items():
        assert with_gradients.raw[gradient].dtype == tensors[name].dtype
        assert with_gradients.raw[gradient].shape == tensors[name].shape


def test_a_weight_that_is_no_vector(pytorch: Client) -> None:
    """Forward looks at the number of elements alone, and at the rank in kernels of other layouts; backward refuses."""
    sent = {"input": pack(RNG.normal(size=(2, 2, 3))), "weight": pack([[1.0], [2.0]])}
    assert pytorch.ask("batch_norm", sent, mode="train", **batch_norm()).type == "answer"
    layout = {"format": "strided"}
    assert pytorch.ask("batch_norm", sent, mode="train", layout=layout, **batch_norm()).kind == "shape"
    sent["grad_output.output"] = sent["input"]
    assert pytorch.ask("batch_norm", sent, mode="train", gradients=True, **batch_norm()).type == "refusal"


@pytest.mark.parametrize("statistics", [running(3), running(3, counter=None)])
def test_a_bias_of_another_type_is_refused_after_the_statistics_moved(pytorch: Client, statistics: dict) -> None:
    sent = {
        "input": pack(RNG.normal(size=(4, 3)) + 5),
        "weight": pack(np.ones(3)),
        "bias": zeros(3, dtype="F64"),
        **statistics,
    }
    reply = pytorch.ask("batch_norm", sent, mode="train", **batch_norm())
    assert reply.kind == "dtype" and (reply["running_mean"] > 0.1).all()
    del sent["weight"]
    assert (pytorch.ask("batch_norm", sent, mode="train", **batch_norm())["running_mean"] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_implied_eps_of_rms_norm(pytorch: Client, dtype: str) -> None:
    tiny = 2.0**-12
    output = pytorch.ask("rms_norm", {"input": pack([tiny], dtype)}, normalized_shape=[1], eps=None)["output"][0]
    implied = (tiny / output) ** 2 - tiny**2
    eps = 2.0**-52 if dtype == "F64" else 2.0**-23
    assert abs(implied - eps) < {"F64": 1e-13, "F32": 1e-13, "F16": 1e-9, "BF16": 3e-9}[dtype]


# --- further operations: values, from formulas in float64 -------------------------------------------------------------

needs_torchvision = pytest.mark.skipif(not importlib.util.find_spec("torchvision"), reason="torchvision is absent")


def normal(*shape: int, dtype: str = "F64") -> RawTensor:
    return pack(RNG.normal(size=shape), dtype)


def positive(*shape: int, dtype: str = "F64") -> RawTensor:
    return pack(RNG.uniform(0.5, 2, size=shape), dtype)


def per_channel(vector: np.ndarray, x: np.ndarray, dimension: int = 1) -> np.ndarray:
    return vector.reshape([-1 if axis == dimension else 1 for axis in range(x.ndim)])


def normalized(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def affine(y: np.ndarray, t: dict[str, np.ndarray], dimension: int = 1) -> np.ndarray:
    return y * per_channel(t["weight"], y, dimension) + per_channel(t["bias"], y, dimension)


def sync_batch_norm(t: dict, p: dict) -> dict:
    axes = (0, *range(2, t["input"].ndim))
    return {"output": affine(normalized(t["input"], axes, p["eps"]), t)}


def instance_norm(t: dict, p: dict) -> dict:
    first = t["input"].ndim - p["spatial_dims"]
    axes = tuple(range(first, t["input"].ndim))
    return {"output": affine(normalized(t["input"], axes, p["eps"]), t, first - 1)}


def window(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """The sums of squares over a window of channels."""
    return np.stack([(x[:, max(c - before, 0) : c + after + 1] ** 2).sum(1) for c in range(x.shape[1])], 1)


def local_response_norm(t: dict, p: dict) -> dict:
    x, size = t["input"], p["size"]
    sums = window(x, size // 2, (size - 1) // 2)
    return {"output": x / (p["k"] + p["alpha"] / size * sums) ** p["beta"]}


def cross_map_lrn(t: dict, p: dict) -> dict:
    """The first channel never leaves the window, and the window of an even size is that of the odd one below it."""
    x, half = t["input"], (p["size"] - 1) // 2
    sums = window(x, half, half)
    sums[:, half + 1 :] += x[:, :1] ** 2
    return {"output": x * (p["k"] + p["alpha"] / p["size"] * sums) ** -p["beta"]}


def normalize(t: dict, p: dict) -> dict:
    norm = np.linalg.norm(t["input"], p["p"], p["dim"], keepdims=True)
    return {"output": t["input"] / np.maximum(norm, p["eps"])}


def renorm(t: dict, p: dict) -> dict:
    x = np.moveaxis(t["input"], p["dim"], 0)
    norm = np.linalg.norm(x.reshape(len(x), -1), p["p"], 1).reshape([-1] + [1] * (x.ndim - 1))
    scale = np.where(norm > p["maxnorm"], p["maxnorm"] / (norm + 1e-7), 1)
    return {"output": np.moveaxis(x * scale, 0, p["dim"])}


def weight_norm(t: dict, p: dict) -> dict:
    v, dim = t["input"], p["dim"]
    axes = None if dim in (None, -1) else tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim)
    return {"output": t["weight"] * v / np.sqrt((v**2).sum(axes, keepdims=axes is not None))}


def spectral_norm(t: dict, p: dict, mode: str = "train") -> dict:
    w, u, v = np.moveaxis(t["input"], p["dim"], 0), t["u"], t["v"]
    matrix = w.reshape(len(w), -1)
    for _ in range(p["n_power_iterations"] if mode == "train" else 0):
        u = matrix @ v
        u = u / max(np.linalg.norm(u), p["eps"])
        v = matrix.T @ u
        v = v / max(np.linalg.norm(v), p["eps"])
    return {"output": t["input"] / (u @ matrix @ v), "u": u, "v": v}


def frozen_batch_norm(t: dict, p: dict) -> dict:
    x = t["input"]
    mean, variance = (per_channel(t[name], x) for name in ("running_mean", "running_var"))
    return {"output": affine((x - mean) / np.sqrt(variance + p["eps"]), t)}


def conv_batch_norm_fold(t: dict, p: dict) -> dict:
    scale = t["weight"] / np.sqrt(t["running_var"] + p["eps"])
    folded = t["input"] * per_channel(scale, t["input"], 1 if p["transposed"] else 0)
    return {"folded_weight": folded, "folded_bias": (t.get("conv_bias", 0) - t["running_mean"]) * scale + t["bias"]}


VECTORS = ("weight", "bias", "running_mean", "running_var")
LRN = {"alpha": 0.7, "beta": 0.75, "k": 1.5}


def vectors(channels: int, *names: str) -> dict[str, RawTensor]:
    return {name: positive(channels) for name in names}


def fold(*shape: int, transposed: bool, conv_bias: bool = True) -> Any:
    channels = shape[1 if transposed else 0]
    tensors = {"input": normal(*shape), **vectors(channels, *VECTORS)}
    tensors.update({"conv_bias": normal(channels)} if conv_bias else {})
    return conv_batch_norm_fold, tensors, {"eps": 1e-3, "transposed": transposed}


def spectral(*shape: int, dim: int, iterations: int = 1) -> Any:
    height = shape[dim]
    tensors = {"input": normal(*shape), "u": normal(height), "v": normal(int(np.prod(shape)) // height)}
    return spectral_norm, tensors, {"dim": dim, "n_power_iterations": iterations, "eps": 1e-12}


def instance(dims: int, *shape: int) -> Any:
    channels = shape[len(shape) - dims - 1]
    tensors = {"input": normal(*shape), **vectors(channels, "weight", "bias")}
    return instance_norm, tensors, {"spatial_dims": dims, "eps": 1e-3, "momentum": 0.1}


#: An operation's formula, its tensors and its hyper-parameters.
FORMULAS = [
    (
        sync_batch_norm,
        {"input": normal(5, 2, 2), **vectors(2, "weight", "bias")},
        {"eps": 1e-3, "momentum": 0.1, "splits": [2, 0, 3]},
    ),
    instance(1, 2, 3, 4),
    instance(1, 3, 4),
    instance(2, 2, 3, 2, 3),
    instance(2, 3, 2, 2),
    instance(3, 2, 1, 2, 2, 2),
    instance(3, 2, 2, 2, 2),
    *[(local_response_norm, {"input": normal(2, 5, 3)}, {"size": size, **LRN}) for size in (1, 2, 3, 4, 5, 9)],
    (local_response_norm, {"input": normal(2, 4, 2, 2)}, {"size": 3, **LRN}),
    (local_response_norm, {"input": normal(1, 4, 2, 1, 2, 2)}, {"size": 2, **LRN}),
    *[(cross_map_lrn, {"input": normal(2, 8, 2, 1)}, {"size": size, **LRN}) for size in (1, 2, 3, 4, 5, 9)],
    *[
        (normalize, {"input": normal(3, 4)}, {"p": p, "dim": 1, "eps": 1e-12})
        for p in (2, 1, 3, 0.5, -1, 0, "inf", "-inf")
    ],
    (normalize, {"input": normal(2, 3, 2)}, {"p": 2.0, "dim": -2, "eps": 1e-12}),
    (normalize, {"input": normal(2, 3)}, {"p": 2.0, "dim": 1, "eps": 100.0}),
    *[(renorm, {"input": normal(3, 2, 2)}, {"p": p, "dim": 1, "maxnorm": 1.5}) for p in (2, 1, 3, "inf")],
    (renorm, {"input": normal(4, 3)}, {"p": 2, "dim": -2, "maxnorm": 1.5}),
    *[
        (weight_norm, {"input": normal(3, 4, 2), "weight": normal(*magnitude)}, {"dim": dim})
        for dim, magnitude in [(0, (3, 1, 1)), (1, (1, 4, 1)), (2, (1, 1, 2)), (-2, (1, 4, 1)), (-1, ()), (None, ())]
    ],
    spectral(3, 4, dim=0),
    spectral(3, 2, 2, dim=1, iterations=3),
    spectral(2, 3, 2, 2, dim=-3),
    fold(3, 2, 2, 2, transposed=False),
    fold(2, 3, 2, transposed=True),
    fold(3, 2, transposed=False, conv_bias=False),
    pytest.param(
        frozen_batch_norm,
        {"input": normal(2, 3, 2, 2), **vectors(3, *VECTORS)},
        {"eps": 1e-3},
        marks=needs_torchvision,
    ),
]
EARLIER = [
    ("batch_norm", {"input": normal(4, 2, 2), **vectors(2, "weight", "bias")}, batch_norm(1, 1e-3)),
    ("layer_norm", {"input": normal(3, 4), **vectors(4, "weight", "bias")}, {"normalized_shape": [4], "eps": 1e-3}),
    ("group_norm", {"input": normal(2, 4, 2), **vectors(4, "weight", "bias")}, {"num_groups": 2, "eps": 1e-3}),
    ("rms_norm", {"input": normal(3, 4), **vectors(4, "weight")}, {"normalized_shape": [4], "eps": 1e-3}),
]


def float_of(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


@pytest.mark.parametrize(("formula", "tensors", "parameters"), FORMULAS)
def test_values(pytorch: Client, formula: Callable, tensors: dict[str, RawTensor], parameters: dict[str, Any]) -> None:
    numbers = {name: float_of(value) for name, value in parameters.items()}
    for dtype, close in {"F64": 1e-12, "F32": 2e-5, "F16": 2e-2, "BF16": 1e-1}.items():
        if dtype in ("F16", "BF16") and formula is local_response_norm and len(tensors["input"].shape) > 3:
            continue  # no kernel
        sent = {name: pack(unpack(tensor), dtype) for name, tensor in tensors.items()}
        exact = formula({name: unpack(tensor) for name, tensor in sent.items()}, numbers)
        reply = pytorch.ask(formula.__name__, sent, mode="train", **parameters)
        assert set(reply.raw) == set(exact), reply
        for name, value in exact.items():
            assert reply.raw[name].dtype == dtype
            assert reply[name].shape == value.shape
            assert np.allclose(reply[name], value, rtol=close, atol=close), (dtype, name)


def gradients_of(operation: str, tensors: dict) -> list[str]:
    return [name for name in normative.DIFFERENTIABLE.get(operation, ("input", "weight", "bias")) if name in tensors]


def with_seeds(operation: str, tensors: dict[str, RawTensor]) -> dict[str, RawTensor]:
    """The same with a gradient of each output."""
    input = tensors["input"].shape
    outputs = {"output": input}
    if operation == "conv_batch_norm_fold":
        outputs = {"folded_weight": input, "folded_bias": tensors["weight"].shape}
    return {**tensors, **{f"grad_output.{name}": normal(*shape) for name, shape in outputs.items()}}


def slopes(value: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    """Derivatives by differences over four points."""
    result = np.zeros(at.shape)
    for index in np.ndindex(at.shape):

        def shifted(step: float, index: tuple = index) -> float:
            moved = at.copy()
            moved[index] += step
            return value(moved)

        h = 1e-3
        result[index] = (8 * (shifted(h) - shifted(-h)) - (shifted(2 * h) - shifted(-2 * h))) / (12 * h)
    return result


#: The dimensions, the first and the last, for which weight norm has a kernel of its own, and the magnitude's shape.
FUSED = [(0, (3, 1)), (1, (1, 2))]

DIFFERENTIATED = [
    *EARLIER,
    ("sync_batch_norm", *FORMULAS[0][1:]),
    ("instance_norm", *instance(1, 2, 3, 4)[1:]),
    ("instance_norm", *instance(2, 3, 2, 2)[1:]),
    ("local_response_norm", {"input": normal(1, 4, 2)}, {"size": 3, **LRN}),
    ("normalize", {"input": normal(2, 3)}, {"p": 2, "dim": 1, "eps": 1e-12}),
    ("normalize", {"input": positive(2, 3)}, {"p": 3, "dim": 0, "eps": 1e-12}),
    ("normalize", {"input": normal(2, 3)}, {"p": 2, "dim": 1, "eps": 100.0}),
    ("renorm", {"input": normal(3, 3)}, {"p": 2, "dim": 0, "maxnorm": 0.1}),
    ("weight_norm", {"input": normal(3, 2), "weight": normal(3, 1)}, {"dim": -2}),
    ("weight_norm", {"input": normal(3, 2), "weight": normal()}, {"dim": None}),
    ("spectral_norm", *spectral(3, 2, dim=0)[1:]),
    ("conv_batch_norm_fold", *fold(2, 2, 2, transposed=True)[1:]),
    pytest.param(
        "frozen_batch_norm",
        {"input": normal(1, 2, 2, 2), **vectors(2, *VECTORS)},
        {"eps": 1e-3},
        marks=needs_torchvision,
    ),
]


#: What PyTorch differentiates once as it should, and twice as it should not.
ONCE = [("weight_norm", {"input": normal(3, 2), "weight": normal(*shape)}, {"dim": d}) for d, shape in FUSED]


@pytest.mark.parametrize(("operation", "tensors", "parameters"), [*DIFFERENTIATED, *ONCE])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_gradients_are_slopes(pytorch: Client, operation: str, tensors: dict, parameters: dict, mode: str) -> None:
    if mode == "train" and operation == "spectral_norm":
        pytest.skip("u and v, which move in training, count as constants")
    sent = with_seeds(operation, tensors)
    reply = pytorch.ask(operation, sent, mode=mode, gradients=True, **parameters)
    names = gradients_of(operation, tensors)
    assert {name for name in reply.raw if name.startswith("grad")} == {f"grad_{name}" for name in names}
    for name in names:

        def loss(moved: np.ndarray, name: str = name) -> float:
            outputs = pytorch.ask(operation, {**tensors, name: pack(moved, "F64")}, mode=mode, **parameters)
            seeds = {key.partition(".")[2]: unpack(raw) for key, raw in sent.items() if key.startswith("grad_output.")}
            return sum(float((outputs[output] * seed).sum()) for output, seed in seeds.items())

        assert np.allclose(reply[f"grad_{name}"], slopes(loss, unpack(sent[name])), rtol=1e-7, atol=1e-7), name


@pytest.mark.parametrize(("operation", "tensors", "parameters"), DIFFERENTIATED)
def test_double_backward_is_slopes_of_gradients(
    pytorch: Client, operation: str, tensors: dict, parameters: dict
) -> None:
    sent = with_seeds(operation, tensors)
    names = gradients_of(operation, tensors)
    directions = {name: normal(*tensors[name].shape) for name in names}
    asked = {**sent, **{f"grad_grad.{name}": direction for name, direction in directions.items()}}
    once = pytorch.ask(operation, sent, gradients=True, **parameters)
    reply = pytorch.ask(operation, asked, gradients=True, double_backward=True, **parameters)
    seeds = {key: f"grad2_{key.partition('.')[2]}" for key in sent if key.startswith("grad_output.")}
    expected = {**{name: f"grad2_{name}" for name in names}, **seeds}
    assert set(reply.raw) == set(once.raw) | set(expected.values())
    assert all(np.allclose(reply[name], once[name], rtol=1e-13, atol=1e-13) for name in once.raw)
    for key, name in expected.items():

        def product(moved: np.ndarray, key: str = key) -> float:
            gradients = pytorch.ask(operation, {**sent, key: pack(moved, "F64")}, gradients=True, **parameters)
            return sum(float((gradients[f"grad_{n}"] * unpack(d)).sum()) for n, d in directions.items())

        assert reply.raw[name].shape == sent[key].shape
        assert np.allclose(reply[name], slopes(product, unpack(sent[key])), rtol=1e-6, atol=1e-6), name


def test_the_kernel_of_weight_norm_takes_the_norm_for_a_constant_in_double_backward(pytorch: Client) -> None:
    for dim, shape in FUSED:
        v, seed, direction = RNG.normal(size=(3, 3, 2))
        g, direction_of_g = RNG.normal(size=(2, *shape))
        named = {"input": v, "weight": g, "grad_output.output": seed, "grad_grad.input": direction}
        sent = {name: pack(value, "F64") for name, value in {**named, "grad_grad.weight": direction_of_g}.items()}
        reply = pytorch.ask("weight_norm", sent, gradients=True, double_backward=True, dim=dim)

        norm = np.sqrt((v**2).sum(1 - dim, keepdims=True))

        def product(moved: np.ndarray) -> float:
            along = (seed * moved).sum(1 - dim, keepdims=True)
            by_v, by_g = g / norm * (seed - moved * along / norm**2), along / norm
            return float((by_v * direction).sum() + (by_g * direction_of_g).sum())

        assert np.allclose(reply["grad2_input"], slopes(product, v), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("operation", "shape", "parameters", "kind"),
    [
        ("batch_norm", (4, 3), batch_norm(), "unsupported"),
        ("instance_norm", (2, 3, 4), {"spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}, "unsupported"),
        ("layer_norm", (4, 3), {"normalized_shape": [3], "eps": 1e-5}, "unsupported"),
        ("group_norm", (4, 3, 2), {"num_groups": 1, "eps": 1e-5}, "answer"),
    ],
)
def test_a_bias_without_a_weight_has_no_double_backward(pytorch: Client, operation, shape, parameters, kind) -> None:
    """The gradient of the bias is a sum of the output's gradient, so grad_grad.bias is its share in grad2_output."""
    x = normal(*shape)
    sent = {"input": x, "bias": normal(3), "grad_output.output": x, "grad_grad.bias": pack(np.ones(3), "F64")}
    sent["grad_grad.input"] = pack(np.zeros(shape), "F64")
    rest = {"mode": "train", "gradients": True, "double_backward": True, **parameters}
    assert pytorch.ask(operation, sent, **rest).type == kind
    sent.update({"weight": positive(3), "grad_grad.weight": pack(np.zeros(3), "F64")})
    assert (pytorch.ask(operation, sent, **rest)["grad2_output"] == 1).all()


def test_double_backward_keeps_types(pytorch: Client) -> None:
    x, weight = normal(4, 3, dtype="F16"), positive(3, dtype="F32")
    sent = {"input": x, "weight": weight, "grad_output.output": x, "grad_grad.input": x, "grad_grad.weight": weight}
    reply = pytorch.ask("batch_norm", sent, mode="train", gradients=True, double_backward=True, **batch_norm())
    found = {name: raw.dtype for name, raw in reply.raw.items() if name.startswith("grad2_")}
    assert found == {"grad2_input": "F16", "grad2_weight": "F32", "grad2_output": "F16"}


def test_cross_map_lrn_has_no_double_backward(pytorch: Client) -> None:
    x = normal(1, 3, 2, 2)
    sent = {"input": x, "grad_output.output": x, "grad_grad.input": x}
    rest = {"size": 3, **LRN}
    reply = pytorch.ask("cross_map_lrn", sent, gradients=True, double_backward=True, **rest)
    assert reply.type == "unsupported" and "automatic differentiation" in reply.message["message"]


# --- sync batch norm --------------------------------------------------------------------------------------------------

SYNC = {"eps": 1e-5, "momentum": 0.1}


def test_sync_batch_norm_is_batch_norm_of_the_whole_batch(pytorch: Client) -> None:
    sent = {"input": normal(5, 3, 2, dtype="F32"), "weight": positive(3, dtype="F32"), **running(3)}
    sent["grad_output.output"] = sent["input"]
    for mode in ("train", "eval"):
        whole = pytorch.ask("batch_norm", sent, mode=mode, gradients=True, **batch_norm())
        split = pytorch.ask("sync_batch_norm", sent, mode=mode, gradients=True, splits=[3, 0, 2], **SYNC)
        assert split.raw == whole.raw


@pytest.mark.parametrize(
    ("splits", "kind"), [([3, 1], "shape"), ([], "shape"), ([6, -1], "parameter"), ([5], None), ([0, 5, 0], None)]
)
def test_splits_are_sizes_of_the_batch(pytorch: Client, splits: list[int], kind: str | None) -> None:
    sent = {"input": normal(5, 3, dtype="F32"), **running(3)}
    reply = pytorch.ask("sync_batch_norm", sent, mode="train", splits=splits, **SYNC)
    assert reply.kind == kind
    assert reply["num_batches_tracked"] == (kind is None)


def test_sync_batch_norm_of_one_value_is_refused_after_it_is_counted(pytorch: Client) -> None:
    sent = {"input": normal(1, 3, dtype="F32"), **running(3)}
    reply = pytorch.ask("sync_batch_norm", sent, mode="train", splits=[1, 0], **SYNC)
    assert reply.kind == "too_few_values" and reply["num_batches_tracked"] == 1


def test_sync_batch_norm_wants_a_counter(pytorch: Client) -> None:
    """Batch norm trains without one."""
    sent = {"input": normal(4, 3, dtype="F32"), **running(3, counter=None)}
    reply = pytorch.ask("sync_batch_norm", sent, mode="train", splits=[4], **SYNC)
    assert reply.type == "refusal" and "num_batches_tracked" in reply.message["message"]
    assert pytorch.ask("sync_batch_norm", sent, splits=[4], **SYNC).type == "answer"


# --- instance norm ----------------------------------------------------------------------------------------------------


def instance_norm_1d(momentum: Any = 0.1, eps: float = 1e-5) -> dict[str, Any]:
    return {"spatial_dims": 1, "eps": eps, "momentum": momentum}


def test_instance_norm_averages_the_statistics_of_instances_and_never_counts(pytorch: Client) -> None:
    x = normal(3, 2, 4, dtype="F32")
    reply = pytorch.ask("instance_norm", {"input": x, **running(2)}, mode="train", **instance_norm_1d())
    values = unpack(x)
    assert np.allclose(reply["running_mean"], 0.1 * values.mean(2).mean(0), atol=1e-6)
    assert np.allclose(reply["running_var"], 0.9 + 0.1 * values.var(2, ddof=1).mean(0), atol=1e-6)
    assert reply["num_batches_tracked"] == 0
    reply = pytorch.ask("instance_norm", {"input": x, **running(2)}, mode="train", **instance_norm_1d(None))
    assert (reply["running_mean"] == 0).all() and (reply["running_var"] == 1).all()


def test_instance_norm_uses_running_statistics_in_eval_alone(pytorch: Client) -> None:
    x = normal(3, 2, 4, dtype="F32")
    train = pytorch.ask("instance_norm", {"input": x}, mode="train", **instance_norm_1d())
    assert pytorch.ask("instance_norm", {"input": x}, **instance_norm_1d()).raw == train.raw
    reply = pytorch.ask("instance_norm", {"input": x, **running(2)}, **instance_norm_1d())
    assert np.allclose(reply["output"], unpack(x) / math.sqrt(1 + 1e-5), atol=1e-6)


def test_an_input_without_a_batch_is_a_batch_of_one(pytorch: Client) -> None:
    x = normal(2, 5, dtype="F32")
    batch = RawTensor(x.dtype, (1, 2, 5), x.data)
    for mode in ("train", "eval"):
        one, alone = (
            pytorch.ask("instance_norm", {"input": t, **running(2)}, mode=mode, **instance_norm_1d())
            for t in (batch, x)
        )
        assert alone["output"].shape == (2, 5) and (alone["output"] == one["output"][0]).all()
        assert alone.raw["running_var"] == one.raw["running_var"]


def test_instance_norm_of_no_instances(pytorch: Client) -> None:
    """Without instances the average of their statistics is NaN; without positions nothing moves."""
    reply = pytorch.ask("instance_norm", {"input": zeros(0, 3, 4), **running(3)}, mode="train", **instance_norm_1d())
    assert reply.type == "answer" and np.isnan(reply["running_mean"]).all() and np.isnan(reply["running_var"]).all()
    reply = pytorch.ask("instance_norm", {"input": zeros(2, 3, 0), **running(3)}, mode="train", **instance_norm_1d())
    assert reply.type == "answer" and (reply["running_mean"] == 0).all() and (reply["running_var"] == 1).all()


def test_instance_norm_converts_statistics_of_another_type(pytorch: Client) -> None:
    for dtype in ("F64", "F16"):
        sent = {"input": normal(2, 3, 4, dtype="F32"), **running(3, dtype=dtype)}
        reply = pytorch.ask("instance_norm", sent, mode="train", **instance_norm_1d())
        assert reply.type == "answer" and reply.raw["running_mean"].dtype == dtype


# --- local response norms ---------------------------------------------------------------------------------------------


def test_local_response_norm_of_halves_has_kernels_for_rank_three_alone(pytorch: Client) -> None:
    for dtype in ("F16", "BF16"):
        plane, volume = normal(1, 3, 2, dtype=dtype), normal(1, 3, 2, 2, dtype=dtype)
        assert pytorch.ask("local_response_norm", {"input": plane}, size=3, **LRN).type == "answer"
        assert pytorch.ask("local_response_norm", {"input": volume}, size=3, **LRN).type == "unsupported"


def test_an_empty_input_is_its_own_local_response_norm(pytorch: Client) -> None:
    for shape in [(0, 3, 2), (2, 0, 2), (2, 3, 0)]:
        sent = {"input": zeros(*shape), "grad_output.output": zeros(*shape)}
        reply = pytorch.ask("local_response_norm", sent, gradients=True, size=3, **LRN)
        assert reply.type == "answer" and reply["output"].shape == reply["grad_input"].shape == shape


def test_the_first_channel_never_leaves_the_window_of_cross_map_lrn(pytorch: Client) -> None:
    x = np.full((1, 6, 1, 1), 1e-6)
    x[0, 0] = 1
    rest = {"alpha": 3.0, "beta": 1.0, "k": 1.0, "size": 3}
    for operation, reach in [("local_response_norm", [1, 1, 0, 0, 0, 0]), ("cross_map_lrn", [1] * 6)]:
        output = pytorch.ask(operation, {"input": pack(x, "F64")}, **rest)["output"]
        assert (np.round(x / output - 1).ravel() == reach).all(), operation


def test_cross_map_lrn_of_size_one_has_no_backward(pytorch: Client) -> None:
    sent = {"input": zeros(1, 3, 2, 2), "grad_output.output": zeros(1, 3, 2, 2)}
    assert pytorch.ask("cross_map_lrn", sent, size=1, **LRN).type == "answer"
    assert pytorch.ask("cross_map_lrn", sent, gradients=True, size=1, **LRN).kind == "other"


# --- normalize and renorm ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "expected"), [(0, (1.5, 2)), (0.5, (0.2154, 0.2872)), (-1, (1.75, 2.3333)), ("-inf", (1, 1.3333))]
)
def test_normalize_takes_every_p(pytorch: Client, p: Any, expected: tuple[float, float]) -> None:
    output = pytorch.ask("normalize", {"input": [[3.0, 4.0]]}, p=p, dim=1, eps=1e-12)["output"]
    assert np.allclose(output, [expected], atol=1e-4)


def test_normalize_of_zeros(pytorch: Client) -> None:
    """The floor 1e-12 is 0 in F16."""
    rest = {"p": 2, "dim": 1, "eps": 1e-12}
    for dtype, nan in {"F64": False, "F32": False, "BF16": False, "F16": True}.items():
        output = pytorch.ask("normalize", {"input": zeros(1, 2, dtype=dtype)}, **rest)["output"]
        assert np.isnan(output).all() if nan else (output == 0).all(), dtype
    sent = {"input": zeros(1, 2), "grad_output.output": [[1.0, 2.0]]}
    assert np.allclose(pytorch.ask("normalize", sent, gradients=True, **rest)["grad_input"], [[1e12, 2e12]])


def test_renorm_leaves_what_is_short_enough(pytorch: Client) -> None:
    rest = {"p": 2, "dim": 0}
    rows = {"input": pack([[3.0, 4.0], [0.0, 0.0]], "F64")}
    assert (pytorch.ask("renorm", rows, maxnorm=5.0, **rest)["output"] == [[3, 4], [0, 0]]).all()
    assert (pytorch.ask("renorm", rows, maxnorm=0.0, **rest)["output"] == 0).all()
    shortened = pytorch.ask("renorm", rows, maxnorm=1.0, **rest)["output"][0]
    assert math.isclose(math.hypot(*shortened), 5 / (5 + 1e-7), rel_tol=1e-12)


# --- weight norm, spectral norm ---------------------------------------------------------------------------------------


def test_weight_norm_of_zeros_is_nan(pytorch: Client) -> None:
    sent = {"input": [[0.0, 0.0], [3.0, 4.0]], "weight": [[1.0], [10.0]]}
    output = pytorch.ask("weight_norm", sent, dim=0)["output"]
    assert np.isnan(output[0]).all() and np.allclose(output[1], [6, 8])


@pytest.mark.parametrize("magnitude", [(1, 1), (4, 1), (3,), (1, 3)])
def test_a_magnitude_of_another_shape_is_refused(pytorch: Client, magnitude: tuple[int, ...]) -> None:
    sent = {"input": zeros(3, 4), "weight": zeros(*magnitude)}
    reply = pytorch.ask("weight_norm", sent, dim=0)
    assert reply.kind == "shape" and "size mismatch" in reply.message["message"]


def test_weight_norm_of_mixed_types(pytorch: Client) -> None:
    """The kernel for a dimension refuses them, the composite for the whole tensor does not."""
    v = normal(3, 4, dtype="F16")
    assert pytorch.ask("weight_norm", {"input": v, "weight": zeros(3, 1)}, dim=0).kind == "dtype"
    assert pytorch.ask("weight_norm", {"input": v, "weight": zeros()}, dim=None).raw["output"].dtype == "F16"


def test_spectral_norm_in_eval_uses_the_vectors_as_they_are(pytorch: Client) -> None:
    _, tensors, parameters = spectral(3, 4, dim=0)
    reply = pytorch.ask("spectral_norm", tensors, **parameters)
    exact = spectral_norm({name: unpack(raw) for name, raw in tensors.items()}, parameters, "eval")
    assert np.allclose(reply["output"], exact["output"], rtol=1e-12)
    assert reply.raw["u"] == tensors["u"] and reply.raw["v"] == tensors["v"]


def test_spectral_norm_of_a_vector_and_of_zeros(pytorch: Client) -> None:
    rest = {"dim": 0, "n_power_iterations": 1, "eps": 1e-12}
    sent = {"input": [3.0, 4.0], "u": [1.0, 0.0], "v": [1.0]}
    reply = pytorch.ask("spectral_norm", sent, mode="train", **rest)
    assert np.allclose(reply["output"], [0.6, 0.8]) and (reply["u"] == [1, 0]).all() and (reply["v"] == [1]).all()
    sent = {"input": zeros(2, 1), "u": [1.0, 0.0], "v": [1.0]}
    for mode in ("train", "eval"):
        assert np.isnan(pytorch.ask("spectral_norm", sent, mode=mode, **rest)["output"]).all()


# --- frozen batch norm, folded batch norm -----------------------------------------------------------------------------


@needs_torchvision
def test_frozen_batch_norm_is_for_images_of_one_type(pytorch: Client) -> None:
    halves = {"input": normal(2, 3, 2, 2, dtype="F16"), **{name: pack(np.ones(3)) for name in VECTORS}}
    reply = pytorch.ask("frozen_batch_norm", halves, eps=1e-5)
    assert reply.type == "unsupported" and "float32" in reply.message["message"]
    for shape in [(2, 3), (2, 3, 2), (2, 3, 3, 2, 2)]:
        sent = {"input": normal(*shape), **vectors(3, *VECTORS)}
        assert pytorch.ask("frozen_batch_norm", sent, eps=1e-5).type == "unsupported"


@needs_torchvision
def test_frozen_batch_norm_answers_nothing_but_the_output(pytorch: Client) -> None:
    sent = {"input": normal(2, 3, 2, 2), **vectors(3, *VECTORS)}
    sent["grad_output.output"] = sent["input"]
    for mode in ("train", "eval"):
        assert set(pytorch.ask("frozen_batch_norm", sent, mode=mode, gradients=True, eps=1e-5).raw) == {
            "output",
            "grad_input",
        }


def test_a_folded_bias_has_the_type_of_the_bias(pytorch: Client) -> None:
    rest = {"eps": 1e-5, "transposed": False}
    sent = {"input": normal(3, 2, 2, dtype="F16"), **{name: pack(np.ones(3)) for name in VECTORS}}
    found = {name: raw.dtype for name, raw in pytorch.ask("conv_batch_norm_fold", sent, **rest).raw.items()}
    assert found == {"folded_weight": "F16", "folded_bias": "F16"}
    sent["conv_bias"] = zeros(3)
    assert pytorch.ask("conv_batch_norm_fold", sent, **rest).raw["folded_bias"].dtype == "F32"


def test_a_fold_in_another_layout(pytorch: Client) -> None:
    """The layout is that of the weight and its gradient. The bias has none."""
    _, tensors, rest = fold(3, 2, 2, 2, transposed=False)
    sent = with_seeds("conv_batch_norm_fold", tensors)
    plain = pytorch.ask("conv_batch_norm_fold", sent, gradients=True, **rest)
    for format in ("channels_last", "strided"):
        other = pytorch.ask("conv_batch_norm_fold", sent, gradients=True, layout={"format": format}, **rest)
        assert all(np.allclose(other[name], plain[name], rtol=1e-12) for name in plain.raw)


def test_a_fold_that_broadcasts_is_no_answer(pytorch: Client) -> None:
    sent = {"input": zeros(3), **{name: zeros(3) for name in VECTORS}}
    assert pytorch.ask("conv_batch_norm_fold", sent, eps=1e-5, transposed=False).type == "unsupported"


# --- further refusals -------------------------------------------------------------------------------------------------

INSTANCE = {"spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}
SPECTRAL = {"dim": 0, "n_power_iterations": 1, "eps": 1e-12}
FOLD = {"eps": 1e-5, "transposed": False}


def matrix(rows: int, columns: int, u: int | None = None, v: int | None = None) -> dict[str, RawTensor]:
    return {"input": zeros(rows, columns), "u": zeros(u or rows), "v": zeros(v or columns)}


FURTHER_REFUSALS = [
    refused("sync_batch_norm", "shape", {"input": zeros(3)}, splits=[3], **SYNC),
    refused("sync_batch_norm", "empty", {"input": zeros(3, 0)}, splits=[3], **TRAIN, **SYNC),
    refused("sync_batch_norm", "too_few_values", {"input": zeros(1, 3, 1)}, splits=[1], **SYNC),
    refused("instance_norm", "too_few_values", {"input": zeros(2, 3, 1)}, **TRAIN, **INSTANCE),
    refused("instance_norm", "too_few_values", {"input": zeros(3, 1)}, **INSTANCE),
    refused("instance_norm", "too_few_values", {"input": zeros(0, 3, 1)}, **INSTANCE),
    refused("instance_norm", "too_few_values", {"input": zeros(2, 3, 1, 1)}, **{**INSTANCE, "spatial_dims": 2}),
    refused("instance_norm", "shape", {"input": zeros(3)}, **INSTANCE),
    refused("instance_norm", "shape", {"input": zeros(2, 3, 2, 2)}, **INSTANCE),
    refused("instance_norm", "shape", {"input": zeros(2, 3)}, **{**INSTANCE, "spatial_dims": 2}),
    refused("instance_norm", "shape", {"input": zeros(2, 3, 4), "weight": zeros(4)}, **INSTANCE),
    refused("instance_norm", "shape", {"input": zeros(2, 3, 4), "weight": zeros(3), "bias": zeros(4)}, **INSTANCE),
    refused("instance_norm", "empty", {"input": zeros(0, 3, 4), "weight": zeros(3)}, **TRAIN, **INSTANCE),
    refused("instance_norm", "dtype", {"input": zeros(2, 3, 4), "weight": zeros(3, dtype="F64")}, **INSTANCE),
    refused("local_response_norm", "shape", {"input": zeros(2, 3)}, size=3, **LRN),
    refused("local_response_norm", "parameter", {"input": zeros(2, 3, 4)}, size=0, **LRN),
    refused("local_response_norm", "parameter", {"input": zeros(2, 3, 4)}, size=-1, **LRN),
    refused("cross_map_lrn", "shape", {"input": zeros(2, 3, 4)}, size=3, **LRN),
    refused("cross_map_lrn", "empty", {"input": zeros(2, 0, 4, 4)}, size=3, **LRN),
    refused("cross_map_lrn", "other", {"input": zeros(2, 3, 4, 4)}, size=0, **LRN),
    refused("normalize", "parameter", {"input": zeros(3)}, p=2, dim=1, eps=1e-12),
    refused("normalize", "empty", {"input": zeros(3, 0)}, p="inf", dim=1, eps=1e-12),
    refused("renorm", "shape", {"input": zeros(3)}, p=2, dim=0, maxnorm=1.0),
    refused("renorm", "parameter", {"input": zeros(3, 2)}, p=2, dim=2, maxnorm=1.0),
    refused("renorm", "parameter", {"input": zeros(3, 2)}, p=0, dim=0, maxnorm=1.0),
    refused("renorm", "parameter", {"input": zeros(3, 2)}, p=2, dim=0, maxnorm=-1.0),
    refused("renorm", "parameter", {"input": zeros(3, 2)}, p=2, dim=0, maxnorm="nan"),
    refused("weight_norm", "parameter", {"input": zeros(3, 2), "weight": zeros(3, 1)}, dim=2),
    refused("weight_norm", "shape", {"input": zeros(), "weight": zeros()}, dim=0),
    refused("spectral_norm", "parameter", matrix(3, 2), **{**SPECTRAL, "dim": 2}),
    refused("spectral_norm", "parameter", matrix(3, 2), **{**SPECTRAL, "n_power_iterations": 0}),
    refused("spectral_norm", "shape", matrix(3, 2, u=4), **SPECTRAL),
    refused("spectral_norm", "shape", matrix(3, 2, v=4), **TRAIN, **SPECTRAL),
    refused("spectral_norm", "dtype", {**matrix(3, 2), "input": zeros(3, 2, dtype="F16")}, **SPECTRAL),
    refused("conv_batch_norm_fold", "shape", {"input": zeros(3, 2), **{n: zeros(4) for n in VECTORS}}, **FOLD),
]


@pytest.mark.parametrize(("operation", "kind", "tensors", "rest"), FURTHER_REFUSALS)
def test_further_refusals(pytorch: Client, operation: str, kind: str, tensors: dict, rest: dict) -> None:
    reply = pytorch.ask(operation, tensors, **rest)
    assert (reply.type, reply.kind) == ("refusal", kind), reply
    assert set(reply.raw) == set(tensors) & set(normative.STATE.get(operation, ()))
    assert reply.message["message"] and "/" not in reply.message["message"]


# --- the options ------------------------------------------------------------------------------------------------------


def test_claims_can_be_narrowed() -> None:
    with Client(FOLDER / "pytorch.py", "--operations", "rms_norm,normalize", "--dtypes", "F32,BF16") as client:
        hello = client.hello()
        assert (hello["operations"], hello["dtypes"]) == (["rms_norm", "normalize"], ["F32", "BF16"])
        assert client.ask("layer_norm", {"input": zeros(2, 4)}, **LAYER).type == "unsupported"


@pytest.mark.parametrize(
    "arguments", [("--operations", "soft_norm"), ("--dtypes", "F8"), ("--threads", "0"), ("--repeat", "2")]
)
def test_wrong_arguments(monkeypatch: Any, capsys: Any, arguments: tuple[str, ...]) -> None:
    monkeypatch.setattr(sys, "argv", ["pytorch.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        importlib.import_module("pytorch").main()
    assert stop.value.code == 2 and arguments[0] in capsys.readouterr().err


def test_autocast_rounds_what_it_widens() -> None:
    """Layer norm computes and answers in F32 under autocast; here its output is rounded as by the layer after it."""
    x, weight = normal(3, 4, dtype="BF16"), positive(4, dtype="F32")
    sent = {"input": x, "weight": weight, "grad_output.output": x}
    with Client(FOLDER / "pytorch.py", "--autocast", "bf16") as client:
        assert client.hello()["details"]["autocast"] == "bf16"
        reply = client.ask("layer_norm", sent, gradients=True, **LAYER)
    wide = torch.nn.functional.layer_norm(tensor(x).float(), [4], tensor(weight))
    assert np.array_equal(reply["output"], wide.bfloat16().double().numpy())
    assert {name: raw.dtype for name, raw in reply.raw.items()} == {
        "output": "BF16",
        "grad_input": "BF16",
        "grad_weight": "F32",
    }


@pytest.mark.skipif(not shutil.which("g++"), reason="the compiler's CPU backend needs a C++ compiler")
def test_compiled_modules_answer_and_refuse() -> None:
    narrow = ("--compile", "--dtypes", "F32", "--operations", "layer_norm,batch_norm,conv_batch_norm_fold")
    with Client(FOLDER / "pytorch.py", *narrow) as client:
        hello = client.hello()
        assert hello["operations"] == ["layer_norm", "batch_norm"] and "double_backward" not in hello["options"]
        assert hello["details"]["mode"] == "compiled"
        x = normal(3, 4, dtype="F32")
        reply = client.ask("layer_norm", {"input": x, "grad_output.output": x}, gradients=True, **LAYER)
        assert np.allclose(reply["output"], normalized(unpack(x), (1,), 1e-5), atol=1e-5)
        assert set(reply.raw) == {"output", "grad_input"}
        for shape, kind in [((1, 4), "too_few_values"), ((4,), "shape")]:
            reply = client.ask("batch_norm", {"input": zeros(*shape)}, **TRAIN, **batch_norm())
            assert reply.kind == kind and "xpected" in reply.message["message"]


# --- the numpy programs mean what PyTorch means -----------------------------------------------------------------------


def random_request(choose: random.Random, rng: np.random.Generator) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A small request, wrong in one way or another half the time."""
    operation = choose.choice(["batch_norm", "batch_norm", "layer_norm", "group_norm", "rms_norm"])
    dtype = choose.choice(list(DTYPES))
    others = dtype if choose.random() < 0.8 else choose.choice(list(DTYPES))
    sometimes = choose.random
    dims = choose.choice([1, 2, 3, None])
    rank = {1: choose.choice([2, 3]), 2: 4, 3: 5, None: choose.randint(2, 6)}[dims] if operation == "batch_norm" else 3
    rank = choose.randint(0, 5) if sometimes() < 0.1 else rank
    shape = [choose.choice([1, 2, 3, 4]) for _ in range(rank)]
    if rank and sometimes() < 0.15:
        shape[choose.randrange(rank)] = 0
    if sometimes() < 0.2:
        shape = [size if index == 1 else 1 for index, size in enumerate(shape)]
    channels = shape[1] if rank > 1 else 2
    tensors: dict[str, Any] = {"input": pack(rng.normal(size=shape), dtype)}
    rest: dict[str, Any] = {"mode": choose.choice(["train", "eval"])}
    affine: tuple[int, ...] = (channels,)
    if operation == "batch_norm":
        rest.update(
            batch_norm(dims, choose.choice([1e-5, 0.1, 0.1, 0.0, -1.0]), choose.choice([None, 0.1, 0.5, 1, 2.0]))
        )
        for name in ("running_mean", "running_var"):
            if sometimes() < 0.9:
                size = channels + (sometimes() < 0.05)
                tensors[name] = pack(rng.uniform(0.5, 2, size), others)
        if sometimes() < 0.3:
            tensors.pop("running_mean", None), tensors.pop("running_var", None)
        if sometimes() < 0.7:
            tensors["num_batches_tracked"] = choose.choice([-1, 0, 0, 3])
    elif operation == "group_norm":
        rest.update(num_groups=choose.choice([-1, 0, 1, 1, 2, channels, channels]), eps=choose.choice([1e-3, 0.1]))
    else:
        affine = tuple(shape[choose.randint(0, rank) :])
        affine = (*affine, 2) if sometimes() < 0.05 else affine
        rest.update(normalized_shape=list(affine), eps=choose.choice([1e-3, 0.1]))
        if operation == "rms_norm" and sometimes() < 0.2:
            rest["eps"] = None
    affine = (7,) if sometimes() < 0.05 else affine
    for name in ("weight",) if operation == "rms_norm" else ("weight", "bias"):
        if sometimes() < 0.5:
            tensors[name] = pack(rng.normal(size=affine), others)
    return operation, tensors, rest


@pytest.mark.parametrize("program", ["two_pass", "folded", "welford"])
def test_numpy_programs_follow_pytorch(pytorch: Client, program: str) -> None:
    choose, rng = random.Random(program), np.random.default_rng(len(program))
    seen: dict[str, int] = {}
    with Client(FOLDER / "tests" / "subjects.py", program) as numpy:
        for _ in range(700):
            operation, tensors, rest = random_request(choose, rng)
            ours, theirs = (client.ask(operation, tensors, **rest) for client in (numpy, pytorch))
            what = f"{operation} {rest} { {n: getattr(t, 'shape', t) for n, t in tensors.items()} }\n{ours}\n{theirs}"
            assert ours.type == theirs.type, what
            assert (ours.kind == "too_few_values") == (theirs.kind == "too_few_values"), what
            assert set(ours.raw) == set(theirs.raw), what
            for name in ours.raw:
                assert ours.raw[name][:2] == theirs.raw[name][:2], what
                close = {"I64": 0, "F64": 1e-9, "F32": 1e-4, "F16": 2e-2, "BF16": 1e-1}[ours.raw[name].dtype]
                close = max(close, {"F16": 2e-2, "BF16": 1e-1}.get(tensors["input"].dtype, 0) if close else 0)
                # Mixed types of rms norm: PyTorch computes in the wider one.
                close = max(close, 1e-4) if operation == "rms_norm" else close
                assert np.allclose(ours[name], theirs[name], rtol=close, atol=close, equal_nan=True), what
            outcome = theirs.kind or theirs.type
            seen[outcome] = seen.get(outcome, 0) + 1
    assert {"answer", "dtype", "shape", "parameter", "empty", "too_few_values", "other"} <= set(seen), seen


# --- a module of one's own --------------------------------------------------------------------------------------------


def test_the_example_is_an_rms_norm(pytorch: Client) -> None:
    with Client(FOLDER / "examples" / "torch_module.py") as client:
        assert client.hello()["operations"] == ["rms_norm"]
        for dtype in DTYPES:
            x, weight, seed = (pack(RNG.normal(size=size), dtype) for size in ((5, 4), (4,), (5, 4)))
            sent = {"input": x, "weight": weight, "grad_output.output": seed}
            mine, theirs = (c.ask("rms_norm", sent, gradients=True, **RMS) for c in (client, pytorch))
            close = {"F64": 1e-13, "F32": 1e-5, "F16": 2e-2, "BF16": 1e-1}[dtype]
            assert set(mine.raw) == set(theirs.raw) == {"output", "grad_input", "grad_weight"}
            for name in mine.raw:
                assert mine.raw[name].dtype == dtype and np.allclose(mine[name], theirs[name], rtol=close, atol=close)
        assert client.ask("rms_norm", {"input": np.ones((2, 3))}, **RMS).type == "refusal"
        assert client.close()[0] == 0
