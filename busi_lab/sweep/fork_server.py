"""Processes of our programs without the seconds of imports: forked from a server that has imported what they need.

The server is a process of its own, started by :class:`ForkServer`. It has imported torch, Lightning and this package,
has run no operator, never touches CUDA and holds one thread alone, so that a fork of it is as good as a new process:
a job gives the same bytes. It ends when its client does. Jobs are not its concern: they watch the sweep by a pipe
that they inherit (:func:`busi_lab.run.stop.sweep_has_died`).

Client and server speak JSON over a socket that keeps the borders of messages. Files travel beside a message.
"""

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_PRELOADED = ("busi_lab.train", "busi_lab.evaluate", "busi_lab.run.fit", "busi_lab.run.evaluation")
_MESSAGE = 1 << 18  # bytes at most
_FILES = 8  # beside one message


class ServedProcess:
    """A process that the server has forked.

    Attributes:
        pid: of the process.
        returncode: its exit code, -N where signal N has killed it; None while it runs.
    """

    def __init__(self, server: "ForkServer", number: int) -> None:
        self._server, self._number = server, number
        self._started, self._ended = threading.Event(), threading.Event()
        self.pid: int | None = None
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; its exit code.

        Raises:
            TimeoutError: it runs longer than ``timeout`` seconds.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"process {self.pid} still runs after {timeout} seconds")
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Send a signal; does nothing where the process has ended."""
        if self.returncode is None:
            self._server.send({"signal": self._number, "signum": int(signum)})

    def terminate(self) -> None:
        """Ask it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _note(self, message: Mapping[str, Any]) -> None:
        if "pid" in message:
            self.pid = message["pid"]
            self._started.set()
        if "code" in message:
            self.returncode = message["code"]
            self._ended.set()

    def _lose(self) -> None:
        """The server has died: end the process, since nobody would learn how it ends."""
        if self.returncode is None:
            if self.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
            self._note({"pid": self.pid, "code": -signal.SIGKILL})


class ForkServer:
    """The client: starts the server, and processes through it. May be used by several threads."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # one thread alone: OpenBLAS would start more while numpy is imported
        variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "busi_lab.sweep.fork_server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=variables,
                start_new_session=True,  # Ctrl-C is the client's affair
            )
        self._lock = threading.Lock()
        self._served: dict[int, ServedProcess] = {}
        self._dead = False
        self._reader = threading.Thread(target=self._read, name="fork server", daemon=True)
        self._reader.start()

    def start(
        self,
        program: str,
        arguments: Sequence[str],
        environment: Mapping[str, str | None] | None = None,
        output: IO[Any] | None = None,
        cwd: Path | None = None,
        keep: Sequence[int] = (),
    ) -> ServedProcess:
        """Start a program in a process of its own, in a session of its own.

        Args:
            program: module with a function ``main(argv)``, such as ``busi_lab.train``.
            arguments: the command line without the program's name.
            environment: variables that are set beside those of this process as it is now; None removes one.
            output: takes what the process prints; None for the output of this process.
            cwd: working directory; None for this process's own.
            keep: files that the process inherits under their numbers.
        """
        with self._lock:
            process = ServedProcess(self, len(self._served))
            self._served[process._number] = process
        request = {
            "start": process._number,
            "program": program,
            "arguments": list(arguments),
            "environment": {**os.environ, "OPENBLAS_NUM_THREADS": "1", **(environment or {})},
            "cwd": str(cwd or Path.cwd()),
            "keep": list(keep),
        }
        outputs = [output.fileno()] * 2 if output else [1, 2]
        self.send(request, [*outputs, *keep])
        if self._dead:
            process._lose()
        process._started.wait()
        return process

    def send(self, message: Mapping[str, Any], files: Sequence[int] = ()) -> None:
        """Send a message, and open files beside it."""
        try:
            with self._lock:
                socket.send_fds(self._socket, [json.dumps(message).encode()], list(files))
        except OSError as error:
            if isinstance(error, ConnectionError):
                return  # the server has died, which the reader notices
            raise

    def _read(self) -> None:
        while True:
            try:
                content = self._socket.recv(_MESSAGE)
            except OSError:
                content = b""
            if not content:
                break
            message = json.loads(content)
            self._served[message["number"]]._note(message)
        self._dead = True
        for process in list(self._served.values()):
            process._lose()

    def close(self) -> None:
        """End the server; processes that still run are not waited for."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._reader.join()
        self._socket.close()


