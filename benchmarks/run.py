#!/usr/bin/env python3
"""Measures LLM gateways as reverse proxies in front of one mock upstream.

    run.py --target direct,nginx,tokenhub --interleave --fresh     all scenarios, 3 runs each
    run.py --target nginx,tokenhub --interleave --scenario a,e --runs 1 --secs 3
    run.py --target mine --targets-file mine.toml
    run.py --list | --report

The target is pinned to one CPU (--proxy-cpu 0), the mock, the load generators and
this script to another (--load-cpu 1). Every measurement holds flock(--lock) for its
own few seconds and lets go between. Servers are on 127.0.0.1 only: a target found
listening elsewhere is stopped at once. Results are merged into results.json and
results.md in the work folder ($BENCH_ROOT, else .work beside this file).
"""

import argparse
import base64
import fcntl
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = Path(os.environ.get("BENCH_ROOT", HERE / ".work")).resolve()
LOCK = os.environ.get("BENCH_LOCK", str(Path(tempfile.gettempdir(), "bench.lock")))
BIN, RUN = ROOT / "bin", ROOT / "run"
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

# name: kind, concurrency, body, what it is.  "sse" has chunks and delay_ms as well.
SCENARIOS = {
    "a": {"kind": "wrk", "conc": 64, "body": "1k", "title": "POST 1 KB, 0.7 KB reply, 64 connections"},
    "b": {"kind": "wrk", "conc": 1, "body": "1k", "direct_first": True, "title": "POST 1 KB, 1 connection"},
    "c": {"kind": "wrk", "conc": 32, "body": "100k", "title": "POST 100 KB conversation, 32 connections"},
    "d": {"kind": "wrk", "conc": 8, "body": "2m", "title": "POST 2 MB (base64 image), 8 connections"},
    "e": {
        "kind": "sse",
        "conc": 64,
        "chunks": 100,
        "delay_ms": 0,
        "extra_s": 3,
        "title": "stream 100 chunks, no delay, 64 at once",
    },
    "f": {
        "kind": "sse",
        "conc": 500,
        "chunks": 50,
        "delay_ms": 20,
        "ramp_ms": 980,
        "extra_s": 2,
        "title": "stream 50 chunks 20 ms apart, 500 at once",
    },
    "g": {
        "kind": "sse",
        "conc": 50,
        "chunks": 50,
        "delay_ms": 20,
        "ramp_ms": 980,
        "extra_s": 1,
        "title": "stream 50 chunks 20 ms apart, 50 at once",
    },
    "h": {
        "kind": "sse",
        "conc": 1000,
        "chunks": 50,
        "delay_ms": 20,
        "ramp_ms": 980,
        "extra_s": 2,
        "title": "stream 50 chunks 20 ms apart, 1000 at once",
    },
}
DEFAULT_SCENARIOS = "a,b,c,d,e,f,g"


# ---------------------------------------------------------------- bodies
def body(kind, model):
    sysm = {
        "role": "system",
        "content": "You are a terse assistant for a network operations team. Answer in plain words.",
    }
    if kind == "1k":
        text = (
            "Explain what a reverse proxy does, and when I would put one in front of a language model. " * 12
        )[:700]
        d = {
            "model": model,
            "messages": [sysm, {"role": "user", "content": text}],
            "temperature": 0.7,
            "max_tokens": 256,
        }
    elif kind == "100k":
        para = (
            'He said "look at line 12" and I did:\n\tif (x < 3) { return caf\u00e9; }\n'
            "but the log \u2014 all of it \u2014 shows the proxy closing early. "
        )
        msgs, size, i = [sysm], 0, 0
        while size < 98000:
            t = (para * 12)[: 900 + 37 * (i % 11)]
            msgs.append({"role": "user" if i % 2 == 0 else "assistant", "content": t})
            size += len(json.dumps(t, ensure_ascii=False).encode()) + 34
            i += 1
        if msgs[-1]["role"] == "assistant":
            msgs.append({"role": "user", "content": "And now?"})
        d = {"model": model, "messages": msgs, "temperature": 0.7, "max_tokens": 256}
    elif kind == "2m":
        raw = bytes((i * 2654435761 >> 13) & 255 for i in range(1_500_000))
        url = "data:image/png;base64," + base64.b64encode(raw).decode()
        d = {
            "model": model,
            "messages": [
                sysm,
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is in this image?"},
                        {"type": "image_url", "image_url": {"url": url}},
                    ],
                },
            ],
            "max_tokens": 256,
        }
    else:
        raise ValueError(kind)
    return json.dumps(d, ensure_ascii=False).encode()


