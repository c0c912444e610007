"""SIGINT and SIGTERM: when they end a command, and how often one has to ask."""

import os
import signal
import subprocess
import sys

import pytest

from cpsae.cli import interrupts
from cpsae.cli.interrupts import Interrupted, catch_signals, deferred, interruption, raise_if_lost

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.fixture(autouse=True)
def forget():
    """Leave no signal behind for other tests."""
    yield
    interrupts._received.clear()


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_raises_and_the_handlers_come_back(number, code) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as raised, catch_signals():
        os.kill(os.getpid(), number)
    assert raised.value.exit_code == code
    assert not isinstance(raised.value, Exception)
    assert signal.getsignal(number) == before


def test_a_deferred_stop_is_asked_for_once_and_enforced_the_second_time(capfd) -> None:
    with catch_signals(), deferred() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop()
        raise_if_lost()  # a report in the meantime does not raise
        assert interruption().exit_code == 143
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
    assert (
        "stopping once what is done is safe; press again to stop at once" in capfd.readouterr().err
    )


def test_a_stop_that_a_finaliser_swallowed_is_raised_again() -> None:
    class Swallows:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted), catch_signals():
        with Quiet():
            Swallows()
        raise_if_lost()


class Quiet:
    """Mute the report of an exception that a finaliser raised."""

    def __enter__(self) -> None:
        self.hook, sys.unraisablehook = sys.unraisablehook, lambda _: None

    def __exit__(self, *_: object) -> None:
        sys.unraisablehook = self.hook


def test_a_third_signal_ends_a_process_that_does_not_listen() -> None:
    code = (
        "import os, signal, time\n"
        "from cpsae.cli.interrupts import catch_signals, Interrupted\n"
        "with catch_signals():\n"
        "    for _ in range(9):\n"
        "        try: os.kill(os.getpid(), signal.SIGINT); time.sleep(1)\n"
        "        except Interrupted: pass\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 130


@pytest.mark.parametrize("number", [number for number, _ in SIGNALS])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(number) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with catch_signals():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
