"""The device run with a program and an adapter that only pretend: what it packs, what it says, how it ends."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import run  # noqa: E402

EXAMPLE = run.ROOT / "golden" / "examples" / "golden.safetensors"

ADAPTER = f"""
import sys
sys.path.insert(0, {str(run.ADAPTER.parent)!r})
import normative
normative.operation("layer_norm")(lambda request: {{}})
device = sys.argv[sys.argv.index("--device") + 1]
if device == "cuda":
    sys.exit("no CUDA")
normative.serve(name="pytorch", version="2.15.0", device=device, details={{"torch": "2.15.0"}})
"""

#: Takes the place of `normative record`: copies a golden file, as if it had recorded it.
PROGRAM = """#!{python}
import pathlib, shutil, sys, time
sys.path.insert(0, {modules!r})
import normative
if "--version" in sys.argv:
    sys.exit(print("normative 9.9"))
def value(option):
    return sys.argv[sys.argv.index(option) + 1]
folder = pathlib.Path(value("--into"))
folder.mkdir(exist_ok=True)
shutil.copy({example!r}, folder / "batch_norm.00.safetensors")
message, tensors = normative.decode(open({example!r}, "rb").read())
step = message["cases"][0]["steps"][0]["request"]
start = message["cases"][0]["name"] + "/0/request/"
sent = {{name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}}
kernels = value("--subject").split("--kernels ")[1]
with open(kernels, "a") as file:
    print('{{"details": {{}}, "repeat": 5}}', file=file)
    mark = normative.fingerprint(step, sent)
    print('{{"fingerprint": "%s", "kernels": ["a_kernel"], "not_repeatable": ["output"]}}' % mark, file=file)
print("1 case not recorded: the subject does not claim F64")
{end}
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the script with a program that ends in a given way: its status, and what it printed."""
    adapter = tmp_path / "adapter.py"
    adapter.write_text(ADAPTER)
    monkeypatch.setattr(run, "ADAPTER", adapter)

    def start(*arguments: str, end: str = "") -> tuple[int, str]:
        program = tmp_path / "normative"
        modules, example = str(run.ROOT / "adapters" / "python"), str(EXAMPLE)
        program.write_text(PROGRAM.format(python=sys.executable, modules=modules, example=example, end=end))
        program.chmod(0o755)
        common = ["run.py", "--out", str(tmp_path / "out"), "--normative", str(program)]
        monkeypatch.setattr(sys, "argv", [*common, *arguments])
        return run.main(), capsys.readouterr().out

    return start


def content(file: Any) -> dict[str, bytes]:
    with tarfile.open(fileobj=file) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]


def test_a_recording_is_packed_with_its_provenance(start, tmp_path: Path) -> None:
    status, output = start("--device", "cpu", "--configurations", "native")
    assert status == 0, output
    files = content(io.BytesIO((tmp_path / "out" / "pytorch-2.15-cpu-native.tar").read_bytes()))
    folder = "pytorch-2.15-cpu-native/"
    assert set(files) == {folder + "batch_norm.00.safetensors", folder + "provenance.json"}
    assert files[folder + "batch_norm.00.safetensors"] == EXAMPLE.read_bytes()
    provenance = json.loads(files[folder + "provenance.json"])
    message, _ = run.normative.decode(EXAMPLE.read_bytes())
    step = f"{message['cases'][0]['name']}/0"
    assert provenance["kernels"] == [{"kernels": ["a_kernel"], "steps": [step]}]
    assert provenance["not_repeatable"] == {step: ["output"]} and provenance["calls_of_each"] == 5
    assert provenance["normative"] == "normative 9.9" and provenance["subject"] == message["subject"]
    assert provenance["left_out"] == ["1 case not recorded: the subject does not claim F64"]
    assert str(tmp_path) not in json.dumps(provenance)
    before = (tmp_path / "out" / "pytorch-2.15-cpu-native.tar").read_bytes()
    start("--device", "cpu", "--configurations", "native")
    assert (tmp_path / "out" / "pytorch-2.15-cpu-native.tar").read_bytes() == before


def test_a_fault_is_missing_and_packed(start, tmp_path: Path) -> None:
    status, output = start("--device", "cpu", "--configurations", "cudnn,native", end="sys.exit(1)")
    assert status == 1 and "ended with status 1" in output
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_what_takes_too_long_is_missing(start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "WORTHWHILE", 1)
    monkeypatch.setattr(run, "PACKING", 0)
    status, output = start(
        "--device", "cpu", "--configurations", "native,cudnn", "--seconds", "3", end="time.sleep(60)"
    )
    assert status == 1 and "that were left" in output and "no time was left" in output


def test_no_device(start, tmp_path: Path) -> None:
    status, output = start()
    assert status == 3 and not output and not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [("--configurations", "fast"), ("--normative", "nowhere")])
def test_wrong_usage(start, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as stop:
        start(*arguments)
    assert stop.value.code == 2


def hello(gpu: str | None, device: str = "cuda") -> dict[str, Any]:
    details = {} if gpu is None else {"gpu": gpu}
    return {"name": "pytorch", "version": "2.11.0", "device": device, "details": details}


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("Tesla V100-PCIE-16GB", "v100"),
        ("Some Card", "some-card"),
    ],
)
def test_the_name_tells_who_and_where(gpu: str, name: str) -> None:
    assert run.recording_name(hello(gpu), "native") == f"pytorch-2.11-cuda-{name}-native"
    assert run.recording_name(hello(None, "cpu"), "compiled") == "pytorch-2.11-cpu-compiled"


def test_a_large_recording_is_split() -> None:
    files = {f"batch_norm.{number:02}.safetensors": bytes([number]) * 20_000 for number in range(5)}
    parts = run.tars("r", files, limit=61_440)
    assert [name for name, _ in parts] == ["r.1.tar", "r.2.tar", "r.3.tar"]
    assert all(len(packed) <= 61_440 for _, packed in parts)
    found: dict[str, bytes] = {}
    for _, packed in parts:
        found |= content(io.BytesIO(packed))
    assert found == {f"r/{name}": value for name, value in files.items()}
    with pytest.raises(ValueError, match="more than"):
        run.tars("r", files, limit=10_000)
