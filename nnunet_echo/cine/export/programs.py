"""A network as a program that runs without its class: PyTorch's .pt2, or ONNX.

A .pt2 keeps the package's operators (the scan in C), so this package has to be installed where it runs. ONNX gets plain
operations only. Both take (B, C, *patch) with any B and return logits (B, K, *patch).
"""

from __future__ import annotations

import importlib.util
import io
import json
import pkgutil
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_echo.cine.steps import Forward
from nnunet_echo.ops.selective_scan import traceable

FORMATS = {"pt2": ".pt2", "onnx": ".onnx"}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LARGEST_BATCH = 64
# What a program may call: PyTorch's operators and this package's, arithmetic of sizes. "torch.load" is a target, too.
_TARGETS = re.compile(r"(torch\.ops\.(aten|prims|nnunet_echo|higher_order)|_operator|math)\.[\w.]+|torch\.sym_\w+")
# SymPy's spelling of a size, which is evaluated: classes, their options, names of sizes, arithmetic.
_EXPRESSION = re.compile(r"(?!.*__)([A-Z]\w*|[a-z]+=|'\w+'|[su]\d+|[\d\s,+\-*/()<>=.])*")


def why_not(format: str) -> str | None:
    """Why a model cannot be exported in this format here; None if it can."""
    if format == "onnx":
        missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            return f"needs {', '.join(missing)}. Install them: pip install 'nnunet-echo[onnx]'."
    return None


def to_program(network: nn.Module, shape: Sequence[int], format: str) -> bytes:
    """The program of a network in evaluation mode for inputs (C, *patch) of `shape`, as the bytes of a file.

    Raises RuntimeError where PyTorch or ONNX has no form for what the network computes, with the reason.
    """
    example = torch.zeros(2, *shape)
    batch = ({0: torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)},)
    try:
        with torch.no_grad():
            if format == "pt2":
                with traceable.operators_kept():
                    program = torch.export.export(network, (example,), dynamic_shapes=batch)
                file = io.BytesIO()
                program.example_inputs = None  # the archive would pickle them
                torch.export.save(program, file)
                return file.getvalue()
            return _to_onnx(network, example, batch)
    except Exception as error:  # of any stage of PyTorch's exporters
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise RuntimeError(
            f"{type(network).__name__} cannot be exported as {format}: {type(error).__name__}: {lines[0].strip()}"
            + (". Export it as pt2." if format == "onnx" else ".")
        ) from error


def _to_onnx(network: nn.Module, example: Tensor, batch: Any) -> bytes:
    program = torch.export.export(network, (example,), dynamic_shapes=batch)
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    own = sorted({str(node.target) for graph in graphs for node in graph.nodes if "nnunet_echo" in str(node.target)})
    if own:
        raise NotImplementedError(f"ONNX has no form for {', '.join(own)}")
    with redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        converted = torch.onnx.export(program, dynamo=True, verbose=False)
        if converted is None:
            raise RuntimeError("the converter gave nothing")
        converted.save(str(path), external_data=False)
        return path.read_bytes()


def from_pt2(content: bytes, name: str) -> Forward:
    """The network of a .pt2 in memory. Raises ValueError for one that could run code, and one that is damaged."""
    try:
        _check_pt2(content)
        _register_operators()
        module = torch.export.load(io.BytesIO(content)).module()
    except _Unsafe as error:
        raise ValueError(
            f"{name}: {error}, which could run code, so it was not opened. Export the model again."
        ) from error
    except Exception as error:  # zip, JSON and PyTorch's own checks
        raise ValueError(f"{name}: is no program of PyTorch, or is cut ({error}). Export the model again.") from error

    def forward(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)

    return forward


def from_onnx(content: bytes, name: str) -> Forward:
    """The network of an ONNX file in memory, by onnxruntime, on one thread."""
    if reason := why_not("onnx"):
        raise RuntimeError(f"{name} {reason}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{name}: onnxruntime cannot read it ({error}). Export the model again.") from error
    source = session.get_inputs()[0].name

    def forward(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {source: x.numpy()})[0])

    return forward


class _Unsafe(ValueError):
    """What a program holds besides weights and operators."""


def _check_pt2(content: bytes) -> None:
    """PyTorch unpickles parts of a .pt2, evaluates expressions and calls what is named: only harmless ones pass."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        for name in names:
            if re.search(r"/data/(constants|weights)/(custom_obj|opaque)|/data/aotinductor|/extra/", f"/{name}"):
                raise _Unsafe(f"it holds {name}")
            if "/data/sample_inputs/" in f"/{name}" and archive.getinfo(name).file_size:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            if name.endswith(".json"):
                for key, value in _strings(json.loads(archive.read(name))):
                    if key == "target" and not _TARGETS.fullmatch(value):
                        raise _Unsafe(f"it calls {value}")
                    if key == "expr_str" and not _EXPRESSION.fullmatch(value):
                        raise _Unsafe(f"it evaluates {value[:80]!r}")
                    if key == "use_pickle" and value != "False":
                        raise _Unsafe("it holds pickled values")


def _strings(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each value of a JSON, as text, with the key that it is under."""
    if isinstance(content, dict):
        for inner, value in content.items():
            yield from _strings(value, inner)
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value, key)
    else:
        yield key, str(content)


def _register_operators() -> None:
    """Import the modules that define this package's operators; those of a GPU's environment may be missing."""
    import nnunet_echo.ops as ops

    for module in pkgutil.walk_packages(ops.__path__, f"{ops.__name__}."):
        with suppress(ImportError):
            importlib.import_module(module.name)
