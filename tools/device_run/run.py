#!/usr/bin/env python3
"""Record the catalogue from PyTorch on a GPU, in one run of less than ten minutes and without a network.

    python3 tools/device_run/run.py --normative target/release/normative --out OUT
    python3 tools/device_run/run.py --device cpu --level quick --out OUT      # a rehearsal

It needs this checkout, the program `normative`, and a Python with PyTorch. OUT gets a tar for each way of calling
PyTorch, of at most 16 MiB, a few where that is too little, and at most eight in all. Each holds
``<recording>/<operation>.<NN>.safetensors`` and ``<recording>/provenance.json``. Exit status: 0 if all was recorded, 1
if something is missing (it says what), 2 for wrong usage, 3 if there is no device or the adapter does not start.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ADAPTER = ROOT / "adapters" / "python" / "pytorch.py"
sys.path.insert(0, str(ADAPTER.parent))

import normative  # noqa: E402

#: What comes back from a device machine: so many files, each of so many bytes.
FILES, FILE_SIZE = 8, 16 << 20

#: Seconds that are kept for packing what was recorded, and the least that a recording is begun with.
PACKING, WORTHWHILE = 20, 30


@dataclass(frozen=True)
class Configuration:
    """A way of calling PyTorch, which makes a recording of its own."""

    name: str
    options: tuple[str, ...]
    #: Parts that are recorded one after the other, so that what is done is kept when the time is over.
    shards: int = 1
    #: Seconds that one request may take.
    patience: int = 60
    #: Processes side by side.
    jobs: int = 4


#: In the order of their worth, for the case that the time does not suffice.
CONFIGURATIONS = (
    Configuration("native", ("--cudnn", "off", "--repeat", "5")),
    # Only these have kernels in cuDNN; the others run the same ones with it and without it.
    Configuration(
        "cudnn", ("--cudnn", "on", "--repeat", "5", "--operations", "batch_norm,sync_batch_norm,instance_norm")
    ),
    Configuration("autocast-f16", ("--autocast", "f16", "--dtypes", "F16")),
    Configuration("autocast-bf16", ("--autocast", "bf16", "--dtypes", "BF16")),
    Configuration("compiled", ("--compile", "--dtypes", "F32"), shards=4, patience=180, jobs=8),
)


def main() -> int:
    arguments = parse()
    deadline = time.monotonic() + arguments.seconds
    hello = greet([*arguments.adapter, "--device", arguments.device])
    if hello is None or hello.get("device") != arguments.device:
        return 3
    print(f"{hello['name']} {hello['version']} on {hello['details'].get('gpu', arguments.device)}", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    missing: list[str] = []
    written = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for configuration in arguments.configurations:
            recording = Recording(arguments, configuration, recording_name(hello, configuration.name), Path(folder))
            missing += recording.make(deadline - PACKING)
            parts = recording.pack()
            if written + len(parts) > FILES:
                missing.append(f"{recording.name}: {len(parts)} more files than the {FILES} that there may be")
                continue
            for name, content in parts:
                (arguments.out / name).write_bytes(content)
                print(f"{name}: {len(content)} bytes", flush=True)
            written += len(parts)
    for line in missing:
        print(f"missing: {line}")
    return 1 if missing else 0


def parse() -> argparse.Namespace:
    text = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        description=text[0], epilog="\n\n".join(text[1:]), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [configuration.name for configuration in CONFIGURATIONS]
    parser.add_argument("--out", type=Path, required=True, help="the folder for the tars")
    parser.add_argument("--normative", type=Path, help="the program (default: what cargo built in target/)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu is a rehearsal")
    parser.add_argument("--seconds", type=float, default=540, help="time for everything (default: 540)")
    parser.add_argument("--jobs", type=int, help="processes side by side (default: 4, or 8 that compile)")
    parser.add_argument("--level", choices=["quick", "full"], default="full", help="as of normative record")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="as of normative record")
    parser.add_argument("--configurations", default=",".join(names), help=f"of {', '.join(names)} (default: all)")
    arguments = parser.parse_args()
    chosen = arguments.configurations.split(",")
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"there is no configuration {unknown[0]!r}, but {', '.join(names)}")
    arguments.configurations = [c for c in CONFIGURATIONS if c.name in chosen]
    built = [ROOT / "target" / profile / "normative" for profile in ("release", "debug")]
    arguments.normative = arguments.normative or next((path for path in built if path.exists()), built[0])
    if not arguments.normative.exists():
        parser.error(
            f"there is no {arguments.normative}: give --normative PATH, or build it with cargo build --release"
        )
    arguments.normative = arguments.normative.resolve()
    try:
        command = [arguments.normative, "--version"]
        arguments.version = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        parser.error(f"{arguments.normative} does not run here: {error}")
    arguments.adapter = [sys.executable, str(ADAPTER)]
    return arguments


def greet(command: Sequence[str]) -> dict[str, Any] | None:
    """The adapter's hello, None where it does not start; it says why on standard error."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            question = normative.encode({"type": "hello", "normative": 1})
            normative.write_frame(process.stdin, question)  # type: ignore[arg-type]
            document = normative.read_frame(process.stdout)  # type: ignore[arg-type]
        except BrokenPipeError:
            return None
    return None if document is None else normative.decode(document)[0]


def recording_name(hello: Mapping[str, Any], configuration: str) -> str:
    """Such as pytorch-2.15-cuda-h100-native: who, which version, where, how."""
    version = ".".join(hello["version"].split(".")[:2])
    where = [hello["device"]]
    if gpu := hello["details"].get("gpu"):
        words = re.findall(r"[a-z0-9]+", gpu.lower())
        models = [word for word in words if re.fullmatch(r"[a-z]{1,4}\d+\w*|\d{4}", word)]
        where.append(models[0] if models else "-".join(words))
    return "-".join([hello["name"], version, *where, configuration])


