"""Puts the modules under test and the tests' own on the path, whatever folder pytest is started from."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
