#!/usr/bin/env python3
"""transformers as a subject: the norms of its models, as they call them.

    normative check --subject 'python3 adapters/python/transformers_layers.py'

It needs transformers beside PyTorch. Most of these layers compute in F32 whatever goes in, so F64 is not claimed; the half
types are, where the order of casts is a dialect.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import normative

try:
    import transformers
    from torch import nn
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.nemotron.modeling_nemotron import NemotronLayerNorm1P
    from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
    from transformers.models.t5.modeling_t5 import T5LayerNorm
except ImportError as error:
    print(f"transformers_layers.py: transformers or PyTorch cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

import normative_torch

RMS_NORMS: dict[str, type[nn.Module]] = {
    "llama": LlamaRMSNorm,
    "gemma": GemmaRMSNorm,
    "t5": T5LayerNorm,
    "olmo2": Olmo2RMSNorm,
}


def rms_norm(request: normative.Request) -> nn.Module:
    p = request.parameters
    shape = p["normalized_shape"]
    if len(shape) != 1 or p["eps"] is None:
        raise normative.Unsupported("transformers' RMS norms are over the last axis, and have an eps")
    if list(request.tensors["input"].shape[-1:]) != shape:
        raise normative.Refusal("shape", f"the input does not end in {shape}")
    return RMS_NORMS[request.dialect](shape[0], p["eps"])


def layer_norm_1p(request: normative.Request) -> nn.Module:
    p = request.parameters
    layer = NemotronLayerNorm1P(p["normalized_shape"], p["eps"])
    # As a new layer of the models has it: zeros.
    nn.init.zeros_(layer.weight)
    return layer


OPERATIONS: dict[str, Callable[[normative.Request], nn.Module]] = {
    "rms_norm": rms_norm,
    "layer_norm_1p": layer_norm_1p,
}


def answer(request: normative.Request) -> Mapping[str, Any]:
    module = normative_torch.build(OPERATIONS[request.name], request)
    return normative_torch.call(module, request)


def main() -> None:
    for name in OPERATIONS:
        normative.operation(name, dtypes=["F32", "F16", "BF16"], **dialects(name))(answer)
    normative_torch.serve("transformers", transformers.__version__, "Apache-2.0", ["gradients", "channels_last", "strided"])


def dialects(name: str) -> dict[str, list[str]]:
    return {"dialects": list(RMS_NORMS)} if name == "rms_norm" else {}


if __name__ == "__main__":
    main()
