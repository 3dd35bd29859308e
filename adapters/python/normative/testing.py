"""Judge a layer from a test::

    from normative.testing import assert_conformant

    def test_layer_norm():
        assert_conformant(my_layer_norm, "layer_norm", dtypes=["F32", "F16"])

The layer is called in a process of its own, by the command ``normative check``, so it must be importable: a top-level
function or class, or a string such as ``"my_project.layers:MyRMSNorm"``. `normative.layers` says what a layer may be.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict
from urllib.parse import unquote, urlparse

from . import layers
from .layers import Layer, NotImportable

__all__ = [
    "BinaryNotFound", "CheckFailed", "NotConformant", "NotImportable", "Report", "Run", "Verdict",
    "assert_conformant", "check", "find_binary",
]  # fmt: skip

#: In the environment of a process that serves a layer.
SERVING = "NORMATIVE_SERVING"


class Verdict(TypedDict, total=False):
    """What was said of one case; docs/report.schema.json describes every key."""

    case: str
    operation: str
    level: str
    flags: list[str]
    verdict: str
    ratio: float | str
    grade: str
    tensor: str
    index: list[int]
    expected: str
    actual: str
    nearest_bug: str
    message: str
    replay: str


class Report(TypedDict):
    """The JSON report; docs/report.schema.json describes every key."""

    version: str
    catalogue: str
    status: int
    subject: dict[str, Any] | None
    summary: dict[str, int]
    verdicts: list[Verdict]


class Run(NamedTuple):
    """What came of a check: the exit status of ``normative check``, and its report."""

    status: int
    report: Report


class BinaryNotFound(RuntimeError):
    """There is no program ``normative``, and none could be built."""


class CheckFailed(RuntimeError):
    """The check came to no verdict: wrong usage, or a layer that could not be run."""


class NotConformant(AssertionError):
    """The layer is not conformant. The message is the whole report."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


def assert_conformant(
    layer: Layer | str | Mapping[str, Layer | str],
    operation: str | None = None,
    *,
    dtypes: Sequence[str] = ("F32",),
    options: Sequence[str] = (),
    framework: str | None = None,
    device: str = "cpu",
    names: Mapping[str, str] | None = None,
    accumulate: str | None = None,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    flags: str | Sequence[str] = (),
    level: str = "full",
    known: str | os.PathLike[str] | None = None,
    timeout: float = 10.0,
    jobs: int = 1,
    strict: bool = False,
) -> Report:
    """Judges a layer on the catalogue, and raises `NotConformant` with the report if a required case fails.

    ``layer`` is a function, a ``torch.nn.Module`` class or a function that builds a module, with the name of its
    ``operation``; or a dict of operations and layers. Top-level ones, or strings that name them: see
    `normative.layers`.

    What it claims: ``dtypes`` of the input; ``options`` among gradients, double_backward, channels_last and strided;
    ``framework`` ``"torch"`` (the default for a module class), ``"jax"`` or ``"numpy"``: what arrays the layer gets;
    ``device`` for torch tensors; ``names`` of a module's parameters where they are not the suite's; ``accumulate``:
    the type that it sums in, where that is wider than usual.

    The rest is as for the command: see ``normative check --help``. Counterexamples are kept in ./normative-failures.
    A failing layer is run twice, once for each form of the report.

    Raises `NotImportable` for a layer without a name, `BinaryNotFound`, and `CheckFailed` where nothing was judged.
    """
    __tracebackhide__ = True  # pytest shows the caller
    if isinstance(layer, Mapping):
        if operation is not None:
            raise TypeError("a dict of layers names their operations itself; give no other")
        named = dict(layer)
    elif operation is not None:
        named = {operation: layer}
    else:
        raise TypeError('which operation is it? assert_conformant(layer, "layer_norm")')

    if framework is None and any(layers.is_module_class(layer) for layer in named.values()):
        framework = "torch"
    subject = [sys.executable, "-m", "normative"]
    subject += [f"{name}={layers.reference(layer)}" for name, layer in named.items()]
    subject += ["--dtypes", ",".join(dtypes), "--device", device]
    subject += ["--options", ",".join(options)] if options else []
    subject += ["--framework", framework] if framework else []
    subject += ["--accumulate", accumulate] if accumulate else []
    for tensor, attribute in (names or {}).items():
        subject += ["--name", f"{tensor}={attribute}"]

    command = _command(subject, only, skip, flags, level, known, timeout, jobs, strict)
    status, report = _run(command)
    if status == 0:
        return report
    text = subprocess.run(command, capture_output=True, text=True, env=_environment()).stdout
    raise NotConformant(f"{_first_line(named, report)}\n\n{text}", report)


