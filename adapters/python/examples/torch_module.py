#!/usr/bin/env python3
"""A torch.nn.Module of one's own, served to normative, gradients included.

Judge it with: normative check --subject 'python3 adapters/python/examples/torch_module.py'
"""

import torch

import normative
import normative_torch


class MyRMSNorm(torch.nn.Module):  # the layer to be judged: import yours instead
    def __init__(self, shape, eps):
        super().__init__()
        self.dimensions, self.eps = tuple(range(-len(shape), 0)), eps
        self.scale = torch.nn.Parameter(torch.ones(shape))

    def forward(self, x):
        if not self.dimensions or x.shape[-len(self.dimensions) :] != self.scale.shape:
            raise ValueError(f"an input of shape {list(x.shape)} for a scale of shape {list(self.scale.shape)}")
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        eps = torch.finfo(wide.dtype).eps if self.eps is None else self.eps
        y = wide * torch.rsqrt(wide.square().mean(self.dimensions, keepdim=True) + eps)
        return (y * self.scale).to(x.dtype)


@normative.operation("rms_norm", dtypes=["F64", "F32", "F16", "BF16"])
def rms_norm(request):
    module = MyRMSNorm(request.parameters["normalized_shape"], request.parameters["eps"])
    return normative_torch.call(module, request, names={"weight": "scale"})


if __name__ == "__main__":
    options = ["gradients", "double_backward", "channels_last", "strided"]
    normative.serve(name="my RMS norm", version="1", framework="torch", options=options)
