"""Takes the machine code of ATen's normalization kernels out of PyTorch's wheel, into a cache outside the repository.

    python extract.py --architecture sm_80

libtorch_cuda.so holds some hundred modules for each architecture. Those that have a kernel named below are listed with
`cuobjdump`, which the triton wheel brings, and the listing of each kernel becomes a file. Only kernels of ATen are looked
at, whose source is public under the BSD license; cuDNN and cuBLAS are other libraries and stay closed.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .errors import NotExtracted
from .sass import Kernel

ARCHITECTURES = ("sm_80", "sm_90")

#: What a module is recognized by.
MARKS = (
    b"vectorized_layer_norm_kernel",
    b"batch_norm_collect_statistics_kernel",
    b"RowwiseMomentsContiguousCUDAKernel",
)

#: The name of a kernel here, and what its mangled name contains. `Iff` means float with float accumulators.
KERNELS = {
    "layer_norm": r"28vectorized_layer_norm_kernelIffLb0E",
    "layer_norm_moments": r"24RowwiseMomentsCUDAKernelIffLb0E",
    "layer_norm_apply": r"26LayerNormForwardCUDAKernelIffLb0E",
    "layer_norm_grad_input": r"28layer_norm_grad_input_kernelIffLb0E",
    "layer_norm_grad_input_vectorized": r"39layer_norm_grad_input_kernel_vectorizedIffLb0E",
    "rms_norm": r"28vectorized_layer_norm_kernelIffLb1E",
    "rms_norm_moments": r"24RowwiseMomentsCUDAKernelIffLb1E",
    "rms_norm_apply": r"26LayerNormForwardCUDAKernelIffLb1E",
    "rms_norm_grad_input": r"28layer_norm_grad_input_kernelIffLb1E",
    "rms_norm_grad_input_vectorized": r"39layer_norm_grad_input_kernel_vectorizedIffLb1E",
    **{
        f"{norm}_grad_weight_{rows}{'_aligned' if aligned else ''}": r"35GammaBetaBackwardCUDAKernelTemplateIff"
        rf"Lj32ELj{height}ELj{rows}ELb{int(height == 1)}ELb{aligned}ELb{rms}E"
        for norm, rms in (("layer_norm", 0), ("rms_norm", 1))
        for height, rows in ((1, 8), (8, 64), (16, 128), (32, 256))
        for aligned in (0, 1)
    },
    "batch_norm_statistics": r"36batch_norm_collect_statistics_kernelINS0_3VarEfffiE",
    "batch_norm_update": r"unrolled_elementwise_kernel_for_multi_outputsILi3E.*batch_norm_update_stats_and_invert"
    r".*UlffffE.*TrivialOffset",
    "batch_norm_invert": r"vectorized_elementwise_kernelILi4E.*batch_norm_calc_invstd.*UlfE",
    "batch_norm_transform": r"33batch_norm_transform_input_kernelIfffLb1EiE",
    "batch_norm_backward": r"26batch_norm_backward_kernelIfffiE",
    "batch_norm_statistics_channels_last": r"50batch_norm_collect_statistics_channels_last_kernelINS0_3VarEffLi4E",
    "batch_norm_transform_channels_last": r"47batch_norm_transform_input_channels_last_kernelIfffLi4E",
    "batch_norm_reduce_channels_last": r"47batch_norm_backward_reduce_channels_last_kernelILi4EfffE",
    "batch_norm_grad_input_channels_last": r"46batch_norm_backward_elemt_channels_last_kernelILi4EfffEEvPKT0_S4_PKT1_S7_"
    r"PKT2_S7_S7_PS2_S5_ii$",
    "group_norm_moments_1": r"34RowwiseMomentsContiguousCUDAKernelILi1EffE",
    "group_norm_moments_4": r"34RowwiseMomentsContiguousCUDAKernelILi4EffE",
    "group_norm_fold": r"28ComputeFusedParamsCUDAKernelIffE",
    "group_norm_plain": r"vectorized_elementwise_kernelILi4E.*27GroupNormKernelImplInternalIffE.*UlfffE0_",
    "group_norm_folded": r"vectorized_elementwise_kernelILi4E.*27GroupNormKernelImplInternalIffE.*UlfffE1_",
    "group_norm_backward_sums_1": r"44ComputeInternalGradientsContiguousCUDAKernelILi1EfE",
    "group_norm_backward_sums_4": r"44ComputeInternalGradientsContiguousCUDAKernelILi4EfE",
    "group_norm_backward_fold": r"36ComputeBackwardFusedParamsCUDAKernelIfE",
    "group_norm_backward_weight": r"28GammaBetaBackwardCUDAKernel1IfE",
    "group_norm_backward_input": r"vectorized_elementwise_kernelILi4E.*35GroupNormBackwardKernelImplInternalIfE.*UlfffffE_",
    "group_norm_backward_scale": r"vectorized_elementwise_kernelILi4E.*35GroupNormBackwardKernelImplInternalIfE.*UlffE_",
    "group_norm_backward_1d_fold": r"38Compute1dBackwardFusedParamsCUDAKernelIfE",
    "group_norm_backward_1d_weight": r"30GammaBeta1dBackwardCUDAKernel1IfE",
    "group_norm_backward_1d_input": r"vectorized_elementwise_kernelILi4E.*19GroupNorm1dBackwardIfE.*UlffffffE_",
    "group_norm_backward_1d_input_plain": r"vectorized_elementwise_kernelILi4E.*19GroupNorm1dBackwardIfE.*UlfffffE_",
    "group_norm_1d": r"vectorized_elementwise_kernelILi4E.*18GroupNorm1dForwardIffE.*UlfffE_",
    "group_norm_1d_weight": r"vectorized_elementwise_kernelILi4E.*18GroupNorm1dForwardIffE.*UlffffE_",
    "group_norm_1d_bias": r"vectorized_elementwise_kernelILi4E.*18GroupNorm1dForwardIffE.*UlffffE0_",
    "group_norm_1d_weight_bias": r"vectorized_elementwise_kernelILi4E.*18GroupNorm1dForwardIffE.*UlfffffE_",
}


def torch_version() -> str:
    try:
        return importlib.metadata.version("torch").split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        raise NotExtracted("PyTorch is not installed") from None


def cache(architecture: str) -> Path:
    """Where listings are kept: $NORMATIVE_CACHE, else the user's cache folder."""
    own = os.environ.get("NORMATIVE_CACHE")
    if own:
        root = Path(own)
    elif sys.platform == "darwin":
        root = Path.home() / "Library/Caches/normative"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "normative"
    return root / "cuda_simulator" / f"torch-{torch_version()}" / architecture


