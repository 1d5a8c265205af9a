"""The scan in Triton compiled for GPUs that are not there: does every kernel compile, and what does it occupy?"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_scan import run, scan_inputs
from torch import Tensor

from nnunet_echo.ops.selective_scan import triton

pytestmark = pytest.mark.triton

# Kernels, and how often a forward and a backward launch them.
KERNELS = {"chunk_ends": 2, "combine_chunks": 2, "outputs": 1, "gradients": 1}


class Compiler:
    """Stands for a kernel: compiles it for a GPU that is not there, for the arguments that a launch gets."""

    def __init__(self, kernel: object, capability: int, folder: Path) -> None:
        self.kernel, self.capability, self.folder, self.reports = kernel, capability, folder, []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert all(size > 0 for size in grid)
        return self.compile

    def compile(self, *arguments: object, **options: object) -> None:
        from triton import compile
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        names = self.kernel.arg_names
        values = [*arguments, *(options.pop(name) for name in names[len(arguments) :])]
        constants, attributes = {}, {}
        types = {}
        for parameter, value in zip(self.kernel.params, values, strict=True):
            path, constant = (parameter.num,), parameter.is_constexpr
            types[parameter.name] = specialise(value, path, constants, attributes, constant)
        source = ASTSource(self.kernel, types, constants, attributes)
        compiled = compile(source, GPUTarget("cuda", self.capability, 32), options)
        report = self.resources(compiled.asm["cubin"])
        sys.stdout.write(f"sm_{self.capability} {self.kernel.__name__}: {report}\n")
        self.reports.append(report)

    def resources(self, cubin: bytes) -> dict[str, int]:
        """Registers of a thread, bytes of its stack (registers that had to be spilled), bytes of shared memory."""
        import triton

        file = self.folder / "kernel.cubin"
        file.write_bytes(cubin)
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        report = subprocess.run([tool, "-res-usage", file], check=True, capture_output=True, text=True).stdout
        return {name: int(re.search(rf"{name}:(\d+)", report).group(1)) for name in ("REG", "STACK", "SHARED")}


def specialise(
    value: object, path: tuple[int, ...], constants: dict, attributes: dict, constant: bool = False
) -> object:
    """Triton's name for an argument's type; notes by path what is constant or a multiple of 16, as a launch would."""
    if isinstance(value, tuple):
        return type(value)(*(specialise(x, (*path, i), constants, attributes) for i, x in enumerate(value)))
    if constant or value is None or (type(value) is int and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, Tensor) or value % 16 == 0:
        attributes[path] = [["tt.divisibility", 16]]
    return "*fp32" if isinstance(value, Tensor) else "i32"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize(("capability", "reverse"), [(80, True), (90, False)])
def test_it_compiles_for_gpus(capability: int, reverse: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from nnunet_echo.ops.selective_scan import _triton_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton, "why_not", lambda *_: None)
    monkeypatch.setattr(triton, "_multiprocessors", lambda _: 108)
    compilers = {name: Compiler(getattr(kernels, name), capability, tmp_path) for name in KERNELS}
    for name, compiler in compilers.items():
        monkeypatch.setattr(kernels, name, compiler)
    inputs = scan_inputs(batch=1, channels=64, length=1024, dtype=torch.float32)
    run(inputs, "triton", delta_softplus=True, reverse=(reverse,))
    assert {name: len(compiler.reports) for name, compiler in compilers.items()} == KERNELS
    for name, compiler in compilers.items():
        for report in compiler.reports:
            assert report["REG"] <= 128, name  # 16 warps on a multiprocessor
            assert report["STACK"] <= 160, name
            assert report["SHARED"] <= 8192, name
