#!/usr/bin/env python3
"""Subjects that break the protocol, to try the suite's side of the pipe on.

    python3 hostile.py NAME [SECONDS]

Each answers correctly but for every fifth request, or as its name says. SECONDS is how long slow_hello waits (5) and
how long the others hang (600, so that nothing that a failed test leaves behind stays for ever).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any, BinaryIO

import subjects  # beside this file; it finds normative

from normative import ITEM_SIZE, RawTensor, Subject, _Entry, decode, encode, read_frame, take_pipe, write_frame

MODES = {
    "exits": "ends with status 7 instead of a reply",
    "hangs": "never replies",
    "prints": "writes a line of text into the pipe, before the reply",
    "garbage": "sends a frame that is no document",
    "wrong_id": "replies to another request",
    "wrong_shape": "flattens the output",
    "wrong_dtype": "sends the output as F64, or F32 where F64 is right",
    "missing_tensor": "leaves the output out",
    "extra_tensor": "adds a tensor that nobody asked for",
    "huge_length": "declares a frame of 2^63 bytes",
    "unsupported_always": "supports nothing of what its hello claims (every request)",
    "dies_at_hello": "ends with status 7 at hello",
    "slow_hello": "takes its time over hello",
    "spawns_child": "starts a child that holds the pipe, and hangs",
}


def hang(seconds: float) -> None:
    time.sleep(seconds)
    os._exit(7)


def misbehave(mode: str, reply: bytes, sink: BinaryIO, seconds: float) -> bytes:
    """What goes wrong on a fifth request; the bytes to send if the program is still there to send any."""
    message, tensors = decode(reply)
    output = tensors.get("output")
    if mode == "exits":
        print("hostile: I leave", file=sys.stderr)
        os._exit(7)
    elif mode == "hangs":
        hang(seconds)
    elif mode == "prints":
        sink.write(b"epoch 5: loss = 0.3\n")
    elif mode == "garbage":
        return b"\xff" * len(reply)
    elif mode == "wrong_id":
        message["id"] += 1
    elif mode == "wrong_shape" and output:
        # One dimension, and where the input had just one, two.
        size = len(output.data) // ITEM_SIZE[output.dtype]
        tensors["output"] = output._replace(shape=(size,) if len(output.shape) != 1 else (size, 1))
    elif mode == "wrong_dtype" and output:
        dtype, width = ("F32", 4) if output.dtype == "F64" else ("F64", 8)
        size = len(output.data) // ITEM_SIZE[output.dtype]
        tensors["output"] = RawTensor(dtype, output.shape, bytes(size * width))
    elif mode == "missing_tensor":
        tensors.pop("output", None)
    elif mode == "extra_tensor":
        tensors["surprise"] = RawTensor("F32", (), bytes(4))
    elif mode == "huge_length":
        sink.write((2**63).to_bytes(8, "little") + b"and so on")
        sink.flush()
        hang(seconds)
    elif mode == "spawns_child":
        sleep = f"import time; time.sleep({seconds})"
        subprocess.Popen([sys.executable, "-c", sleep], stdout=sink.fileno(), stderr=2)
        hang(seconds)
    return encode(message, tensors)


def main() -> None:
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    if mode not in MODES:
        modes = "\n".join(f"  {name:20}{meaning}" for name, meaning in MODES.items())
        sys.exit(f"usage: hostile.py NAME [SECONDS], where NAME is\n{modes}")
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0 if mode == "slow_hello" else 600.0
    program = subjects.Program("two_pass")
    entries = {name: _Entry(program, tuple(subjects.DTYPES), ("pytorch",)) for name in subjects.OPERATIONS}
    hello: dict[str, Any] = {
        "type": "hello", "normative": 1, "name": f"hostile-{mode}", "version": "1", "device": "cpu",
        "operations": subjects.OPERATIONS, "dtypes": subjects.DTYPES, "options": [], "details": {},
    }  # fmt: skip
    subject, requests = Subject(hello, entries), 0
    source, sink = take_pipe()
    while (document := read_frame(source)) is not None:
        message, _ = decode(document)
        if message["type"] == "hello":
            if mode == "dies_at_hello":
                print("hostile: not today", file=sys.stderr)
                os._exit(7)
            if mode == "slow_hello":
                time.sleep(seconds)
            write_frame(sink, subject.reply(document))
            continue
        requests += 1
        reply = subject.reply(document)
        if mode == "unsupported_always":
            reply = encode({"type": "unsupported", "id": message["id"], "message": "not today"})
        elif requests % 5 == 0:
            reply = misbehave(mode, reply, sink, seconds)
        write_frame(sink, reply)


if __name__ == "__main__":
    main()
