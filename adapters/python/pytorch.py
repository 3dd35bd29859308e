#!/usr/bin/env python3
"""PyTorch as a subject: the modules of torch.nn, as a user calls them.

    normative check --subject 'python3 adapters/python/pytorch.py'

Each request builds the real module, gives it the request's parameters and buffers, calls it, and hands back its output
and its buffers. What the module raises becomes a typed refusal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from unittest import mock

import normative

try:
    import torch
except ImportError as error:
    print(f"pytorch.py: PyTorch cannot be imported: {error}", file=sys.stderr)
    sys.exit(3)

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations
from torch.nn.utils.fusion import fuse_conv_bn_weights

import normative_torch
import pytorch_provenance

try:
    from torchvision.ops import FrozenBatchNorm2d
except (ImportError, OSError, RuntimeError, AttributeError):  # absent, or built for another PyTorch
    FrozenBatchNorm2d = None

DTYPES = ["F64", "F32", "F16", "BF16"]
OPTIONS = ["gradients", "double_backward", "channels_last", "strided"]
AUTOCAST = {"f16": torch.float16, "bf16": torch.bfloat16}


# --- the operations ---------------------------------------------------------------------------------------------------
# Each function builds an operation's module with the parameters and buffers absent, which is None until the request
# sends them. A further operation is a further function here, and a line in the table below.


class BatchNormOfAnyRank(_BatchNorm):
    """The module's rules without the rank that its name promises."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")


BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d, None: BatchNormOfAnyRank}
INSTANCE_NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def batch_norm(request: normative.Request) -> nn.Module:
    p = request.parameters
    build = BATCH_NORMS[p["spatial_dims"]]
    module = build(channels(request), p["eps"], p["momentum"], affine=False, track_running_stats=False)
    module.track_running_stats = tracked(request)
    return module


def sync_batch_norm(request: normative.Request) -> nn.Module:
    """Without a process group the module normalizes the batch that it has, so it is given that of all workers."""
    p, input = request.parameters, request.tensors["input"]
    if any(size < 0 for size in p["splits"]):
        raise normative.Refusal("parameter", f"a split has a negative size: {p['splits']}", request.state)
    if input.dim() > 0 and sum(p["splits"]) != input.shape[0]:
        raise normative.Refusal("shape", f"{input.shape[0]} samples cannot be split into {p['splits']}", request.state)
    module = nn.SyncBatchNorm(channels(request), p["eps"], p["momentum"], affine=False, track_running_stats=False)
    module.track_running_stats = tracked(request)
    return module


def instance_norm(request: normative.Request) -> nn.Module:
    p, sent = request.parameters, request.tensors
    dims = p["spatial_dims"]
    # The module compares the input with the number of channels that its own tensors were made for.
    vectors = [sent[name] for name in ("weight", "bias", "running_mean", "running_var") if name in sent]
    sizes = [vector.shape[0] for vector in vectors if vector.dim() > 0]
    features = sizes[0] if sizes else channels(request, unbatched=sent["input"].dim() == dims + 1)
    module = INSTANCE_NORMS[dims](features, p["eps"], p["momentum"], affine=False, track_running_stats=False)
    module.affine = "weight" in sent or "bias" in sent
    module.track_running_stats = tracked(request)
    return module


def layer_norm(request: normative.Request) -> nn.Module:
    p = request.parameters
    return nn.LayerNorm(p["normalized_shape"], p["eps"], elementwise_affine=False)


def group_norm(request: normative.Request) -> nn.Module:
    p = request.parameters
    return nn.GroupNorm(p["num_groups"], channels(request), p["eps"], affine=False)


def rms_norm(request: normative.Request) -> nn.Module:
    p = request.parameters
    return nn.RMSNorm(p["normalized_shape"], p["eps"], elementwise_affine=False)


def local_response_norm(request: normative.Request) -> nn.Module:
    p = request.parameters
    return nn.LocalResponseNorm(p["size"], p["alpha"], p["beta"], p["k"])


def cross_map_lrn(request: normative.Request) -> nn.Module:
    p = request.parameters
    return nn.CrossMapLRN2d(p["size"], p["alpha"], p["beta"], p["k"])


