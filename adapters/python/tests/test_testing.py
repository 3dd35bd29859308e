"""`normative.testing`: layers of every form and framework are found in another process and judged there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client import FOLDER, in_process, pack

import normative
from normative import layers, testing
from normative.testing import BinaryNotFound, CheckFailed, NotConformant, NotImportable, assert_conformant, check

# The program is there, or is not looked for: a test does not build it.
if not os.environ.get("NORMATIVE") and not (FOLDER.parent.parent / "target" / "release" / "normative").is_file():
    pytest.skip("cargo build --release makes the program, or NORMATIVE names it", allow_module_level=True)

#: A few cases are enough where the question is not the layer.
FEW = ["*-f32-size-4", "*-f32-size-5"]


# --- layers, in forms that another process can find -------------------------------------------------------------------


def rms(x: Any, normalized_shape: list[int], weight: Any, eps: float | None) -> Any:
    """Of arrays of any framework, as far as F32."""
    axes = tuple(range(-len(normalized_shape), 0))
    y = x / ((x * x).mean(axes, keepdims=True) + (2.0**-23 if eps is None else eps)) ** 0.5
    return y if weight is None else y * weight


def doubled(x: Any, normalized_shape: list[int], weight: Any, eps: float | None) -> Any:
    return 2 * rms(x, normalized_shape, weight, eps)


def handler(request: normative.Request) -> dict[str, Any]:
    sent, parameters = request.tensors, request.parameters
    return {"output": rms(sent["input"], parameters["normalized_shape"], sent.get("weight"), parameters["eps"])}


def crash(x: Any, weight: Any) -> Any:
    raise SystemExit(3)


def in_jax(x: Any, normalized_shape: list[int], weight: Any, eps: float | None) -> Any:
    import jax

    assert isinstance(x, jax.Array)
    return rms(x, normalized_shape, weight, eps)


def in_torch(x: Any, normalized_shape: list[int], weight: Any, eps: float | None) -> Any:
    import torch

    return rms(torch.as_tensor(x), normalized_shape, None if weight is None else torch.as_tensor(weight), eps)


def from_dlpack(x: Any, normalized_shape: list[int], weight: Any, eps: float | None) -> Any:
    return OnlyDlpack(rms(x, normalized_shape, weight, eps))


class OnlyDlpack:
    """An array that can be exchanged in no other way."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def batch_norm(
    x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool, momentum: Any, eps: float
):
    import torch

    return torch.nn.functional.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)


def build_torch_layer_norm(normalized_shape: list[int], eps: float) -> Any:
    import torch

    return torch.nn.LayerNorm(normalized_shape, eps)


# --- conformant, and not ----------------------------------------------------------------------------------------------


def judged(report: testing.Report) -> int:
    summary = report["summary"]
    return sum(summary.values()) - summary["unsupported"]


@pytest.mark.parametrize("layer", [rms, handler, from_dlpack, f"{__name__}:rms", f"{__file__}:rms"])
def test_a_right_layer_gives_its_report(layer: Any) -> None:
    report = assert_conformant(layer, "rms_norm", only=FEW)
    assert report["status"] == 0 and report["summary"]["pass"] == 2 == judged(report)
    assert [verdict["grade"] for verdict in report["verdicts"] if verdict["verdict"] == "pass"] != []


def test_several_layers_at_once() -> None:
    report = assert_conformant({"rms_norm": rms, "layer_norm": centred}, only=FEW)
    assert {v["operation"] for v in report["verdicts"] if v["verdict"] == "pass"} == {"rms_norm", "layer_norm"}


def centred(x: Any, normalized_shape: list[int], weight: Any, bias: Any, eps: float) -> Any:
    y = rms(x - x.mean(tuple(range(-len(normalized_shape), 0)), keepdims=True), normalized_shape, weight, eps)
    return y if bias is None else y + bias


def test_a_wrong_layer_raises_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where counterexamples go
    with pytest.raises(NotConformant) as caught:
        assert_conformant(doubled, "rms_norm", only=FEW)
    text = str(caught.value)
    assert text.startswith("doubled as rms_norm: not conformant, 2 of 2 cases fail\n")
    assert "NOT CONFORMANT: " in text and "expected" in text and "replay" in text
    assert caught.value.report["summary"]["fail"] == 2 and isinstance(caught.value, AssertionError)
    assert list((tmp_path / "normative-failures").iterdir())


def test_known_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = tmp_path / "known.toml"
    known.write_text('[[known]]\ncase = "rms_norm-f32-size-4"\nreason = "it is doubled"\n')
    assert assert_conformant(doubled, "rms_norm", only=FEW[0], known=known)["summary"]["known"] == 1
    with pytest.raises(NotConformant, match="the list of known failures is stale"):
        assert_conformant(rms, "rms_norm", only=FEW[0], known=known)