def stream_body(sc, model):
    pad = ("Explain what a reverse proxy does, and when I would put one in front of a language model. " * 12)[
        :600
    ]
    d = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.7,
        "max_tokens": 256,
        "messages": [
            {"role": "user", "content": f"[mock chunks={sc['chunks']} delay={sc['delay_ms']}] {pad}"}
        ],
    }
    return json.dumps(d).encode()


# ---------------------------------------------------------------- /proc
def tree(pid):
    """pid and all its living descendants"""
    kids = {}
    for p in os.listdir("/proc"):
        if p.isdigit():
            try:
                s = Path(f"/proc/{p}/stat").read_text()
            except OSError:
                continue
            kids.setdefault(int(s.rsplit(")", 1)[1].split()[1]), []).append(int(p))
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        out.append(p)
        todo += kids.get(p, [])
    return [p for p in out if os.path.exists(f"/proc/{p}")]


def cpu_ticks(pids):
    t = 0
    for p in pids:
        try:
            f = Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
            t += int(f[11]) + int(f[12])
        except OSError:
            pass
    return t


def rss_mb(pids):
    t = 0
    for p in pids:
        try:
            t += int(Path(f"/proc/{p}/statm").read_text().split()[1]) * PAGE
        except OSError:
            pass
    return round(t / 1e6, 1)


def cpu_lines():
    d = {}
    for line in Path("/proc/stat").read_text().splitlines():
        if re.match(r"cpu\d", line):
            n, *v = line.split()
            d[int(n[3:])] = [int(x) for x in v]
    return d


def cpu_use(before, after, cpu):
    d = [b - a for a, b in zip(before[cpu], after[cpu], strict=False)]
    tot = sum(d[:8]) or 1
    return round(100 * (tot - d[3] - d[4]) / tot, 1), round(100 * d[7] / tot, 1)  # busy %, steal %


def listeners(pids):
    """(address, port) of every TCP socket the processes listen on"""
    inodes = set()
    for p in pids:
        try:
            for fd in os.listdir(f"/proc/{p}/fd"):
                m = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{p}/fd/{fd}"))
                if m:
                    inodes.add(m[1])
        except OSError:
            pass
    out = []
    for fam, fn in ((socket.AF_INET, "/proc/net/tcp"), (socket.AF_INET6, "/proc/net/tcp6")):
        for line in Path(fn).read_text().splitlines()[1:]:
            f = line.split()
            if f[3] == "0A" and f[9] in inodes:
                a, p = f[1].split(":")
                raw = bytes.fromhex(a)
                raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
                out.append((socket.inet_ntop(fam, raw), int(p, 16)))
    return out


# ---------------------------------------------------------------- processes
def fill(v, sub):
    if isinstance(v, str):
        for k, x in sub.items():
            v = v.replace(f"@{k}@", str(x))
        return v
    if isinstance(v, list):
        return [fill(x, sub) for x in v]
    if isinstance(v, dict):
        return {k: fill(x, sub) for k, x in v.items()}
    return v


def http_json(port, method, path, data=None, headers=None, timeout=20):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        c.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        r = c.getresponse()
        return r.status, r.read()
    finally:
        c.close()


