#!/usr/bin/env python3
"""fvcore as a subject: update_bn_stats, the precise statistics of a batch norm.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 tqdm
    venv/bin/pip install --no-deps fvcore==0.1.5.post20221221 iopath yacs tabulate termcolor portalocker
    normative check --subject 'venv/bin/python adapters/python/fvcore_layers.py'

The input is cut into batches, a model of one batch norm is shown them, and its running statistics are the answer. They are
computed without gradients.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

import normative

normative.take_pipe()

try:
    import torch
    from fvcore.nn.precise_bn import update_bn_stats
except ImportError as error:
    print(f"fvcore_layers.py: fvcore or PyTorch cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

import normative_torch


@normative.operation("precise_batch_norm_statistics", dtypes=["F64", "F32"])
def precise_batch_norm_statistics(request: normative.Request) -> dict[str, Any]:
    x, splits = request.tensors["input"], request.parameters["splits"]
    try:
        model = torch.nn.BatchNorm1d(x.shape[1], dtype=x.dtype).train()
        update_bn_stats(model, torch.split(x, splits), len(splits))
    except Exception as error:
        raise normative_torch.outcome(error, request) from error
    return {"running_mean": model.running_mean, "running_var": model.running_var}


if __name__ == "__main__":
    normative_torch.serve("fvcore", version("fvcore"), "Apache-2.0", ["channels_last", "strided"])