def check(
    subject: str | Sequence[str],
    *,
    only: str | Sequence[str] = (),
    skip: str | Sequence[str] = (),
    flags: str | Sequence[str] = (),
    level: str = "full",
    known: str | os.PathLike[str] | None = None,
    timeout: float = 10.0,
    jobs: int = 1,
    strict: bool = False,
) -> Run:
    """Judges a program behind a pipe, in any language, whatever comes of it: ``check("./my_adapter").status``.

    Raises `BinaryNotFound`, and `CheckFailed` where nothing was judged.
    """
    words = shlex.split(subject) if isinstance(subject, str) else list(subject)
    return _run(_command(words, only, skip, flags, level, known, timeout, jobs, strict))


def _command(
    subject: Sequence[str],
    only: str | Sequence[str],
    skip: str | Sequence[str],
    flags: str | Sequence[str],
    level: str,
    known: str | os.PathLike[str] | None,
    timeout: float,
    jobs: int,
    strict: bool,
) -> list[str]:
    if os.environ.get(SERVING):
        raise CheckFailed(
            "a layer is being imported to be judged, and its module starts another check; "
            'put the check into a test function, or below: if __name__ == "__main__"'
        )
    command = [str(find_binary()), "check", "--subject", shlex.join(subject)]
    for option, values in (("--only", only), ("--skip", skip), ("--flag", flags)):
        for value in [values] if isinstance(values, str) else values:
            command += [option, value]
    command += ["--level", level, "--timeout", str(timeout), "--jobs", str(jobs), "--color", "never"]
    command += ["--known", os.fspath(known)] if known is not None else []
    return command + (["--strict"] if strict else [])


def _run(command: Sequence[str]) -> Run:
    """Runs a check. A status of 0, 1 or 5 is a verdict; anything else is not."""
    __tracebackhide__ = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        done = subprocess.run(
            [*command, "--format", "json", "--report", str(path)], capture_output=True, text=True, env=_environment()
        )
        report: Report | None = json.loads(path.read_text("utf-8")) if path.exists() else None
    if done.returncode in (0, 1, 5) and report is not None:
        return Run(done.returncode, report)
    why = [str(report.get("gave_up") or "")] if report is not None else []
    said = "\n".join(filter(None, [*why, done.stderr.strip(), done.stdout.strip()]))
    raise CheckFailed(f"{shlex.join(command)}\nexit status {done.returncode}: {said}")


def _environment() -> dict[str, str]:
    """The layer's process finds the modules that this one finds, and knows that it is one."""
    path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *(entry or os.getcwd() for entry in sys.path)])
    return {**os.environ, "PYTHONPATH": path, SERVING: "1"}


def _first_line(named: Mapping[str, Layer | str], report: Report) -> str:
    who = ", ".join(
        f"{layer if isinstance(layer, str) else layer.__qualname__} as {name}" for name, layer in named.items()
    )
    summary = report["summary"]
    bad = sum(summary[verdict] for verdict in ("fail", "crash", "timeout"))
    if report["status"] == 5:
        return f"{who}: the list of known failures is stale"
    return f"{who}: not conformant, {bad} of {sum(summary.values()) - summary['unsupported']} cases fail"


# ---------------------------------------------------------------------------------------------------------------------
# The program.


def find_binary() -> Path:
    """The program ``normative``: of the environment variable NORMATIVE, on the PATH, or of the checkout.

    In a checkout without one it is built, which takes minutes the first time.
    """
    if named := os.environ.get("NORMATIVE"):
        if found := shutil.which(named):
            return Path(found)
        raise BinaryNotFound(f"the environment variable NORMATIVE names {named}, which is no program")
    if found := shutil.which("normative"):
        return Path(found)
    for checkout in _checkouts():
        return _built(checkout)
    raise BinaryNotFound(
        "there is no program normative: it is not on the PATH, NORMATIVE is not set, and there is no checkout to build "
        "it from; in one, cargo install --path . puts it on the PATH"
    )


def _built(checkout: Path) -> Path:
    binary = checkout / "target" / "release" / ("normative.exe" if os.name == "nt" else "normative")
    if binary.is_file():
        return binary
    cargo = shutil.which("cargo")
    if cargo is None:
        raise BinaryNotFound(f"normative is not built in {checkout}, and there is no cargo to build it: install Rust")
    command = [cargo, "build", "--release", "--bin", "normative", "--target-dir", str(checkout / "target")]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    if done.returncode != 0 or not binary.is_file():
        raise BinaryNotFound(f"normative cannot be built in {checkout}:\n{done.stderr.strip()}")
    return binary


def _checkouts() -> Iterator[Path]:
    """Checkouts of normative: around this file, around what pip installed it from, around the working folder."""
    starts = [Path(__file__).resolve(), Path.cwd()]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        origin = importlib.metadata.distribution("normative").read_text("direct_url.json")
        if origin is not None:
            starts.insert(1, Path(unquote(urlparse(json.loads(origin)["url"]).path)))
    for start in starts:
        for folder in (start, *start.parents):
            if (folder / "Cargo.toml").is_file() and (folder / "adapters" / "python" / "normative").is_dir():
                yield folder
