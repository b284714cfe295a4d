"""Which paths lead where."""

from __future__ import annotations

from proxy.endpoints import PROXIED


def test_proxied_paths_work_without_the_version():
    assert PROXIED[b"/v1/chat/completions"] == PROXIED[b"/chat/completions"] == ("chat", b"/chat/completions")
    assert PROXIED[b"/v1/messages/count_tokens"][0] == "count_tokens"
    assert len(PROXIED) == 20
