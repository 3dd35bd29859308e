"""Serves layers without an adapter: ``python3 -m normative rms_norm=my_layers:MyRMSNorm --dtypes F32,BF16``.

A layer is named by a module and an attribute, or by a file and an attribute; `normative.layers` says what it may be.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import normative
from normative import layers


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return key, value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python3 -m normative", description="Serves layers to normative.")
    parser.add_argument(
        "layers", nargs="+", type=_pair, metavar="OPERATION=LAYER", help="as in layer_norm=package.module:attribute"
    )
    parser.add_argument("--dtypes", type=_names, default=["F32"], metavar="TYPE,…", help="what is claimed (F32)")
    parser.add_argument("--framework", choices=["numpy", "torch", "jax"], help="torch for a Module class, else numpy")
    parser.add_argument("--options", type=_names, default=[], metavar="NAME,…", help="gradients, channels_last, …")
    parser.add_argument("--device", default="cpu", help="where torch tensors lie")
    parser.add_argument("--accumulate", metavar="TYPE", help="the type that sums are taken in, if wider than usual")
    parser.add_argument(
        "--name", action="append", type=_pair, default=[], metavar="TENSOR=ATTRIBUTE", help="what a Module calls it"
    )
    parser.add_argument("--title", help="the name in the report")
    parser.add_argument("--version", default="", help="the version in the report")
    options = parser.parse_args(arguments)

    normative.take_pipe()  # a module that is imported may print
    framework, names = options.framework, dict(options.name)
    try:
        for operation, reference in options.layers:
            layer = layers.load(reference)
            framework = framework or ("torch" if layers.is_module_class(layer) else None)
            normative.operation(operation, dtypes=options.dtypes)(layers.handler(layer, names))
    except (layers.NotImportable, ImportError, ValueError) as error:
        sys.exit(f"normative: {error}")
    normative.serve(
        options.title or ", ".join(reference.rpartition(":")[2] for _, reference in options.layers),
        options.version,
        device=options.device,
        framework=framework or "numpy",
        options=options.options,
        arithmetic={"accumulate": options.accumulate, "depth": "any"} if options.accumulate else None,
    )


if __name__ == "__main__":
    main()
