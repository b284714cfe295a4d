"""Compiles the modules that every request runs through, if it can be done: ARCHITECTURE.md, "Compiled".

setup.cfg has everything else. An editable installation (``pip install -e``) is left as it is: who edits a
module wants to see the edit. ``TOKENHUB_COMPILE=0`` leaves any other as it is too, with ``=1`` it is an error
if it can't be compiled. In place, for tests: ``python setup.py build_ext --inplace``.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# They are typed anyway: mypy's compiler makes C of them.
MODULES = [
    "absent", "access", "accounting", "admission", "answer", "asked", "attempt", "blame", "body", "breaker",
    "broken", "budget", "candidates", "catalog", "charges", "closing", "content_type", "cors", "cost",
    "counters", "deadlines", "decay", "decode", "deployment", "downstream", "dropped", "edits", "endings",
    "endpoints", "error_response", "errors", "exchange", "flow", "framing", "gateway", "head_cache",
    "headers", "hedge", "hints", "intake", "knowledge", "latency", "ledger", "lessons", "limiterrors",
    "limitlines", "limits", "lines", "locks", "mapping", "media", "meters", "options", "outbox", "outline",
    "overload", "passing", "peek", "permits", "pictures", "places", "pool", "provider", "query", "recent",
    "record", "references", "refusals", "request", "request_flow", "response_headers", "retry", "scanner",
    "speed", "sse", "strategy", "streamends", "streamusage", "strikes", "strings", "tokens", "turn",
    "upstream", "usage", "votes", "written",
]  # fmt: skip
# With others it is not proven, and they are left as they are.
VERSIONS = ((3, 11), (3, 12), (3, 13))
WISH = os.environ.get("TOKENHUB_COMPILE", "")


class Compile(build_ext):
    """build_ext, without which the package runs too, if more slowly."""

    is_wanted = False

    def run(self) -> None:
        is_usual = sys.version_info[:2] in VERSIONS and not getattr(self, "editable_mode", False)
        self.is_wanted = WISH == "1" or (WISH != "0" and is_usual)
        if not self.is_wanted:
            return
        try:
            from mypyc.build import mypycify

            # Without the strictness of setup.cfg, since what is installed here is the compiler alone.
            paths = [str(Path("proxy", f"{name}.py")) for name in MODULES]
            options = ["--config-file=", "--ignore-missing-imports"]
            self.distribution.ext_modules += mypycify([*options, *paths], opt_level="3", debug_level="0")
            is_inplace = self.inplace
            self.reinitialize_command(self)
            self.inplace = is_inplace
            self.ensure_finalized()  # once more, with those
            super().run()
        except (Exception, SystemExit) as error:
            if WISH == "1":
                raise
            for path in self.get_outputs():  # a part of them would be worse than none
                Path(path).unlink(missing_ok=True)
            self.is_wanted = False
            so_what = "a small request takes 2.6 times the CPU"
            print(f"tokenhub: not compiled ({error}), so {so_what}", file=sys.stderr)

    def get_outputs(self) -> list[str]:
        return super().get_outputs() if self.is_wanted else []


setup(
    ext_modules=[Extension("proxy._outline", ["proxy/_outline.c"], extra_compile_args=["-O2"])],
    cmdclass={"build_ext": Compile},
)
