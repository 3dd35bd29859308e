"""Turns a layer into a handler: a function or a ``torch.nn.Module`` is called with what its parameters name.

A layer is one of

- a function of arrays, ``def layer_norm(input, normalized_shape, weight, bias, eps)``: it returns the output, or a dict
  of tensors;
- a ``torch.nn.Module`` class, or a function that builds a module, ``def build(normalized_shape, eps)``: the module gets
  the request's parameters and buffers and is called;
- a handler, ``def layer_norm(request)``, as `normative.operation` registers it.

A parameter may be named as a hyper-parameter or a tensor of the operation (``None`` where it was not sent), and as what
PyTorch's modules want to know: `num_features`, `affine` and the others of `_described`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from . import STATE, Handler, Request, Unsupported, is_torch

__all__ = ["Layer", "NotImportable", "handler", "is_module_class", "load", "reference"]

#: A handler, a function of arrays, a module class, or a function that builds a module.
Layer = Callable[..., Any]

#: The tensors that a layer may name besides its input; what was not sent is None.
TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "u", "v", "conv_bias")


class NotImportable(TypeError):
    """The layer is judged in another process, which has to find it by a name."""


# ---------------------------------------------------------------------------------------------------------------------
# References: a layer's name in another process.


def reference(layer: Layer | str) -> str:
    """``package.module:attribute``, or ``file.py:attribute`` where the module cannot be imported by name.

    Raises `NotImportable` for what has no name: a lambda, a function within a function, an object.
    """
    if isinstance(layer, str):
        if ":" not in layer:
            raise NotImportable(f"{layer!r} is no reference; one is package.module:attribute or file.py:attribute")
        return layer
    name, module = getattr(layer, "__qualname__", None), sys.modules.get(getattr(layer, "__module__", None) or "")
    if not isinstance(name, str) or module is None:
        hint = "pass its class, or a top-level function that builds it: the suite asks for other sizes and eps as well"
        raise NotImportable(f"a {type(layer).__name__} cannot be imported by name; {hint}")
    if "<" in name:
        kind = "a lambda" if name.endswith("<lambda>") else "defined within a function"
        raise NotImportable(f"{name} is {kind}; define it at the top level of a module, where another process finds it")
    if _attribute(module, name) is not layer:
        raise NotImportable(f"{module.__name__}.{name} is another object than the one given; pass that one")
    file = getattr(module, "__file__", None)
    if _is_found(module, file):
        return f"{module.__name__}:{name}"
    if file is None:
        raise NotImportable(f"{name} belongs to no file: it was typed in, or made by a program")
    return f"{file}:{name}"


def _is_found(module: ModuleType, file: str | None) -> bool:
    """Whether importing the module's name gives the module: not so for a script, and for some of pytest's."""
    if module.__name__ == "__main__":
        return False
    owner = module.__name__.rpartition(".")[0]
    path = getattr(sys.modules.get(owner), "__path__", None) if owner else None
    for finder in sys.meta_path if path is not None or not owner else []:
        spec = finder.find_spec(module.__name__, path)
        if spec is not None:
            return spec.origin == file or (spec.origin is not None and file is not None and _same(spec.origin, file))
    return False


def _same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _attribute(module: ModuleType, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def load(reference: str) -> Layer:
    """The layer that a reference names."""
    place, _, name = reference.rpartition(":")
    if place.endswith(".py"):
        path = Path(place).resolve()
        if not path.is_file():
            raise NotImportable(f"there is no file {place}")
        sys.path.insert(0, str(path.parent))  # as for a script
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    elif place:
        module = importlib.import_module(place)
    else:
        raise NotImportable(f"{reference!r} is no reference; one is package.module:attribute or file.py:attribute")
    layer = _attribute(module, name)
    if not callable(layer):
        raise NotImportable(f"{place} has no layer {name}" if layer is None else f"{reference} cannot be called")
    return layer  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------------------------------
# Handlers.


def is_module_class(layer: object) -> bool:
    """Whether it is a class of torch.nn.Module; torch is not imported for it."""
    return isinstance(layer, type) and any(base.__module__.startswith("torch.nn.") for base in layer.__mro__)


def handler(layer: Layer, names: Mapping[str, str] | None = None) -> Handler:
    """The handler that calls a layer with what its parameters name.

    ``names`` says what a module calls its parameters where it has other names, ``{"weight": "scale"}``.
    """
    signature = inspect.signature(layer)
    if list(signature.parameters) == ["request"]:
        return layer

    def handle(request: Request) -> Mapping[str, Any]:
        _takes_all(layer, signature, request)
        values = arguments(layer, signature, request)
        if _wants_gradients(layer, request):
            return _call_module(_function_module(layer, signature, request), request, {})
        result = layer(**values)
        if hasattr(result, "register_parameter"):  # a torch.nn.Module
            return _call_module(result, request, names or {})
        if isinstance(result, tuple | list):
            raise TypeError(f"{_name(layer)} returns a {type(result).__name__}; it returns the output, or a dict")
        answer = dict(result) if isinstance(result, Mapping) else {"output": result}
        # A function may change the running statistics in place, as torch.nn.functional.batch_norm does.
        return {**request.state, **answer}

    return handle


def arguments(layer: Layer, signature: inspect.Signature, request: Request) -> dict[str, Any]:
    """A value for each parameter that has one; those that have none keep their defaults."""
    known = {**dict.fromkeys(TENSORS), **_described(request), **request.parameters, **request.tensors}
    if isinstance(layer, type):  # what a module is built with: flags, not tensors
        known.update({name: request.tensors.get(name) is not None for name in ("weight", "bias")})
    known.update(x=request.tensors.get("input"), request=request)
    values = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind == parameter.POSITIONAL_ONLY:
            raise TypeError(f"{_name(layer)} takes {name} by position alone; it is called by names")
        if name in known:
            values[name] = known[name]
        elif parameter.default is parameter.empty:
            wanted = ", ".join(sorted(set(known) - set(TENSORS) | set(request.tensors)))
            raise TypeError(f"{_name(layer)} needs {name!r}, which {request.name} has not; it has {wanted}")
    return values


def _described(request: Request) -> dict[str, Any]:
    """What PyTorch's modules are built with, besides the hyper-parameters of the protocol."""
    shape, affine = request.tensors["input"].shape, "weight" in request.tensors
    channels = int(shape[1]) if len(shape) > 1 else int(shape[0]) if len(shape) else 0
    return {
        "num_features": channels,
        "num_channels": channels,
        "affine": affine,
        "elementwise_affine": affine,
        "track_running_stats": "running_mean" in request.tensors,
        "training": request.mode == "train",
        "mode": request.mode,
        "gradients": request.gradients,
        "grad_output": request.tensors.get("grad_output.output"),
    }


