"""A server in the foreground of make ends with it, children included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SERVER = "import subprocess, sys, time; subprocess.Popen(['sleep', '613']); print('up', flush=True); time.sleep(60)"


def sleepers(group: int) -> list[str]:
    """Processes of a session that still run."""
    found = subprocess.run(["ps", "-o", "stat=", "-s", str(group)], capture_output=True, text=True, check=False)
    return [state for state in found.stdout.split() if not state.startswith("Z")]


def _heeds_interrupts() -> None:
    """A shell's background job ignores SIGINT and so do its children; these tests may run in one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whom", ["make", "group"])
def test_a_signal_to_make_or_to_its_group_ends_server_and_children(
    sign: int, whom: str, tmp_path: Path, root: Path
) -> None:
    (tmp_path / "server.py").write_text(f"import os\nopen('pid', 'w').write(str(os.getpid()))\n{SERVER}\n")
    command = f"@exec {sys.executable} -m pipelines.foreground {sys.executable} server.py"
    (tmp_path / "Makefile").write_text(f"serve:\n\t{command}\n")
    # the tests may themselves run under make, which would have this one announce its folder
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment = {**outside, "PYTHONPATH": str(root)}
    make = subprocess.Popen(
        ["make", "serve"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_heeds_interrupts,  # noqa: PLW1509 - no threads here
    )
    assert make.stdout is not None
    assert make.stdout.readline() == b"up\n"
    server = int((tmp_path / "pid").read_text())
    (os.kill if whom == "make" else os.killpg)(make.pid, sign)
    make.wait(20)
    until = time.monotonic() + 5
    while sleepers(server) and time.monotonic() < until:
        time.sleep(0.1)
    assert not sleepers(server)


def test_a_server_that_ends_by_itself_hands_its_status_on(root: Path) -> None:
    command = [sys.executable, "-m", "pipelines.foreground", sys.executable, "-c", "raise SystemExit(3)"]
    assert subprocess.run(command, cwd=root, check=False).returncode == 3
