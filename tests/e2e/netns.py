"""Two networks, the gateway in one and the rest in the other, and a wire that loses what it is told to.

The networks are namespaces of the kernel which have no name and are gone with the test; the wire is a thread
between two TUN devices. So it takes namespaces and TUN of the kernel, and `ip`; nothing that shapes traffic.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tests.e2e import Gateway

T = TypeVar("T")

HERE = "10.9.0.1"  # the gateway's address
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_PACKET_BYTES = 65536
_HELD_S = 0.02  # a packet that is to be overtaken arrives so much later


def why_not() -> str:
    """Why networks can't be made here; "" if they can."""
    if os.geteuid():
        return "network namespaces need root"
    if not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        return "needs ip, nsenter and unshare"
    try:
        with Network() as network:
            os.close(network.tun())
    except OSError as error:
        return f"no network namespace with a TUN device: {error}"
    return ""


def _in_thread(function: Callable[[], T]) -> T:
    """A thread that goes into another network never comes back."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def _call(name: str, *args: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*args):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Network:
    """A network of its own, as a context. What it gives out, such as sockets, may be used anywhere."""

    def __enter__(self) -> Network:
        def make() -> int:
            _call("unshare", _CLONE_NEWNET)
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self._handle = _in_thread(make)
        self.command = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self._handle}"]
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def inside(self, function: Callable[[], T]) -> T:
        """Call it in this network."""

        def run() -> T:
            _call("setns", self._handle, _CLONE_NEWNET)
            return function()

        return _in_thread(run)

    def ip(self, *args: str) -> None:
        subprocess.run([*self.command, "ip", *args], check=True, timeout=20)

    def tun(self) -> int:
        """The end of a new device, named wire."""

        def make() -> int:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", b"wire", _IFF_TUN | _IFF_NO_PI))
            return descriptor

        return self.inside(make)

    def listener(self, host: str, port: int = 80) -> socket.socket:
        return self.inside(lambda: socket.create_server((host, port), backlog=1000))

    def datagrams(self, host: str, port: int) -> socket.socket:
        def make() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((host, port))
            return sock

        return self.inside(make)

    def connect(self, address: tuple[str, int], source: str | None = None) -> socket.socket:
        """A connection from this network, by a thread of its own."""
        bound = (source, 0) if source else None
        return self.inside(lambda: socket.create_connection(address, 10, source_address=bound))


class Wire(threading.Thread):
    """Carries packets between two devices, both ways.

    ``cut``: addresses, or addresses with a port, of which nothing is carried. ``loss``: the share that is
    lost; ``late``: the share that others overtake. ``lost``: how many were.
    """

    def __init__(self, one: int, other: int) -> None:
        super().__init__(daemon=True)
        self.cut: set[str | tuple[str, int]] = set()
        self.loss = self.late = 0.0
        self.lost = 0
        self._ends = {one: other, other: one}
        self._rng = random.Random(11)
        self._held: list[tuple[float, int, int, bytes]] = []
        self._ended = threading.Event()

    def run(self) -> None:
        poll = select.poll()
        for end in self._ends:
            poll.register(end, select.POLLIN)
        number = 0
        while not self._ended.is_set():
            for end, _ in poll.poll(5 if self._held else 100):
                with contextlib.suppress(OSError):  # the device is down
                    packet = os.read(end, _PACKET_BYTES)
                    if self._loses(packet):
                        self.lost += 1
                    elif self._rng.random() < self.late:
                        number += 1
                        due = time.monotonic() + _HELD_S
                        heapq.heappush(self._held, (due, number, self._ends[end], packet))
                    else:
                        os.write(self._ends[end], packet)
            while self._held and self._held[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(self._held)
                with contextlib.suppress(OSError):
                    os.write(end, packet)

    def _loses(self, packet: bytes) -> bool:
        if packet[0] >> 4 != 4:  # IPv6 leads nowhere
            return True
        begin = (packet[0] & 15) * 4
        ports = struct.unpack_from("!HH", packet, begin)
        hosts = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
        if not self.cut.isdisjoint((*hosts, *zip(hosts, ports, strict=True))):
            return True
        return self._rng.random() < self.loss

    def close(self) -> None:
        self._ended.set()
        self.join(10)
        for end in self._ends:
            os.close(end)


class World:
    """``here``, where the gateway is, and ``far``, which has all addresses from 10.9.1.0 to 10.9.4.255."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._gateways: list[Gateway] = []
        (folder / "resolv.conf").write_text("nameserver 10.9.3.53\n")
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        (folder / "nsswitch.conf").write_text("hosts: files dns\n")

    def __enter__(self) -> World:
        with contextlib.ExitStack() as stack:
            self.here = stack.enter_context(Network())
            self.far = stack.enter_context(Network())
            self.wire = Wire(self.here.tun(), self.far.tun())
            stack.callback(self.wire.close)
            self.wire.start()
            for network in (self.here, self.far):
                network.ip("link", "set", "lo", "up")
                network.ip("link", "set", "wire", "up")
            self.here.ip("addr", "add", HERE + "/32", "dev", "wire")
            self.here.ip("-6", "addr", "add", "fd09::1/64", "dev", "wire", "nodad")
            self.lead()
            self.far.ip("route", "add", HERE + "/32", "dev", "wire")
            for part in "1234":
                self.far.ip("route", "add", "local", f"10.9.{part}.0/24", "dev", "lo")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for gateway in self._gateways:  # of a test that failed
            if hasattr(gateway, "process") and gateway.process.poll() is None:
                gateway.process.kill()
                gateway.process.wait(20)
        self._stack.close()

    def lead(self) -> None:
        """The way from here to there, which is gone when a link was down."""
        self.here.ip("route", "replace", "10.9.0.0/16", "dev", "wire", "src", HERE)

    def gateway(self, name: str, text: str, *args: str, **environ: str) -> Gateway:
        """In the network here, with the names that are far."""
        folder = self.folder / name
        folder.mkdir()
        made = Gateway(folder, text, "--listen", HERE + ":0", *args, **environ)
        files = ("resolv.conf", "hosts", "nsswitch.conf")
        mounts = "".join(f"mount --bind {self.folder}/{file} /etc/{file}; " for file in files)
        enter = ["unshare", "--mount", "sh", "-ec", mounts + 'exec "$@"', "sh"]
        self._gateways.append(made)
        made._command[:0] = [*self.here.command, *enter]
        return made


