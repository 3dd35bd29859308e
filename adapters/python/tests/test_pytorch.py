"""PyTorch behind the pipe: the facts about its modules that the suite relies on, asked of the served adapter."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from client import FOLDER, Client, Reply, batch_norm, pack, running, unpack

from normative import RawTensor, strides

torch = pytest.importorskip("torch")
nn = torch.nn

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
RNG = np.random.default_rng(3)

#: The batches of the momentum table: [1, 2, 4], then [10, 20], one channel.
FIRST, SECOND = np.array([[1.0], [2.0], [4.0]]), np.array([[10.0], [20.0]])


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
    assert hello["operations"][:4] == ["batch_norm", "layer_norm", "group_norm", "rms_norm"]
    assert hello["dtypes"] == ["F64", "F32", "F16", "BF16"]
    assert hello["options"] == ["gradients", "channels_last", "strided"]
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