class Function(nn.Module):
    """A function of the input alone."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input)


def normalize(request: normative.Request) -> nn.Module:
    p = request.parameters
    return Function(lambda input: functional.normalize(input, p["p"], p["dim"], p["eps"]))


def renorm(request: normative.Request) -> nn.Module:
    p = request.parameters
    return Function(lambda input: torch.renorm(input, p["p"], p["dim"], p["maxnorm"]))


class Weight(nn.Module):
    """A weight and nothing else: what a parametrization makes of it is the output."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self) -> Tensor:
        return self.weight


def weight_norm(request: normative.Request) -> nn.Module:
    module = parametrizations.weight_norm(Weight(request.tensors["input"]), dim=request.parameters["dim"])
    return loaded(module, request)


def spectral_norm(request: normative.Request) -> nn.Module:
    """The vectors of the warm-up, which the module does when it is built, give way to the request's."""
    p = request.parameters
    weight = Weight(request.tensors["input"])
    module = parametrizations.spectral_norm(weight, "weight", p["n_power_iterations"], p["eps"], p["dim"])
    return loaded(module, request)


def frozen_batch_norm(request: normative.Request) -> nn.Module:
    if request.tensors["input"].dim() != 4:
        # It does not look: its reshaped vectors meet whatever dimension is there, and the shape of the answer changes.
        raise normative.Unsupported("FrozenBatchNorm2d is for inputs of rank 4")
    return FrozenBatchNorm2d(channels(request), request.parameters["eps"])


class FoldedConvolution(nn.Module):
    """A convolution's weight and bias with the batch norm behind it folded in."""

    conv_bias: Tensor | None
    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any

    def __init__(self, eps: float, transposed: bool) -> None:
        super().__init__()
        self.eps, self.transposed = eps, transposed
        self.conv_bias = self.weight = self.bias = self.running_mean = self.running_var = None

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        batch_norm = (self.running_mean, self.running_var, self.eps, self.weight, self.bias)
        # The function puts its results into new parameters, which have no history. The gradients asked for are those
        # of what it computes, so here its results stay as they are.
        with mock.patch.object(torch.nn, "Parameter", lambda result, requires_grad: result):
            folded = fuse_conv_bn_weights(input, self.conv_bias, *batch_norm, transpose=self.transposed)
        return dict(zip(("folded_weight", "folded_bias"), folded))


def conv_batch_norm_fold(request: normative.Request) -> nn.Module:
    p = request.parameters
    return FoldedConvolution(p["eps"], p["transposed"])


def channels(request: normative.Request, unbatched: bool = False) -> int:
    """The number of channels to build a module for; where the input has none, the module itself says so."""
    shape = request.tensors["input"].shape
    dimension = 0 if unbatched else 1
    return shape[dimension] if len(shape) > dimension else 1


def tracked(request: normative.Request) -> bool:
    return "running_mean" in request.tensors or "running_var" in request.tensors


def loaded(module: nn.Module, request: normative.Request) -> nn.Module:
    """The module with the request's tensors, loaded as a checkpoint is.

    Loading compares shapes. The kernel of weight norm does not, and reads beyond a magnitude that is too small.
    """
    names, own = NAMES[request.name], module.state_dict()
    checkpoint = {path: request.tensors[name] for name, path in names.items() if path in own}
    module.load_state_dict(checkpoint, assign=True)
    return module


OPERATIONS: dict[str, Callable[[normative.Request], nn.Module]] = {
    "batch_norm": batch_norm,
    "sync_batch_norm": sync_batch_norm,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "rms_norm": rms_norm,
    "local_response_norm": local_response_norm,
    "cross_map_lrn": cross_map_lrn,
    "normalize": normalize,
    "renorm": renorm,
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "conv_batch_norm_fold": conv_batch_norm_fold,
}
if FrozenBatchNorm2d is not None:
    OPERATIONS["frozen_batch_norm"] = frozen_batch_norm

#: What a module calls the request's tensors, where it has other names for them.
NAMES: dict[str, dict[str, str]] = {
    "weight_norm": {
        "input": "parametrizations.weight.original1",
        "weight": "parametrizations.weight.original0",
    },
    "spectral_norm": {
        "input": "parametrizations.weight.original",
        "u": "parametrizations.weight.0._u",
        "v": "parametrizations.weight.0._v",
    },
}