class Names(threading.Thread):
    """A name server. ``known``: name -> its addresses; None: no answer, ever. Others don't exist."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(daemon=True)
        self.known: dict[str, list[str] | None] = {}
        self.asked: list[str] = []
        self._sock = sock
        sock.settimeout(0.2)
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                query, sender = self._sock.recvfrom(2000)
                answer = self._answer(query)
                if answer:
                    self._sock.sendto(answer, sender)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind = int.from_bytes(query[at + 1 : at + 3], "big")
        name = ".".join(labels)
        self.asked.append(name)
        addresses = self.known.get(name, [])
        if addresses is None:
            return b""
        code = 0 if name in self.known else 3  # NXDOMAIN
        families = {28: socket.AF_INET6, 1: socket.AF_INET}  # AAAA and A
        wanted = [one for one in addresses if (":" in one) == (kind == 28) and kind in families]
        packed = [socket.inet_pton(families[kind], address) for address in wanted]
        records = [b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(data)) + data for data in packed]
        head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        return head + query[12 : at + 5] + b"".join(records)

    def close(self) -> None:
        self._ended.set()
        self.join(10)
        self._sock.close()


@contextlib.contextmanager
def names(network: Network) -> Iterator[Names]:
    """The name server of the networks."""
    server = Names(network.datagrams("10.9.3.53", 53))
    server.start()
    try:
        yield server
    finally:
        server.close()


def flow_of(peer: Any) -> tuple[str, int]:
    """A connection's other end, as :attr:`Wire.cut` names it."""
    host, port = peer.get_extra_info("peername")[:2]
    return host, port