def _takes_all(layer: Layer, signature: inspect.Signature, request: Request) -> None:
    """A function that has no parameter for a tensor cannot have looked at it."""
    parameters = signature.parameters
    open_ended = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    if isinstance(layer, type) or open_ended or not {"input", "x"} & set(parameters):
        return  # it builds a module
    for name in (*TENSORS[:2], *STATE.get(request.name, ())):
        if name in request.tensors and name not in parameters:
            raise Unsupported(f"{_name(layer)} has no parameter {name}")


def _name(layer: Layer) -> str:
    return getattr(layer, "__name__", type(layer).__name__)


# ---------------------------------------------------------------------------------------------------------------------
# PyTorch: imported where a request has torch tensors, and not before.


def _wants_gradients(layer: Layer, request: Request) -> bool:
    """Whether a function of torch tensors is to be differentiated: it then becomes a module.

    Another one returns its gradients itself, where ``gradients`` asks for them.
    """
    takes_input = bool({"input", "x"} & set(inspect.signature(layer).parameters))
    return request.gradients and takes_input and is_torch(request.tensors["input"])


def _call_module(module: Any, request: Request, names: Mapping[str, str]) -> Mapping[str, Any]:
    import normative_torch

    return normative_torch.call(module, request, names)


def _function_module(layer: Layer, signature: inspect.Signature, request: Request) -> Any:
    """A module whose forward is the function: autograd sees its parameters, and state it returns becomes buffers."""
    import torch

    class Function(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in TENSORS:
                setattr(self, name, None)

        def forward(self, x: torch.Tensor) -> Any:
            own = {name: getattr(self, name) for name in TENSORS}
            tensors = {"input": x, **{name: tensor for name, tensor in own.items() if tensor is not None}}
            result = layer(**arguments(layer, signature, dataclasses.replace(request, tensors=tensors)))
            if not isinstance(result, Mapping):
                return result
            for name in STATE.get(request.name, ()):
                if name in result:
                    setattr(self, name, result[name])
            return {name: tensor for name, tensor in result.items() if name not in STATE.get(request.name, ())}

    return Function()
