"""How the log looks, in a process of its own, since it is the process's."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("who", "said"), [("", "hello"), ("worker 1", "worker 1: hello")])
def test_lines_say_when_how_bad_and_who(who, said):
    code = (
        "import logging; from proxy.logs import set_up_logging; "
        f"set_up_logging({who!r}); logging.getLogger('tokenhub.x').warning('hello'); "
        "logging.getLogger('tokenhub.x').debug('quiet')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d [\d:,]+ WARNING tokenhub\.x: {said}\n", done.stderr)
