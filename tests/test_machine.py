"""What a process says of itself."""

import subprocess
import sys
import time

TICK = 0.02
"""The system counts a process's start in hundredths of a second."""


def test_a_process_knows_when_it_was_started():
    """Before its interpreter and its imports: the clock is one for all processes."""
    before = time.monotonic()
    code = "import time, advisor.machine as m; print(m.process_began(), time.monotonic())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    began, imported = map(float, done.stdout.split())
    assert before - TICK <= began < imported


def test_where_the_system_does_not_say_it_is_the_time_of_the_import(monkeypatch):
    from advisor import machine

    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert machine.process_began() <= time.monotonic()