def test_selection() -> None:
    report = assert_conformant(rms, "rms_norm", only=FEW, skip="*-5", level="quick", jobs=2, timeout=5, strict=True)
    assert [v["case"] for v in report["verdicts"] if v["verdict"] == "pass"] == ["rms_norm-f32-size-4"]
    with pytest.raises(CheckFailed, match="matches no case"):
        assert_conformant(rms, "rms_norm", only="no such case")
    with pytest.raises(CheckFailed, match="no_such_flag"):
        assert_conformant(rms, "rms_norm", flags=["no_such_flag"])


def test_a_layer_that_ends_the_process_is_named() -> None:
    with pytest.raises((NotConformant, CheckFailed), match="exit status: 3"):
        assert_conformant(crash, "rms_norm", only=FEW)


def test_any_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = shlex.join([sys.executable, str(FOLDER / "tests" / "subjects.py"), "two_pass"])
    run = check(program, only=FEW)
    assert run.status == 0 and judged(run.report) > 2
    with pytest.raises(CheckFailed, match="cannot start"):
        check(["no-such-program"])


# --- what cannot be judged --------------------------------------------------------------------------------------------


class Layers:
    @staticmethod
    def rms(x: Any, normalized_shape: list[int], weight: Any, eps: float | None) -> Any:
        return rms(x, normalized_shape, weight, eps)


def test_references() -> None:
    assert layers.reference(rms) == f"{__name__}:rms"
    assert layers.reference(Layers.rms) == f"{__name__}:Layers.rms"
    assert layers.load(layers.reference(Layers.rms)) is Layers.rms
    assert layers.reference("package.module:Layer") == "package.module:Layer"

    def inner(x: Any) -> Any:
        return x

    for layer, text in [
        (lambda x: x, "is a lambda"),
        (inner, "is defined within a function"),
        (Layers(), "pass its class, or a top-level function that builds it"),
        ("rms", "is no reference"),
    ]:
        with pytest.raises(NotImportable, match=text):
            layers.reference(layer)
    for reference, text in [
        ("no_such_file.py:x", "no file"),
        (f"{__name__}:no_such", "no layer no_such"),
        (":x", "is no ref"),
    ]:
        with pytest.raises(NotImportable, match=text):
            layers.load(reference)


def test_what_is_asked_must_be_named() -> None:
    with pytest.raises(TypeError, match="which operation is it"):
        assert_conformant(rms)
    with pytest.raises(TypeError, match="a dict of layers"):
        assert_conformant({"rms_norm": rms}, "rms_norm")


def test_a_script_is_found_by_its_file(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from normative.testing import assert_conformant\n"
        "def rms_norm(x, normalized_shape, weight, eps):\n"
        "    y = x / ((x * x).mean(tuple(range(-len(normalized_shape), 0)), keepdims=True) + eps) ** 0.5\n"
        "    return y if weight is None else y * weight\n"
        "print('a module that prints')\n"
        "{guard}print(assert_conformant(rms_norm, 'rms_norm', only='rms_norm-f32-size-4')['status'])\n"
    )
    environment = testing._environment()
    del environment[testing.SERVING]
    text = script.read_text()
    for guard, status in [("if __name__ == '__main__': ", 0), ("", 1)]:
        script.write_text(text.format(guard=guard))
        done = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == status, done.stderr
    assert "put the check into a test function" in done.stderr  # a check within the check would never end


def test_the_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = testing.find_binary()
    monkeypatch.setenv("NORMATIVE", str(tmp_path / "none"))
    with pytest.raises(BinaryNotFound, match="names .*none, which is no program"):
        testing.find_binary()
    monkeypatch.setenv("NORMATIVE", str(binary))
    assert testing.find_binary() == binary
    monkeypatch.delenv("NORMATIVE")
    monkeypatch.setenv("PATH", str(binary.parent))
    assert testing.find_binary() == binary
    monkeypatch.setenv("PATH", str(tmp_path))
    assert testing.find_binary().name == "normative"  # the checkout's
    with pytest.raises(BinaryNotFound, match="no cargo to build it"):
        testing._built(tmp_path)
    monkeypatch.setattr(testing, "_checkouts", lambda: iter(()))
    with pytest.raises(BinaryNotFound, match="there is no program normative"):
        testing.find_binary()


# --- layers in the process ---------------------------------------------------------------------------------------------


def subject(layer: layers.Layer, operation: str, **rest: Any) -> normative.Subject:
    entry = normative._Entry(layers.handler(layer), ("F32",), ("pytorch",))
    return normative.Subject({"options": ["gradients"]}, {operation: entry}, **rest)


def test_what_a_function_lacks_is_said() -> None:
    def weightless(x: Any, normalized_shape: list[int], eps: float) -> Any:
        return x

    def needy(x: Any, weight: Any, theta: float) -> Any:
        return x

    def pair(x: Any, weight: Any) -> Any:
        return x, x

    tensors, rest = {"input": pack(np.ones((2, 3))), "weight": pack(np.ones(3))}, {"normalized_shape": [3], "eps": 1e-5}
    reply = in_process(subject(weightless, "rms_norm"), "rms_norm", tensors, **rest)
    assert reply.type == "unsupported" and reply.message["message"] == "weightless has no parameter weight"
    reply = in_process(subject(needy, "rms_norm"), "rms_norm", tensors, **rest)
    assert reply.type == "refusal" and "needs 'theta', which rms_norm has not; it has" in reply.message["message"]
    reply = in_process(subject(pair, "rms_norm"), "rms_norm", tensors, **rest)
    assert "pair returns a tuple; it returns the output, or a dict" in reply.message["message"]


