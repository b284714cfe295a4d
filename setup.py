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

# They are typed anyway: mypy's compiler makes C of them. Whole packages, but for what stands below.
COMPILED = ("wire", "usage", "deployments", "routing", "access", "relay")
ALSO_COMPILED = (
    "endpoints.py",
    "errors.py",
    "config/forwarding.py",
    "server/file_lock.py",
    "storage/ledger_files.py",
)
INTERPRETED = {
    "access/group.py": "a frozen dataclass with slots, which mypyc does not make",
    "access/key.py": "a frozen dataclass with slots, which mypyc does not make",
    "access/model_list.py": "asked once in a while, and waits for the event loop's other work between slices",
    "access/model_pages.py": "as the list",
    "access/standing.py": "asked once in a while",
    "deployments/row_snapshot.py": "a row as values, once a minute",
    "relay/downstream/connection_limits.py": "once a connection; tests replace a part of it",
    "relay/downstream/listener_tls.py": "once a connection, and a subclass of ssl's classes",
    "relay/downstream/own_figures.py": "asked once in a while, and waits",
    "relay/downstream/own_responses.py": "what is answered here is asked once in a while",
    "relay/downstream/sliced_jobs.py": "rare, and its time goes into the work that it slices",
    "relay/downstream/wrong_protocol.py": "rare",
    "relay/exchange/tracing.py": "tests replace a part of it",
    "relay/upstream/dial.py": "once a connection, and coroutines gain nothing",
    "relay/upstream/resolve.py": "once a connection, and coroutines gain nothing",
    "relay/upstream/tcp_keepalive.py": "once a connection",
    "relay/upstream/tls.py": "once a connection",
    "usage/tally.py": "beside the data path",
    "wire/retry_after.py": "after a failure",
}
# With others it is not proven, and they are left as they are.
VERSIONS = ((3, 11), (3, 12), (3, 13))
WISH = os.environ.get("TOKENHUB_COMPILE", "")


def compiled() -> list[str]:
    """The paths of what is compiled."""
    proxy = Path("proxy")
    found = {proxy / path for path in ALSO_COMPILED}
    for package in COMPILED:
        found |= {path for path in (proxy / package).rglob("*.py") if path.name != "__init__.py"}
    return sorted(str(path) for path in found - {proxy / path for path in INTERPRETED})


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
            options = ["--config-file=", "--ignore-missing-imports"]
            self.distribution.ext_modules += mypycify([*options, *compiled()], opt_level="3", debug_level="0")
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
    ext_modules=[Extension("proxy.wire._outline", ["proxy/wire/_outline.c"], extra_compile_args=["-O2"])],
    cmdclass={"build_ext": Compile},
)