# --- the way they are called ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caller:
    """Answers requests with modules that are called in one way: eagerly or compiled, with or without autocast."""

    device: str = "cpu"
    compile: bool = False
    autocast: torch.dtype | None = None

    def __call__(self, request: normative.Request) -> Mapping[str, Any]:
        module = normative_torch.build(OPERATIONS[request.name], request)
        if self.autocast:
            self._cast(module, request.tensors["input"].dtype)
        if self.compile:
            module.compile(dynamic=False)
        answer = normative_torch.call(module, request, NAMES.get(request.name))
        self._check(request, answer)
        return answer

    def _cast(self, module: nn.Module, dtype: torch.dtype) -> None:
        """Calls the module under autocast. An output wider than the input is rounded, as the next layer would do it."""
        forward = module.forward

        def under_autocast(*arguments: Tensor) -> Any:
            with torch.autocast(self.device, self.autocast):
                output = forward(*arguments)
            if isinstance(output, Mapping):
                return {name: tensor.to(dtype) for name, tensor in output.items()}
            return output.to(dtype)

        module.forward = under_autocast  # type: ignore[method-assign]

    @staticmethod
    def _check(request: normative.Request, answer: Mapping[str, Any]) -> None:
        """Whether the answer is one of this protocol: torch promotes types, and broadcasts what does not fit."""
        input = request.tensors["input"]
        for name in ("output", "folded_weight"):
            if name in answer and (answer[name].dtype, answer[name].shape) != (input.dtype, input.shape):
                (dtype, shape), own = ((t.dtype, list(t.shape)) for t in (answer[name], input))
                raise normative.Unsupported(f"PyTorch answers an input of {own[0]} {own[1]} with {dtype} {shape}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the normalization layers of PyTorch to normative.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="threads on the CPU (default: 1)")
    parser.add_argument("--cudnn", choices=["on", "off"], default="on", help="whether cuDNN may be used (default: on)")
    parser.add_argument("--compile", action="store_true", help="call each module through torch.compile")
    parser.add_argument("--autocast", choices=list(AUTOCAST), help="call each module under autocast to this type")
    claims = parser.add_argument_group("what is claimed, and so asked")
    claims.add_argument("--operations", type=names_of(OPERATIONS), default=list(OPERATIONS), metavar="NAME,NAME")
    claims.add_argument("--dtypes", type=names_of(DTYPES), default=DTYPES, metavar="TYPE,TYPE")
    parser.add_argument("--repeat", type=positive, default=1, metavar="N", help="call N times and compare bit for bit")
    parser.add_argument("--kernels", metavar="FILE", help="append to FILE what ran for each request, one JSON a line")
    arguments = parser.parse_args()
    if arguments.repeat > 1 and not arguments.kernels:
        parser.error("--repeat writes what it finds into the file of --kernels")
    if arguments.device == "cuda" and (problem := pytorch_provenance.no_cuda()):
        print(f"pytorch.py: --device cuda, but {problem}", file=sys.stderr)
        sys.exit(3)
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.enabled = arguments.cudnn == "on"
    # TensorFloat-32 is for matrix products and convolutions. No norm needs it, and a conformance run must not use it.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    details = pytorch_provenance.details(arguments.device, arguments.compile, arguments.autocast)
    if "sync_batch_norm" in arguments.operations:
        details["sync_batch_norm"] = "batch norm of the whole batch in one process"
    if arguments.autocast:
        details["autocast_output"] = "rounded to the input's type"
    answer: normative.Handler = Caller(arguments.device, arguments.compile, AUTOCAST.get(arguments.autocast))
    observer = None
    if arguments.kernels:
        answer = observer = pytorch_provenance.Observer(
            answer, arguments.kernels, arguments.repeat, arguments.device, details
        )
    if arguments.compile:
        answer = pytorch_provenance.compiled_afresh(answer)

    for name in arguments.operations:
        # Folding prepares weights before anything is compiled.
        if not (arguments.compile and name == "conv_batch_norm_fold"):
            normative.operation(name, dtypes=arguments.dtypes)(answer)
    normative.serve(
        name="pytorch",
        version=torch.__version__.split("+")[0],
        device=arguments.device,
        framework="torch",
        # A compiled function cannot be differentiated twice.
        options=[option for option in OPTIONS if not (arguments.compile and option == "double_backward")],
        arithmetic={"accumulate": "F32", "depth": "any"},
        details=details,
    )
    if observer:
        observer.close()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def names_of(table: Collection[str]) -> Callable[[str], list[str]]:
    """Reads a list of names that the table has."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in table]:
            raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}, but {', '.join(table)}")
        return names

    return read


if __name__ == "__main__":
    main()
