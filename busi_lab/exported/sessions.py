"""The network of an exported run, by onnxruntime or OpenVINO. Nothing here imports torch."""

import ctypes
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from busi_lab.errors import UserError, one_line
from busi_lab.machine import thread_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Answers = Mapping[str, NDArray[np.float32]]

BACKENDS = ("auto", "torch", "onnxruntime", "openvino")
PRECISIONS = ("32", "bf16", "auto")
_HINTS = {"32": "f32", "bf16": "bf16"}
_RUNS = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}
"""Which backends run a file, the first by default."""


@dataclass(frozen=True)
class Runtime:
    """How networks are applied.

    Attributes:
        backend: ``auto``, which is what the run was saved for, ``torch``, ``onnxruntime`` or ``openvino``.
        threads: of the CPU; None for all cores that this process may use.
        precision: in which OpenVINO computes: ``32``, ``bf16``, or ``auto`` for what it finds fastest here.
    """

    backend: str = "auto"
    threads: int | None = None
    precision: str = "32"

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads={self.threads}: expected at least 1")
        for name, value, allowed in (("backend", self.backend, BACKENDS), ("precision", self.precision, PRECISIONS)):
            if value not in allowed:
                raise UserError(f"{name}={value}: expected {', '.join(allowed)}")


class Session(Protocol):
    """A network that is loaded."""

    name: str
    """The backend in a word."""

    def run(self, scans: "NDArray[np.uint8]") -> "Answers":
        """Logits by name of scans uint8 ``[N, 1, S, S]``."""


def open_session(model: Path, runtime: Runtime) -> Session:
    """Load a network.

    Raises:
        UserError: a backend that does not run this file or is not installed, or a file that it cannot load.
    """
    able = _RUNS[model.suffix]
    backend = able[0] if runtime.backend == "auto" else runtime.backend
    if backend not in able:
        raise UserError(
            f"backend={backend}: {model.parent} is an exported run ({model.name}); expected {' or '.join(able)}"
        )
    if backend == "onnxruntime" and runtime.precision != "32":
        raise UserError(f"precision={runtime.precision}: onnxruntime computes in 32 bits; choose backend openvino")
    library = require(backend)
    try:
        if backend == "onnxruntime":
            return _OnnxRuntime(library, model, runtime)
        return _OpenVino(library, model, runtime)
    except Exception as error:  # each backend raises its own
        raise UserError(f"{model} cannot be loaded by {backend} ({one_line(error)[:160]}); export it again") from None


def require(name: str) -> Any:
    """A library of the extra ``export``, imported now; none of them sends anything to anyone.

    Raises:
        UserError: it is not installed.
    """
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # both it and NNCF then do without
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{name} is needed here ({one_line(error)[:80]}): pip install 'busi-lab[export]'") from None


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux: where handlers of signals run, if not on the thread's own stack."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Put back where this thread handles signals.

    OpenVINO 2026.4 gives the thread that compiles a stack for that, and may free it with the network: the next Ctrl-C
    or SIGTERM then was a segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    before, libc = _SignalStack(), ctypes.CDLL(None)
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


class _OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, library: Any, model: Path, runtime: Runtime) -> None:
        options = library.SessionOptions()
        options.intra_op_num_threads = runtime.threads or thread_count()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors alone
        self._session = library.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, scans: "NDArray[np.uint8]") -> "Answers":
        return dict(zip(self._names, self._session.run(None, {"image": scans}), strict=True))


class _OpenVino:
    name = "openvino"

    def __init__(self, library: Any, model: Path, runtime: Runtime) -> None:
        settings = {"INFERENCE_NUM_THREADS": runtime.threads or thread_count(), "PERFORMANCE_HINT": "LATENCY"}
        if runtime.precision in _HINTS:  # without it, bf16 where the CPU has it
            settings["INFERENCE_PRECISION_HINT"] = _HINTS[runtime.precision]
        with _signal_stack_kept():
            self._model = library.Core().compile_model(str(model), "CPU", settings)
        self._names = [output.get_any_name() for output in self._model.outputs]

    def run(self, scans: "NDArray[np.uint8]") -> "Answers":
        found = self._model({"image": scans})
        return {name: found[name].copy() for name in self._names}  # its own buffers are used again