class Recording:
    """One configuration's answers: made by `normative record`, and packed with what is known about them."""

    def __init__(self, arguments: argparse.Namespace, configuration: Configuration, name: str, folder: Path) -> None:
        self.arguments, self.configuration, self.name, self.folder = arguments, configuration, name, folder
        self.into, self.kernels = folder / name, folder / f"{name}.jsonl"
        self.left_out: list[str] = []

    def make(self, deadline: float) -> list[str]:
        """Records, and says what is missing."""
        missing, shards = [], self.configuration.shards
        for shard in range(1, shards + 1):
            part = self.name if shards == 1 else f"{self.name}, part {shard} of {shards}"
            seconds = deadline - time.monotonic()
            if seconds < WORTHWHILE:
                missing.append(f"{part}: no time was left")
                continue
            started = time.monotonic()
            status, output = self._record(["--shard", f"{shard}/{shards}"] if shards > 1 else [], seconds)
            print(f"{part}: {time.monotonic() - started:.0f} s, status {status}", flush=True)
            print(output, end="", flush=True)
            self.left_out += [line for line in output.splitlines() if "not recorded: " in line]
            if status is None:
                missing.append(f"{part}: it took more than the {seconds:.0f} s that were left")
            elif status != 0:
                missing.append(f"{part}: normative record ended with status {status}")
        return missing

    def _record(self, options: Sequence[str], seconds: float) -> tuple[int | None, str]:
        a, c = self.arguments, self.configuration
        subject = [*a.adapter, "--device", a.device, *c.options, "--kernels", str(self.kernels)]
        command = [str(a.normative), "record", "--subject", shlex.join(subject), "--into", str(self.into)]
        command += ["--provenance", "device" if a.device == "cuda" else "cpu", "--level", a.level]
        command += ["--jobs", str(a.jobs or min(c.jobs, os.cpu_count() or 1)), "--timeout", str(c.patience), *options]
        for glob in a.only:
            command += ["--only", glob]
        # Each process compiles for itself, and leaves nothing behind.
        environment = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "compiled")}
        try:
            # A program that is killed closes its subjects' pipes, and they end by themselves.
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as over:
            return None, (over.output or b"").decode(errors="replace")
        return done.returncode, done.stdout.decode(errors="replace")

    def pack(self) -> list[tuple[str, bytes]]:
        """The tars: names and bytes, always the same for the same recording."""
        files = {path.name: path.read_bytes() for path in sorted(self.into.glob("*.safetensors"))}
        if not files:
            return []
        text = json.dumps(self._provenance(files), indent=1, sort_keys=True, ensure_ascii=False)
        return tars(self.name, {"provenance.json": f"{text}\n".encode(), **files})

    def _provenance(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Who answered and how, and for each step the kernels that ran and what did not repeat."""
        documents = [normative.decode(content) for content in files.values()]
        lines = [json.loads(line) for line in self.kernels.read_text().splitlines()] if self.kernels.exists() else []
        calls = {line["fingerprint"]: line for line in lines if "fingerprint" in line}
        ran: dict[tuple[str, ...], list[str]] = {}
        differing = {}
        for document in documents:
            for step, mark in fingerprints(*document):
                if mark not in calls:
                    continue  # it was refused
                ran.setdefault(tuple(calls[mark]["kernels"]), []).append(step)
                if tensors := calls[mark].get("not_repeatable"):
                    differing[step] = tensors
        first = documents[0][0]
        return {
            "recording": self.name,
            "provenance": first["provenance"],
            "subject": first["subject"],
            "options": list(self.configuration.options),
            "normative": self.arguments.version,
            "cases": sum(len(message["cases"]) for message, _ in documents),
            "left_out": [line.replace(str(self.folder), "") for line in self.left_out],
            "calls_of_each": next((line["repeat"] for line in lines if "repeat" in line), 1),
            "not_repeatable": differing,
            "kernels": [{"kernels": kernels, "steps": steps} for kernels, steps in sorted(ran.items())],
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }


def fingerprints(message: Mapping[str, Any], tensors: Mapping[str, normative.RawTensor]) -> Iterator[tuple[str, str]]:
    """The name of each step of a golden file, and its request's fingerprint."""
    sent: dict[str, dict[str, normative.RawTensor]] = {}
    for path, tensor in tensors.items():
        case, step, side, name = path.split("/", 3)
        if side == "request":
            sent.setdefault(f"{case}/{step}", {})[name] = tensor
    for case in message["cases"]:
        for number, step in enumerate(case["steps"]):
            name = f"{case['name']}/{number}"
            yield name, normative.fingerprint(step["request"], sent.get(name, {}))


def tars(name: str, files: Mapping[str, bytes], limit: int = FILE_SIZE) -> list[tuple[str, bytes]]:
    """Plain tars of at most ``limit`` bytes with the files in a folder ``name``, filled in the order given."""
    parts: list[dict[str, bytes]] = [{}]
    for file, content in files.items():
        if parts[-1] and len(tar(name, {**parts[-1], file: content})) > limit:
            parts.append({})
        parts[-1][file] = content
    ending = [".tar"] if len(parts) == 1 else [f".{number}.tar" for number in range(1, len(parts) + 1)]
    packed = [(name + end, tar(name, part)) for end, part in zip(ending, parts)]
    if too_large := [file for file, content in packed if len(content) > limit]:
        raise ValueError(f"{too_large[0]} holds one file of more than {limit} bytes")
    return packed


def tar(name: str, files: Mapping[str, bytes]) -> bytes:
    """A tar that tells nothing of who made it and when."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file, content in files.items():
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, BytesIO(content))
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
