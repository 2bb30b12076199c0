"""Processes of our programs without the seconds of imports: forked from a server that has imported what they need.

The server is a process of its own, started by :class:`ForkServer`. It has imported torch, Lightning and this package,
has run no operator, never touches CUDA and holds one thread alone, so that a fork of it is as good as a new process:
a job gives the same bytes. It ends when its client does. Jobs are not its concern: they watch the sweep by a pipe
that they inherit (:func:`busi_lab.run.stop.sweep_has_died`), and go on when the server has died.

Client and server speak JSON over a socket that keeps the borders of messages. Files travel beside a message, and so
does what a process is to become, which may be larger than a message.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

LOST = 256
"""Exit code of a process whose end nobody has seen."""
PRELOADED = ("busi_lab.train", "busi_lab.evaluate", "busi_lab.run.fit", "busi_lab.run.evaluation")
_MESSAGE = 1 << 12  # bytes at most
_FILES = 8  # beside one message
_KEPT_BACK = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
# sent to a whole tree of processes, they are for the jobs


class ServerError(Exception):
    """The server cannot fork processes; the message says why."""


class ServedProcess:
    """A process that the server has forked.

    Attributes:
        pid: of the process.
        returncode: its exit code, -N where signal N has killed it, ``LOST`` where the server has died before and
            nobody knows; None while it runs.
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
            self._server.signal(self, int(signum))

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
            self._started.set()
            self._ended.set()

    def _outlive(self) -> None:
        """Wait for the end of a process whose server has died: nobody else will tell."""
        if self.pid is not None and self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                ending = os.pidfd_open(self.pid)
                select.select([ending], [], [])  # readable when the process has ended
                os.close(ending)
        if self.returncode is None:
            self._note({"code": LOST})


class ForkServer:
    """The client: starts the server, and processes through it. May be used by several threads.

    Raises:
        ServerError: this system lacks what the server needs.
    """

    def __init__(self) -> None:
        if not is_possible():
            raise ServerError("it needs Linux with process file descriptors")
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
        self._answered = threading.Event()
        self._refusal = "it has ended while it was importing"
        self._ready = self._dead = False
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

        Raises:
            ServerError: the server cannot serve, or has died; nothing was started.
        """
        self._answered.wait()
        request = {
            "program": program,
            "arguments": list(arguments),
            "environment": {**os.environ, **(environment or {})},
            "cwd": str(cwd or Path.cwd()),
            "keep": list(keep),
        }
        content = os.memfd_create("request")
        try:
            os.write(content, json.dumps(request).encode())
            with self._lock:
                if not self._ready or self._dead:
                    raise ServerError(self._refusal)
                process = ServedProcess(self, len(self._served))
                self._served[process._number] = process
            outputs = [output.fileno()] * 2 if output else [1, 2]
            self._send({"start": process._number}, [content, *outputs, *keep])
        finally:
            os.close(content)
        process._started.wait()
        if process.pid is None:
            raise ServerError(self._refusal)
        return process

    def signal(self, process: ServedProcess, signum: int) -> None:
        """Send a signal to a process; the server knows whether its number still means it."""
        if not self._dead:
            self._send({"signal": process._number, "signum": signum})
        elif process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signum)

    def _send(self, message: Mapping[str, Any], files: Sequence[int] = ()) -> None:
        with self._lock, contextlib.suppress(ConnectionError):  # the reader notices that the server has died
            socket.send_fds(self._socket, [json.dumps(message).encode()], list(files))

    def _read(self) -> None:
        while True:
            try:
                content = self._socket.recv(_MESSAGE)
            except OSError:
                content = b""
            if not content:
                break
            message = json.loads(content)
            if "number" in message:
                self._refusal = message.get("refusal", self._refusal)
                self._served[message["number"]]._note(message)
                continue
            self._ready, self._refusal = message["ready"], message.get("refusal", "it has died")
            self._answered.set()
        with self._lock:
            self._dead = True
            left = [process for process in self._served.values() if process.returncode is None]
        self._answered.set()
        for process in left:
            threading.Thread(target=process._outlive, name=f"process {process.pid}", daemon=True).start()

    def close(self) -> None:
        """End the server; processes that still run are not waited for."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._reader.join()
        self._socket.close()


def is_possible() -> bool:
    """Whether this system has what client and server need."""
    return all(hasattr(os, name) for name in ("fork", "memfd_create", "pidfd_open")) and sys.platform == "linux"