def test_a_function_of_numpy_arrays_returns_its_gradients() -> None:
    def scaled(x: Any, weight: Any, gradients: bool, grad_output: Any) -> Any:
        return {"output": x * weight, **({"grad_input": grad_output * weight} if gradients else {})}

    tensors = {"input": pack([[1.0, 2.0]]), "weight": pack([3.0, 4.0])}
    rest = {"normalized_shape": [2], "eps": 1e-5}
    assert list(in_process(subject(scaled, "rms_norm"), "rms_norm", tensors, **rest).raw) == ["output"]
    tensors["grad_output.output"] = pack([[1.0, 1.0]])
    reply = in_process(subject(scaled, "rms_norm"), "rms_norm", tensors, gradients=True, **rest)
    assert reply["grad_input"].tolist() == [[3.0, 4.0]]


def test_state_may_change_in_place() -> None:
    def counting(x: Any, running_mean: Any, running_var: Any, num_batches_tracked: Any) -> Any:
        num_batches_tracked += 1
        return {"output": x, "running_var": running_var * 2}

    state = {"running_mean": pack([1.0]), "running_var": pack([1.0]), "num_batches_tracked": 5}
    reply = in_process(
        subject(counting, "batch_norm"), "batch_norm", {"input": pack([[[1.0, 2.0]]]), **state}, mode="train"
    )
    assert (reply["running_mean"], reply["running_var"], reply["num_batches_tracked"]) == ([1.0], [2.0], 6)


# --- frameworks -------------------------------------------------------------------------------------------------------


def test_jax() -> None:
    pytest.importorskip("jax")
    report = assert_conformant(in_jax, "rms_norm", framework="jax", dtypes=["F64", "F32"], only=[*FEW, "*-f64-size-4"])
    assert report["summary"]["pass"] == 3
    with pytest.raises(CheckFailed, match="JAX has no layouts"):
        assert_conformant(in_jax, "rms_norm", framework="jax", options=["strided"], only=FEW)
    bfloat16 = normative._Jax(["BF16"], [])
    raw = pack([1.0, 2.5], "BF16")
    assert bfloat16.store(bfloat16.load(raw, normative.Layout()), "BF16") == raw


def test_torch_tensors_are_stored_whatever_the_framework() -> None:
    torch = pytest.importorskip("torch")
    stored = normative._Numpy().store(torch.tensor([1.0, 2.5], dtype=torch.bfloat16, requires_grad=True), "BF16")
    assert stored == pack([1.0, 2.5], "BF16")


def test_torch_functions_and_modules() -> None:
    torch = pytest.importorskip("torch")
    assert layers.is_module_class(torch.nn.LayerNorm) and not layers.is_module_class(rms)
    assert assert_conformant(in_torch, "rms_norm", only=FEW)["summary"]["pass"] == 2
    wide = [*FEW, "*-f32-size-4-grad"]
    options = {"framework": "torch", "options": ["gradients"], "only": wide}
    assert assert_conformant(build_torch_layer_norm, "layer_norm", **options)["summary"]["pass"] == 3
    assert assert_conformant(torch.nn.GroupNorm, "group_norm", options=["gradients"], only=wide)["summary"]["pass"] == 3
    assert assert_conformant(torch.nn.BatchNorm1d, "batch_norm", only="batch_norm-f32-size-4")["summary"]["pass"] == 1
    assert assert_conformant(rms, "rms_norm", **options)["summary"]["pass"] == 3


def test_a_torch_function_moves_its_state() -> None:
    torch = pytest.importorskip("torch")
    program = subject(batch_norm, "batch_norm", framework=normative._Torch("cpu"))
    values = np.random.default_rng(0).normal(size=(4, 3))
    state = {"running_mean": pack(np.zeros(3)), "running_var": pack(np.ones(3)), "weight": pack(np.ones(3))}
    sent = {"input": pack(values), **state, "bias": pack(np.zeros(3)), "grad_output.output": pack(np.ones((4, 3)))}
    rest = {"mode": "train", "spatial_dims": 1, "eps": 1e-5, "momentum": 0.1}
    for gradients in (False, True):
        tensors = {key: value for key, value in sent.items() if gradients or "grad" not in key}
        reply = in_process(program, "batch_norm", tensors, gradients=gradients, **rest)
        assert np.allclose(reply["running_mean"], 0.1 * values.mean(0), rtol=1e-5) and torch.is_grad_enabled()
        assert ("grad_weight" in reply.raw) == gradients


def test_triton() -> None:
    pytest.importorskip("triton")
    program = [sys.executable, str(FOLDER / "examples" / "triton_layer_norm.py")]
    run = check(program, only="layer_norm-f32-size-*")
    assert run.status == 0 and run.report["summary"]["pass"] > 5
