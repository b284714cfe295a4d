"""What systemd is told; its socket is real, only systemd is not."""

from __future__ import annotations

import re
import socket

import pytest

from proxy.server import systemd as notify


@pytest.fixture(params=["file", "abstract"])
def systemd(request, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = str(tmp_path / "notify") if request.param == "file" else f"@tokenhub-test-{tmp_path.name}"
        sock.bind("\0" + name[1:] if name.startswith("@") else name)
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield sock


def test_what_is_told(systemd):
    notify.ready()
    assert systemd.recv(100) == b"READY=1"
    notify.reloading()
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", systemd.recv(100))
    notify.stopping()
    assert systemd.recv(100) == b"STOPPING=1"


def test_elsewhere_nothing_is_told_and_a_systemd_that_is_gone_is_no_reason_to_stop(
    monkeypatch, caplog, tmp_path
):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify.ready()
    assert not caplog.text
    notify.notify("READY=1", str(tmp_path / "nobody"))
    assert "systemd can't be notified of READY=1" in caplog.text
