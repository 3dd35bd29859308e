#!/usr/bin/env python3
"""Fills the cache with the machine code of ATen's normalization kernels, from the installed PyTorch.

    python tools/cuda_simulator/extract.py --architecture sm_80

It takes about half a minute and, for that time, a gigabyte of temporary files.
"""

import argparse
import sys

from simulator import extract
from simulator.errors import NotExtracted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", choices=extract.ARCHITECTURES, default="sm_80")
    arguments = parser.parse_args()
    try:
        names = extract.extract(arguments.architecture)
    except NotExtracted as error:
        sys.exit(f"extract.py: {error}")
    print(f"{len(names)} kernels of PyTorch {extract.torch_version()} for {arguments.architecture}")
    print(f"{extract.cache(arguments.architecture)}, {extract.digest(arguments.architecture)}")


if __name__ == "__main__":
    main()
