"""Runs the command `cpsae` many times in processes of their own, which are forked from one that has
everything imported, and lets faults happen in them at a given operation on the disk."""

import builtins
import errno
import fcntl
import io
import itertools
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

_PIPE_BYTES = 1 << 20
_ENOUGH = 300.0
"""Seconds for any command, also on a busy machine."""
Prepare = Callable[[], None]
"""Called in the new process before the command begins."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code; of one that a signal killed, that signal with a minus."""
    output: str
    """Standard output and error."""

    @property
    def traceback(self) -> bool:
        """Whether Python had to report the error itself."""
        return "Traceback (most recent call last)" in self.output


class Command:
    """A command that runs."""

    def __init__(
        self,
        arguments: Sequence[str],
        prepare: Prepare | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # so that nobody need read meanwhile
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be_the_command(list(arguments), writing, prepare, environment or {})
        os.close(writing)

    def wait_until_stopped(self) -> bool:
        """Whether it stopped itself (SIGSTOP) before it ended."""
        self._status = os.waitpid(self.pid, os.WUNTRACED)[1]
        return os.WIFSTOPPED(self._status)

    def go_on(self) -> None:
        """After it stopped itself."""
        os.kill(self.pid, signal.SIGCONT)
        del self._status

    def end(self) -> Ended:
        """Wait for it."""
        deadline = time.monotonic() + _ENOUGH
        status = getattr(self, "_status", None)
        while status is None:
            pid, found = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                status = found
            elif time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline += _ENOUGH
            else:
                time.sleep(0.005)
        with os.fdopen(self._reading, "rb") as pipe:
            output = pipe.read().decode(errors="replace")
        return Ended(os.waitstatus_to_exitcode(status), output)


def _be_the_command(
    arguments: list[str], output: int, prepare: Prepare | None, environment: Mapping[str, str]
) -> NoReturn:
    code = 70
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), write_through=True)  # noqa: SIM115,PTH123
        sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), write_through=True)  # noqa: SIM115,PTH123
        os.environ.update(environment)
        sys.argv = ["cpsae", *arguments]
        from cpsae.cli.main import main

        if prepare is not None:
            prepare()
        main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def run(arguments: Sequence[str], prepare: Prepare | None = None) -> Ended:
    """A command, to its end."""
    return Command(arguments, prepare).end()


def at_operation(number: int, act: Callable[[], None], every: bool = False) -> Prepare:
    """Call `act` before the n-th operation that makes, syncs, renames or removes something (and,
    with `every`, before each later one too): what it raises is what the operation raises."""

    def prepare() -> None:
        counted, lock = itertools.count(1), threading.Lock()

        def count() -> None:
            with lock:
                now = next(counted)
            if now == number or (every and now > number):
                act()

        def counting(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted_call(*arguments: Any, **more: Any) -> Any:
                count()
                return call(*arguments, **more)

            return counted_call

        for name in ("fsync", "rename", "replace", "mkdir", "link"):
            setattr(os, name, counting(getattr(os, name)))
        opening = _counting_open(io.open, count)
        io.open = builtins.open = opening

    return prepare


def _counting_open(call: Callable[..., Any], count: Callable[[], None]) -> Callable[..., Any]:
    def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if set(mode) & set("wax") and not isinstance(file, int):
            count()
        return call(file, mode, *rest, **more)

    return opened


def sent(*numbers: int) -> Callable[[], None]:
    """To this process, these signals, one after another."""

    def act() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return act


def refused(code: int) -> Callable[[], None]:
    """By the operating system."""

    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act


def slow() -> None:
    """A disk that takes its time."""
    time.sleep(0.01)


def no_larger_file(size: int) -> Prepare:
    """No file may grow beyond so many bytes: a limit of the system itself."""

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return prepare


def clock_off_by(seconds: float) -> Prepare:
    """The clock jumps while the command runs."""

    def prepare() -> None:
        real, calls = time.time, itertools.count()
        time.time = lambda: real() + (seconds if next(calls) % 2 else 0)

    return prepare


REFUSALS = {
    "disk full": (errno.ENOSPC, True),
    "quota exceeded": (errno.EDQUOT, True),
    "read-only": (errno.EROFS, True),
    "no permission": (errno.EACCES, True),
    "input/output error": (errno.EIO, False),
}
"""What the system answers, and whether it goes on answering so."""