class _Request:
    """What a forked process is to become.

    Args:
        content: program, arguments, environment, folder, and the numbers of the files that it keeps.
        files: where its output goes, its errors, and the files that it keeps.
        imported: variables that libraries set while the server imported them, as they would in a new process.
    """

    def __init__(self, content: Mapping[str, Any], files: Sequence[int], imported: Mapping[str, str]) -> None:
        self._content, self._files, self._imported = content, files, imported

    def run(self) -> None:
        """Become the program; in the forked process alone. Returns or raises as its ``main`` does."""
        content = self._content
        os.setsid()
        for number, file in zip((1, 2, *content["keep"]), self._out_of_the_way(), strict=True):
            os.dup2(file, number)
            os.close(file)
        os.chdir(content["cwd"])
        wanted = {key: value for key, value in content["environment"].items() if value is not None}
        os.environ.clear()
        os.environ.update({**self._imported, **wanted})
        import torch

        # an OpenMP runtime reads its variable once, when it is loaded, which was in the server
        threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        torch.set_num_threads(int(threads) if threads.isdigit() else torch.get_num_threads())
        program = importlib.import_module(content["program"])
        # Lightning starts further ranks by the name of the main module and the arguments of the process
        sys.modules["__main__"] = program
        sys.argv = [content["program"], *content["arguments"]]
        program.main(content["arguments"])

    def _out_of_the_way(self) -> list[int]:
        """The files, under numbers that none of them is to have."""
        import fcntl

        above = max((2, *self._content["keep"], *self._files)) + 1
        moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, above) for file in self._files]
        for file in self._files:
            os.close(file)
        return moved


class _Server:
    """Forks processes on demand and says how they end."""

    def __init__(self, connection: socket.socket, imported: Mapping[str, str]) -> None:
        self._socket, self._imported = connection, imported
        self._numbers: dict[int, int] = {}  # of the client, by process id
        self._waking, self._woken = os.pipe()
        for end in (self._waking, self._woken):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(self._woken)

    def serve(self) -> _Request | None:
        """Serve until the client ends (None), or, in a forked process, give what it is to become."""
        self._send({"ready": True})
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
                    message, files, _, _ = socket.recv_fds(self._socket, _MESSAGE, _FILES)
                    if not message:
                        return None
                    if request := self._obey(json.loads(message), files):
                        return request

    def _obey(self, message: Mapping[str, Any], files: Sequence[int]) -> _Request | None:
        if "signal" in message:
            for process, number in self._numbers.items():
                if number == message["signal"]:
                    os.kill(process, message["signum"])  # it is there until it has been reaped, by this thread
            return None
        request, *inherited = files
        number = message["start"]
        # a signal between the fork and the end of _leave would be ignored there, or end the server here
        signal.pthread_sigmask(signal.SIG_BLOCK, _KEPT_BACK)
        try:
            process = os.fork()
        except OSError as error:
            self._send({"number": number, "code": 1, "refusal": f"it cannot fork ({error.strerror})"})
            process = -1
        if process == 0:
            self._leave()
            with os.fdopen(request, "rb") as file:
                file.seek(0)
                return _Request(json.loads(file.read()), inherited, self._imported)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _KEPT_BACK)
        for descriptor in files:
            os.close(descriptor)
        if process > 0:
            self._numbers[process] = number
            self._send({"number": number, "pid": process})
        return None

    def _reap(self) -> None:
        for process in list(self._numbers):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                code = os.waitstatus_to_exitcode(status)
                self._send({"number": self._numbers.pop(process), "code": code})

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # the client has ended
            self._socket.send(json.dumps(message).encode())

    def _leave(self) -> None:
        """Be no server any more, in a forked process."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in _KEPT_BACK:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _KEPT_BACK)
        self._socket.close()
        for end in (self._waking, self._woken):
            os.close(end)


def main() -> None:
    """Import what jobs need, then serve the client at the other end of the socket whose number is given."""
    for number in _KEPT_BACK:
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    before = dict(os.environ)
    for module in PRELOADED:
        importlib.import_module(module)
    from hydra.core.plugins import Plugins

    from busi_lab.run.environment import environment_record

    Plugins.instance()  # it imports every plugin that is installed
    environment_record()  # the commit of the code that jobs will run, not of what the checkout holds by then
    imported = {key: value for key, value in os.environ.items() if before.get(key) != value}
    tasks = Path("/proc/self/task")  # a list of all threads, those of libraries too
    threads = len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()
    if threads > 1:
        refusal = f"it holds {threads} threads, of which a fork would lose all but one"
        connection.send(json.dumps({"ready": False, "refusal": refusal}).encode())
        return
    gc.freeze()  # what was imported stays shared with the forked processes
    if request := _Server(connection, imported).serve():
        request.run()


if __name__ == "__main__":
    main()