@functools.cache
def kernel(name: str, architecture: str) -> Kernel:
    path = cache(architecture) / f"{name}.sass"
    try:
        mangled, listing = path.read_text().split("\n", 1)
    except FileNotFoundError:
        message = f"no code of {name} for {architecture}; run: python extract.py --architecture {architecture}"
        raise NotExtracted(message) from None
    return Kernel.parse(mangled, architecture, listing)


def digest(architecture: str) -> str:
    """A name for the code in the cache: what an answer depends on beside this program."""
    folder, code = cache(architecture), hashlib.sha256()
    for name in sorted(KERNELS):
        path = folder / f"{name}.sass"
        if not path.exists():
            raise NotExtracted(
                f"no code of {name} for {architecture}; run: python extract.py --architecture {architecture}"
            )
        code.update(path.read_bytes())
    return code.hexdigest()[:16]


def extract(architecture: str) -> list[str]:
    """Fills the cache and gives the names of the kernels."""
    library, tool = _library(), _tool()
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([tool, "-xelf", architecture, library], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for module in sorted(Path(folder).iterdir()):
            data = module.read_bytes()
            if any(mark in data for mark in MARKS):
                for mangled, listing in _functions(tool, module):
                    for name, pattern in KERNELS.items():
                        if re.search(pattern, mangled):
                            if name in found:
                                raise NotExtracted(f"two kernels are called {name}: this is another PyTorch")
                            found[name] = f"{mangled}\n{listing}\n"
    if missing := KERNELS.keys() - found.keys():
        raise NotExtracted(f"{library} has no {', '.join(sorted(missing))} for {architecture}: this is another PyTorch")
    target = cache(architecture)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        (target / f"{name}.sass").write_text(text)
    return sorted(found)


def _functions(tool: str, module: Path) -> list[tuple[str, str]]:
    text = subprocess.run([tool, "-sass", str(module)], check=True, capture_output=True, text=True).stdout
    functions = []
    for part in re.split(r"\n\s*Function : ", text)[1:]:
        mangled, rest = part.split("\n", 1)
        lines = [line for line in rest.split("\n") if re.match(r"\s+/\*[0-9a-f]{4,}\*/", line)]
        stripped = (re.sub(r"/\*.*?\*/", "", line).strip() for line in lines)
        functions.append((mangled.strip(), "\n".join(line for line in stripped if line)))
    return functions


def _library() -> str:
    return str(_package("torch") / "lib/libtorch_cuda.so")


def _tool() -> str:
    return str(_package("triton") / "backends/nvidia/bin/cuobjdump")


def _package(name: str) -> Path:
    """The folder of a package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise NotExtracted(f"{name} is not installed; PyTorch's CUDA wheel brings it")
    return Path(spec.origin).parent