class _Request:
    """What a forked process is to become."""

    def __init__(self, message: Mapping[str, Any], files: Sequence[int]) -> None:
        self._message, self._files = message, files

    def close(self) -> None:
        """Close the files in the server, which has no use for them."""
        for file in self._files:
            os.close(file)

    def run(self) -> None:
        """Become the program; in the forked process alone. Returns or raises as its ``main`` does."""
        message = self._message
        os.setsid()
        for number, file in zip((1, 2, *message["keep"]), self._free(), strict=True):
            os.dup2(file, number)
            os.close(file)
        os.chdir(message["cwd"])
        os.environ.clear()
        os.environ.update({key: value for key, value in message["environment"].items() if value is not None})
        import torch

        if threads := os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(int(threads.split(",")[0]))
        else:
            torch.set_num_threads(torch.get_num_threads())
        program = importlib.import_module(message["program"])
        # Lightning starts further ranks by the name of the main module and the arguments of the process
        sys.modules["__main__"] = program
        sys.argv = [message["program"], *message["arguments"]]
        program.main(message["arguments"])

    def _free(self) -> list[int]:
        """The files under numbers that are out of the way of those that they are to have."""
        import fcntl

        above = max((2, *self._message["keep"], *self._files)) + 1
        moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, above) for file in self._files]
        self.close()
        return moved


class _Server:
    """Forks processes on demand and says how they end."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._numbers: dict[int, int] = {}  # of the client, by process id
        self._waking, self._woken = os.pipe()
        for end in (self._waking, self._woken):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(self._woken)

    def serve(self) -> _Request | None:
        """Serve until the client ends (None), or, in a forked process, give what it is to become."""
        with selectors.DefaultSelector() as selector:
            for file in (self._socket, self._waking):
                selector.register(file, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj == self._waking:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._waking, 4096)
                        self._reap()
                        continue
                    content, files, _, _ = socket.recv_fds(self._socket, _MESSAGE, _FILES)
                    if not content:
                        return None
                    if request := self._obey(json.loads(content), files):
                        return request

    def _obey(self, message: Mapping[str, Any], files: Sequence[int]) -> _Request | None:
        if "signal" in message:
            for process, number in self._numbers.items():
                if number == message["signal"]:
                    os.kill(process, message["signum"])  # it is there until it has been reaped, by this thread
            return None
        request = _Request(message, files)
        process = os.fork()
        if process == 0:
            self._leave()
            return request
        request.close()
        self._numbers[process] = message["start"]
        self._send({"number": message["start"], "pid": process})
        return None

    def _reap(self) -> None:
        for process in list(self._numbers):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                code = os.waitstatus_to_exitcode(status)
                self._send({"number": self._numbers.pop(process), "pid": process, "code": code})

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # the client has ended
            self._socket.send(json.dumps(message).encode())

    def _leave(self) -> None:
        """Be no server any more, in a forked process."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._socket.close()
        for end in (self._waking, self._woken):
            os.close(end)


def main() -> None:
    """Import what jobs need, then serve the client at the other end of the socket whose number is given."""
    for module in _PRELOADED:
        importlib.import_module(module)
    from hydra.core.plugins import Plugins

    Plugins.instance()  # it imports every plugin that is installed
    tasks = Path("/proc/self/task")  # a list of all threads, those of libraries too, where there is one
    threads = len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()
    if threads > 1:
        raise RuntimeError(f"the fork server holds {threads} threads; a fork would lose all but one and may hang")
    gc.freeze()  # what was imported stays shared with the forked processes
    if request := _Server(socket.socket(fileno=int(sys.argv[1]))).serve():
        request.run()


if __name__ == "__main__":
    main()