class Target:
    def __init__(self, name, spec, args, port):
        self.name, self.args = name, args
        self.direct = "start" not in spec
        self.port = args.upstream_port if self.direct else port
        self.dir = RUN / name
        sub = {
            "PORT": self.port,
            "PORT2": port + 1,
            "UPSTREAM": f"http://127.0.0.1:{args.upstream_port}",
            "UPSTREAM_PORT": args.upstream_port,
            "DIR": self.dir,
            "ROOT": ROOT,
            "HARNESS": HERE,
            "PYTHON": sys.executable,
        }
        self.spec = fill(spec, sub)
        self.path = self.spec.get("path", "/v1/chat/completions")
        self.model = self.spec.get("model", "mock-model")
        self.headers = self.spec.get("headers", {})
        self.proc = None
        self.info = {"note": self.spec.get("note", "")}

    def pids(self):
        return tree(self.proc.pid) if self.proc and self.proc.poll() is None else []

    def prepare(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        (self.dir / "tmp").mkdir(parents=True)
        for fn, text in self.spec.get("files", {}).items():
            (self.dir / fn).write_text(text)
        (self.dir / "headers").write_text("".join(f"{k}: {v}\n" for k, v in self.headers.items()))
        for k in ("1k", "100k", "2m"):
            (self.dir / f"body-{k}").write_bytes(body(k, self.model))
        for n, sc in SCENARIOS.items():
            if sc["kind"] == "sse":
                (self.dir / f"body-{n}").write_bytes(stream_body(sc, self.model))

    def start(self):
        """starts the target on its CPU; time to the first request answered 200"""
        self.prepare()
        v = self.spec.get("version")
        if v:
            r = subprocess.run(v, check=False, capture_output=True, text=True)
            self.info["version"] = (
                (r.stdout or r.stderr).strip().splitlines()[-1] if (r.stdout or r.stderr).strip() else "?"
            )
        if self.direct:
            self.check()
            return
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", self.port)) == 0:
                raise RuntimeError(f"port {self.port} is taken")
        env = {**os.environ, **{k: str(v) for k, v in self.spec.get("env", {}).items()}}
        with locked(self.args), open(self.dir / "log", "wb") as log:
            t0 = time.monotonic()
            self.proc = subprocess.Popen(
                ["taskset", "-c", str(self.args.proxy_cpu), *self.spec["start"]],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=env,
                cwd=self.spec.get("cwd", self.dir),
                start_new_session=True,
            )
            data = (self.dir / "body-1k").read_bytes()
            last = "no answer"
            while True:
                if self.proc.poll() is not None:
                    raise RuntimeError(f"{self.name} ended with {self.proc.returncode}: {self.tail()}")
                if time.monotonic() - t0 > self.spec.get("ready_timeout_s", 60):
                    self.stop()
                    raise RuntimeError(f"{self.name} not ready, last: {last}: {self.tail()}")
                for a, p in listeners(self.pids()):
                    if a not in ("127.0.0.1", "::1"):
                        self.stop()
                        raise RuntimeError(
                            f"{self.name} listens on {a}:{p}; only loopback is allowed, so it was stopped"
                        )
                try:
                    s, b = http_json(self.port, "POST", self.path, data, self.headers)
                    if s == 200:
                        break
                    last = f"{s} {b[:200]!r}"
                except OSError as e:
                    last = repr(e)
                time.sleep(0.02)
            self.info["startup_s"] = round(time.monotonic() - t0, 3)
            self.info["startup_cpu_s"] = round(cpu_ticks(self.pids()) / TICK, 2)
        self.check()
        time.sleep(1)
        pids = self.pids()
        self.info["rss_idle_mb"] = rss_mb(pids)
        self.info["processes"] = len(pids)
        self.info["threads"] = sum(len(os.listdir(f"/proc/{p}/task")) for p in pids)

    def check(self):
        """one request and one stream through the target, read as a client would"""
        s, b = http_json(self.port, "POST", self.path, (self.dir / "body-1k").read_bytes(), self.headers)
        d = json.loads(b)
        assert (
            s == 200
            and d["choices"][0]["message"]["content"].startswith("A reverse proxy")
            and d["usage"]["total_tokens"] == 251
        ), (s, b[:300])
        s, b = http_json(self.port, "POST", self.path, (self.dir / "body-e").read_bytes(), self.headers)
        n = b.count(b"@T")
        assert s == 200 and n == SCENARIOS["e"]["chunks"] and b"[DONE]" in b, (s, n, b[-300:])
        self.info["stream_bytes_per_event"] = round(len(b) / max(1, b.count(b"data:")))
        for k in ("100k", "2m"):
            s, b = http_json(
                self.port, "POST", self.path, (self.dir / f"body-{k}").read_bytes(), self.headers
            )
            if s != 200:
                self.info[f"body_{k}"] = f"{s} {b[:200]!r}"

    def tail(self):
        try:
            return (self.dir / "log").read_bytes()[-600:].decode("utf8", "replace")
        except OSError:
            return ""

    def sig(self, s):
        if self.proc and self.proc.poll() is None:
            os.killpg(self.proc.pid, s)  # the process group we made for it

    def stop(self):
        if not self.proc:
            return
        self.sig(signal.SIGCONT)
        self.sig(signal.SIGTERM)
        try:
            self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.sig(signal.SIGKILL)
            self.proc.wait(10)


class Mock:
    def __init__(self, args):
        self.port = args.upstream_port
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", self.port)) == 0:
                raise SystemExit(f"port {self.port} is taken: another run? (--upstream-port, --base-port)")
        self.proc = subprocess.Popen(["taskset", "-c", str(args.load_cpu), BIN / "mock", str(self.port)])
        for _ in range(100):
            try:
                self.stats()
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise RuntimeError("mock did not start")

    def stats(self):
        return json.loads(http_json(self.port, "GET", "/__mock/stats")[1])

    def stop(self):
        self.proc.terminate()
        self.proc.wait()


@contextmanager
def locked(args):
    if not args.lock:
        yield
        return
    with open(args.lock, "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(f, fcntl.LOCK_UN)


# ---------------------------------------------------------------- one measurement
def load(cmd, env, pids):
    """runs a load generator; its output, its CPU seconds and the target's peak RSS"""
    r0 = resource.getrusage(resource.RUSAGE_CHILDREN)
    p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    peak = 0
    while True:
        try:
            out, err = p.communicate(timeout=0.25)
            break
        except subprocess.TimeoutExpired:
            peak = max(peak, rss_mb(pids))
    r1 = resource.getrusage(resource.RUSAGE_CHILDREN)
    if p.returncode:
        raise RuntimeError(f"{cmd[0]} failed: {err[-500:]}")
    return out, (r1.ru_utime + r1.ru_stime) - (r0.ru_utime + r0.ru_stime), peak


def spin(cpu):
    """ms of CPU time a fixed piece of work takes on this CPU now (about 40 on a quiet one here)"""
    try:
        pinned = ["taskset", "-c", str(cpu), BIN / "spin"]
        return float(subprocess.run(pinned, check=False, capture_output=True, text=True).stdout)
    except (OSError, ValueError):
        return None


def settle(t, limit=12):
    """waits until the target has done with what the last load left behind: streams cut off, unread answers"""
    t0 = time.monotonic()
    while t.proc and time.monotonic() - t0 < limit:
        c = cpu_ticks(t.pids())
        time.sleep(0.3)
        if cpu_ticks(t.pids()) - c <= 2:
            break
    return round(time.monotonic() - t0, 1)


def command(t, port, headers_of, sc_name, secs):
    sc, a = SCENARIOS[sc_name], t.args
    pin = ["taskset", "-c", str(a.load_cpu)]
    if sc["kind"] == "wrk":
        hdr = t.dir / "headers" if headers_of else "/dev/null"
        env = {**os.environ, "WRK_BODY": str(t.dir / f"body-{sc['body']}"), "WRK_HEADERS": str(hdr)}
        url = f"http://127.0.0.1:{port}{t.path if headers_of else '/v1/chat/completions'}"
        size = ["-t1", f"-c{sc['conc']}", f"-d{int(secs)}s", "--timeout", "30s"]
        return [*pin, "wrk", *size, "--latency", "-s", str(HERE / "post.lua"), url], env
    h = [x for k, v in t.headers.items() for x in ("-H", f"{k}: {v}")]
    what = ["-p", str(port), "-u", t.path, "-b", str(t.dir / f"body-{sc_name}"), *h, "-c", str(sc["conc"])]
    pace = ["-d", str(secs), "-r", str(sc.get("ramp_ms", 0)), "-n", str(sc["chunks"])]
    return [*pin, str(BIN / "sseload"), *what, *pace], dict(os.environ)


def parse(sc, out):
    return json.loads(re.search(r"^JSON (.*)$", out, re.M)[1]) if sc["kind"] == "wrk" else json.loads(out)


def measure(t, mock, sc_name, secs):
    sc, a = SCENARIOS[sc_name], t.args
    secs += sc.get("extra_s", 0)
    r = {}
    with locked(a):
        if sc.get("direct_first"):
            cmd, env = command(t, a.upstream_port, False, sc_name, 2)
            r["direct_p50_us"] = parse(sc, load(cmd, env, [])[0])["p50_us"]
        cmd, env = command(t, t.port, True, sc_name, secs)
        pids = t.pids()
        sp0 = spin(a.proxy_cpu)
        s0, c0, m0, l0, w0 = (
            mock.stats(),
            cpu_ticks(pids),
            cpu_ticks([mock.proc.pid]),
            cpu_lines(),
            time.monotonic(),
        )
        out, gen_cpu, peak = load(cmd, env, pids)
        wall, l1, m1, c1 = time.monotonic() - w0, cpu_lines(), cpu_ticks([mock.proc.pid]), cpu_ticks(pids)
        s1 = mock.stats()
        r["settle_s"] = settle(t)
        sp1 = spin(a.proxy_cpu)
    r.update(parse(sc, out))
    if sp0 and sp1:
        r["spin_ms"] = round((sp0 + sp1) / 2, 1)
    r["wall_s"] = round(wall, 2)
    r["proxy_cpu_s"] = round((c1 - c0) / TICK, 2)
    r["proxy_cpu_pct"] = round(100 * (c1 - c0) / TICK / wall, 1)
    r["mock_cpu_s"], r["gen_cpu_s"] = round((m1 - m0) / TICK, 2), round(gen_cpu, 2)
    r["cpu_proxy_busy"], r["cpu_proxy_steal"] = cpu_use(l0, l1, a.proxy_cpu)
    r["cpu_load_busy"], r["cpu_load_steal"] = cpu_use(l0, l1, a.load_cpu)
    r["rss_mb"] = rss_mb(t.pids())
    r["rss_peak_mb"] = max(peak, r["rss_mb"])
    r["upstream_requests"] = s1["requests"] - s0["requests"]
    r["upstream_new_conns"] = s1["accepted"] - s0["accepted"] - 1
    if sc["kind"] == "wrk":
        r["ok"] = r["requests"] - r["err_status"]
        r["rps"] = round(r["ok"] / r["duration_s"], 1)
        r["errors"] = sum(r[k] for k in ("err_connect", "err_read", "err_write", "err_timeout", "err_status"))
        r["cpu_us_per_req"] = round(1e6 * r["proxy_cpu_s"] / r["ok"], 1) if r["ok"] else None
        if "direct_p50_us" in r:
            r["added_p50_us"] = round(r["p50_us"] - r["direct_p50_us"], 1)
    else:
        r["errors"] = sum(
            r[k] for k in ("bad_status", "bad_marks", "no_done", "conn_errors", "short_reads", "order_errors")
        )
        r["cpu_us_per_chunk"] = round(1e6 * r["proxy_cpu_s"] / r["chunks"], 2) if r["chunks"] else None
        r["cpu_us_per_stream"] = (
            round(1e6 * r["proxy_cpu_s"] / r["streams_completed"], 1) if r["streams_completed"] else None
        )
        want = sc["conc"] * 1000 / sc["delay_ms"] if sc["delay_ms"] else None
        if want:
            r["offered_chunks_per_s"] = want
    for k in ("cpu_us_per_req", "cpu_us_per_chunk"):  # as it would be on this machine when quiet
        if r.get(k) and r.get("spin_ms"):
            r[k + "_ref"] = round(r[k] * a.spin_ref / r["spin_ms"], 2)
    r["bound"] = bound(r)
    return r


def bound(r):
    p, load_side = r["proxy_cpu_pct"] >= 90, r["cpu_load_busy"] >= 93
    return "both" if p and load_side else "proxy" if p else "load side" if load_side else "neither"


def median(runs):
    out = {}
    for k, v in runs[0].items():
        vals = [x.get(k) for x in runs]
        if all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in vals):
            m = statistics.median(vals)
            out[k] = round(m, 3) if isinstance(m, float) else m
        elif k == "bound":
            out[k] = statistics.mode(vals)
        elif isinstance(v, str):
            out[k] = next((x for x in vals if x), v)
    return out


# ---------------------------------------------------------------- report
def human(us):
    if us is None:
        return "–"
    if us < 1000:
        return f"{us:.0f} µs"
    if us < 1e6:
        return f"{us / 1000:.2f} ms" if us < 1e5 else f"{us / 1000:.0f} ms"
    return f"{us / 1e6:.2f} s"


def ratio(targets, name, scenario, figure):
    """a figure over nginx's, run by run (those of a round are seconds apart), the median of it"""
    of = [targets[n].get("scenarios", {}).get(scenario, {}).get("runs", []) for n in (name, "nginx")]
    pairs = [(x.get(figure), y.get(figure)) for x, y in zip(*of, strict=False)]
    pairs = [(x, y) for x, y in pairs if x and y]
    return f"{statistics.median(x / y for x, y in pairs):.2f}" if pairs else "–"


def report(res):
    m, L = res["meta"], []
    T = res["targets"]
    names = [n for n in T if T[n].get("scenarios")]

    def g(n, s):
        return T[n].get("scenarios", {}).get(s, {}).get("median")

    def tag(x):
        return {"proxy": "", "both": " ᴮ", "load side": " ᴸ", "neither": " ᴺ"}[bound(x)]

    def num(v):
        return f"{v:,.0f}" if v >= 100 else f"{v:.1f}"

    def cpu(x, k):
        return num(x[k]) + (f" [{num(x[k + '_ref'])}]" if x.get(k + "_ref") else "")

    def err(x):
        return f" (**{x['errors']:.0f} errors**)" if x.get("errors") else ""

    L += [
        "# LLM gateways as reverse proxies",
        "",
        f"{m['cpu']}, {m['ncpu']} cores; proxy on CPU {m['proxy_cpu']} alone, "
        f"mock upstream and load generator on CPU {m['load_cpu']}. "
        f"Median of {m['runs']} runs of {m['secs']} s. {m['date']}.",
        "",
        "ᴸ the load side's CPU was full before the proxy's: the proxy can do more than this figure. "
        "ᴮ both were full. ᴺ neither was. No mark: the proxy's CPU alone was full. "
        "CPU per request is utime+stime of the proxy's processes over the requests answered: "
        "it does not depend on which side was full. "
        "In [ ] the same brought to the speed of a quiet CPU by a fixed piece of work timed just before and "
        "after each run.",
        "",
    ]

    def table(head, row):
        L.append("| " + " | ".join(head) + " |")
        L.append("|" + "---|" * len(head))
        for n in names:
            r = row(n)
            if r:
                L.append("| " + " | ".join([n, *map(str, r)]) + " |")
        L.append("")

    L += ["## Requests without streaming", ""]

    def row1(n):
        a, b, c, d = (g(n, x) for x in "abcd")
        if not a and not b and not c and not d:
            return None

        def f(x, v):
            return v(x) if x else "–"

        return [
            f(a, lambda x: f"{x['rps']:,.0f}{tag(x)}{err(x)}"),
            f(a, lambda x: f"{human(x['p50_us'])} / {human(x['p99_us'])}"),
            f(a, lambda x: cpu(x, "cpu_us_per_req") if n != "direct" else "–"),
            f(b, lambda x: human(x["added_p50_us"]) if n != "direct" else human(x["p50_us"]) + " (whole)"),
            f(c, lambda x: f"{x['rps']:,.0f}{tag(x)}{err(x)}"),
            f(c, lambda x: cpu(x, "cpu_us_per_req") if n != "direct" else "–"),
            f(d, lambda x: f"{x['rps']:,.0f}{tag(x)}{err(x)}"),
            f(d, lambda x: cpu(x, "cpu_us_per_req") if n != "direct" else "–"),
            f(d, lambda x: f"{x['rss_peak_mb']:.0f}" if n != "direct" else "–"),
        ]

    table(
        [
            "target",
            "(a) 1 KB ×64: req/s",
            "(a) p50 / p99",
            "(a) CPU µs/req",
            "(b) ×1: added p50",
            "(c) 100 KB ×32: req/s",
            "(c) CPU µs/req",
            "(d) 2 MB ×8: req/s",
            "(d) CPU µs/req",
            "(d) peak RSS MB",
        ],
        row1,
    )

    L += [
        "## Streams",
        "",
        "(e) 100 chunks without delay, 64 at once. (f) 50 chunks 20 ms apart, 500 at once: 25,000 chunks/s "
        "offered. (g) the same, 50 at once: 2,500 chunks/s offered. "
        "TTFB: request sent to first content chunk. Transit: chunk written by the upstream to chunk read by "
        "the client. Gap: how much longer the gap between two chunks was at the client than at the upstream.",
        "",
    ]

    def row2(n):
        e, f, h = g(n, "e"), g(n, "f"), g(n, "g")
        if not e and not f:
            return None

        def q(x, v):
            return v(x) if x else "–"

        return [
            q(e, lambda x: f"{x['chunks_per_s']:,.0f}{tag(x)}{err(x)}"),
            q(e, lambda x: f"{x['streams_per_s']:,.0f}"),
            q(e, lambda x: cpu(x, "cpu_us_per_chunk") if n != "direct" else "–"),
            q(e, lambda x: f"{x['chunks'] / x['reads']:.1f}" if x.get("reads") else "–"),
            q(f, lambda x: f"{x['chunks_per_s']:,.0f}{tag(x)}{err(x)}"),
            q(f, lambda x: f"{human(x['ttfb_p50_us'])} / {human(x['ttfb_p99_us'])}"),
            q(f, lambda x: f"{human(x['transit_p50_us'])} / {human(x['transit_p99_us'])}"),
            q(f, lambda x: human(x["gap_excess_p99_us"])),
            q(f, lambda x: f"{x['proxy_cpu_pct']:.0f}%" if n != "direct" else "–"),
            q(f, lambda x: f"{x['rss_peak_mb']:.0f}" if n != "direct" else "–"),
            q(h, lambda x: f"{human(x['ttfb_p50_us'])} / {human(x['ttfb_p99_us'])}"),
            q(h, lambda x: human(x["gap_excess_p99_us"])),
            q(h, lambda x: f"{x['proxy_cpu_pct']:.0f}%" if n != "direct" else "–"),
        ]

    table(
        [
            "target",
            "(e) chunks/s",
            "(e) streams/s",
            "(e) CPU µs/chunk",
            "(e) chunks per read",
            "(f) chunks/s",
            "(f) TTFB p50 / p99",
            "(f) transit p50 / p99",
            "(f) gap p99",
            "(f) CPU",
            "(f) peak RSS MB",
            "(g) TTFB p50 / p99",
            "(g) gap p99",
            "(g) CPU",
        ],
        row2,
    )

    if T.get("nginx", {}).get("scenarios"):
        L += [
            "## Beside nginx and the direct line",
            "",
            "CPU over nginx's CPU, each run divided by nginx's run of the same round, the median of that; "
            "added: p50 less the p50 of the direct line.",
            "",
        ]

        def row4(n):
            b, x, y = g(n, "b"), g(n, "g"), g("direct", "g")
            ttfb = human(x["ttfb_p50_us"] - y["ttfb_p50_us"]) if x and y else "–"
            return n != "direct" and [
                *(ratio(T, n, s, "cpu_us_per_req") for s in "acd"),
                *(ratio(T, n, s, "cpu_us_per_chunk") for s in "ef"),
                human(b["added_p50_us"]) if b else "–",
                ttfb,
            ]

        table(
            [
                "target",
                "(a) 1 KB: CPU/req",
                "(c) 100 KB: CPU/req",
                "(d) 2 MB: CPU/req",
                "(e) CPU/chunk",
                "(f) CPU/chunk",
                "(b) added p50",
                "(g) added TTFB p50",
            ],
            row4,
        )

    L += ["## Start and memory", ""]

    def row3(n):
        i = T[n]
        if n == "direct":
            return None
        return [
            i.get("version", ""),
            f"{i.get('startup_s', 0):.2f}",
            f"{i.get('startup_cpu_s', 0):.2f}",
            i.get("processes", ""),
            i.get("threads", ""),
            i.get("rss_idle_mb", ""),
            i.get("rss_end_mb", ""),
            i.get("upstream_conns", ""),
            i.get("note", ""),
        ]

    table(
        [
            "target",
            "version",
            "start to first 200, s",
            "CPU for it, s",
            "processes",
            "threads",
            "RSS idle MB",
            "RSS at end MB",
            "new upstream connections in (a)",
            "set up",
        ],
        row3,
    )

    bad = {n: T[n]["failed"] for n in T if T[n].get("failed")}
    bad |= {f"{n} ({s})": w for n in T for s, w in T[n].get("scenario_errors", {}).items()}
    if bad:
        L += ["## Did not run", ""] + [f"- **{n}**: {w}" for n, w in bad.items()] + [""]
    done = [x for n in names for s in T[n]["scenarios"].values() for x in s["runs"]]
    st = [x[k] for x in done for k in ("cpu_proxy_steal", "cpu_load_steal")]
    if st:
        L += [
            f"Steal (time the host took from these CPUs) in any one run: {max(st)}% at most, "
            f"{statistics.mean(st):.2f}% on average.",
            "",
        ]
    return "\n".join(L)


# ---------------------------------------------------------------- main
def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--target", action="append", default=[], help="may be given several times, or a,b,c")
    ap.add_argument(
        "--targets-file", action="append", default=[], help="more targets (TOML, as targets.toml)"
    )
    ap.add_argument("--scenario", default=DEFAULT_SCENARIOS)
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--secs", type=int, default=5)
    ap.add_argument("--proxy-cpu", type=int, default=0)
    ap.add_argument("--load-cpu", type=int, default=1)
    ap.add_argument("--upstream-port", type=int, default=19000)
    ap.add_argument("--base-port", type=int, default=19100)
    ap.add_argument("--lock", default=LOCK, help="file to lock while measuring; '' for none")
    ap.add_argument(
        "--spin-ref",
        type=float,
        default=40.0,
        help="ms the spin takes on the quiet machine, for the *_ref figures",
    )
    ap.add_argument(
        "--interleave",
        action="store_true",
        help="start all targets, go round them run by run; those not measured are stopped with SIGSTOP",
    )
    ap.add_argument("--out", default=str(ROOT), help="folder of results.json and results.md")
    ap.add_argument("--fresh", action="store_true", help="forget earlier results")
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--report", action="store_true", help="only write results.md anew")
    a = ap.parse_args()

    specs = tomllib.loads((HERE / "targets.toml").read_text())
    for f in a.targets_file:
        specs.update(tomllib.loads(Path(f).read_text()))
    if a.list:
        for n, s in specs.items():
            print(f"{n:24} {s.get('note', '')}")
        return 0
    out = Path(a.out)
    res_file = out / "results.json"
    res = json.loads(res_file.read_text()) if res_file.exists() and not a.fresh else {"targets": {}}
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    if not a.report:
        res["meta"] = {
            "cpu": cpu[1] if cpu else "?",
            "ncpu": os.cpu_count(),
            "proxy_cpu": a.proxy_cpu,
            "load_cpu": a.load_cpu,
            "runs": a.runs,
            "secs": a.secs,
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "kernel": os.uname().release,
            "interleaved": a.interleave,
        }

    def save():
        res_file.write_text(json.dumps(res, indent=1))
        (out / "results.md").write_text(report(res))

    if a.report:
        if not res["targets"]:
            ap.error(f"there are no results in {out} yet")
        save()
        print(report(res))
        return 0

    names = [n for x in a.target for n in x.split(",")]
    scen = a.scenario.split(",")
    unknown = [n for n in names if n not in specs] + [s for s in scen if s not in SCENARIOS]
    if not names or unknown:
        ap.error(f"unknown: {unknown}" if unknown else "give at least one --target")
    os.sched_setaffinity(0, {a.load_cpu})
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 8192:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if not (BIN / "mock").exists():
        ap.error(f"{BIN / 'mock'} is not there: run setup.sh first")
    RUN.mkdir(parents=True, exist_ok=True)
    mock = Mock(a)
    live, rc = [], 0

    def say(*x):
        print(time.strftime("%H:%M:%S"), *x, flush=True)

    def up(i, n):
        t = Target(n, specs[n], a, a.base_port + 10 * i)
        try:
            t.start()
        except BaseException as e:
            t.stop()
            say(n, "FAILED:", e)
            if not isinstance(e, Exception):
                raise
            res["targets"].setdefault(n, {})["failed"] = str(e)[:600]
            save()
            return None
        say(n, "up", t.info)
        e = res["targets"].setdefault(n, {})
        e.pop("failed", None)
        e.update(t.info)
        e.setdefault("scenarios", {})
        return t

    def one(t, s, k):
        entry = res["targets"][t.name]
        if k == 0:  # what an earlier call measured must not stand beside what this one fails at
            entry["scenarios"].pop(s, None)
            entry.get("scenario_errors", {}).pop(s, None)
        if k == 0 and not t.direct:  # warm-up, with its own hold of the lock
            cmd, env = command(t, t.port, True, s, t.spec.get("warmup_s", 2))
            with locked(a):
                load(cmd, env, t.pids())
                settle(t)
        time.sleep(0.3)
        r = measure(t, mock, s, a.secs)
        x = entry["scenarios"].setdefault(s, {"runs": []})
        x["runs"].append(r)
        x["median"] = median(x["runs"])
        if s == "a":
            entry["upstream_conns"] = x["median"]["upstream_new_conns"]
        entry["rss_end_mb"] = r["rss_mb"]
        keys = (
            ("rps", "added_p50_us", "p50_us", "p99_us", "cpu_us_per_req")
            if SCENARIOS[s]["kind"] == "wrk"
            else (
                "chunks_per_s",
                "streams_per_s",
                "ttfb_p50_us",
                "ttfb_p99_us",
                "gap_excess_p99_us",
                "cpu_us_per_chunk",
            )
        )
        say(
            f"{t.name} ({s}) run {k + 1}:",
            " ".join(f"{q}={r[q]}" for q in keys if q in r),
            f"proxy={r['proxy_cpu_pct']}% load={r['cpu_load_busy']}%",
            f"rss={r['rss_peak_mb']} err={r['errors']} bound={r['bound']}",
        )
        save()

    def guard(t, s, k):
        nonlocal rc
        try:
            one(t, s, k)
        except Exception as e:
            say(t.name, s, "FAILED:", repr(e))
            res["targets"][t.name].setdefault("scenario_errors", {})[s] = repr(e)[:400]
            rc = 1

    try:
        if a.interleave:
            for i, n in enumerate(names):
                t = up(i, n)
                if t:
                    live.append(t)
                    t.sig(signal.SIGSTOP)
                else:
                    rc = 1
            for s in scen:
                for k in range(a.runs):
                    for t in live:
                        t.sig(signal.SIGCONT)
                        time.sleep(0.2)
                        guard(t, s, k)
                        time.sleep(0.2)
                        t.sig(signal.SIGSTOP)
        else:
            for i, n in enumerate(names):
                t = up(i, n)
                if not t:
                    rc = 1
                    continue
                live = [t]
                for s in scen:
                    for k in range(a.runs):
                        guard(t, s, k)
                t.stop()
    finally:
        for t in live:
            t.stop()
        mock.stop()
        save()
    print(report(res))
    return rc


if __name__ == "__main__":
    sys.exit(main())
