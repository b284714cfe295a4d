"""What follows an alias, with the fallbacks of fallbacks. Mistakes are in test_routing_tables.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.config.fallbacks import all_fallbacks
from proxy.config.settings import AliasConfig

NAMES = st.sampled_from("abcdef")


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=3)), NAMES)
def test_every_name_that_is_led_to_comes_once_and_never_the_alias_itself(
    behind: dict[str, list[str]], name: str
) -> None:
    aliases = {one: AliasConfig(one, ("m",), fallback=tuple(names)) for one, names in behind.items()}
    found = all_fallbacks(name, aliases)
    reached, rest = set(), [name]
    while rest:
        for each in behind.get(rest.pop(), ()):
            if each not in reached:
                reached.add(each)
                rest.append(each)
    assert len(set(found)) == len(found)
    assert set(found) == reached - {name}


def test_the_fallbacks_of_a_fallback_stand_right_behind_it() -> None:
    behind = {"a": ("b", "d"), "b": ("c",), "d": ("c", "e")}
    aliases = {name: AliasConfig(name, ("m",), fallback=names) for name, names in behind.items()}
    assert all_fallbacks("a", aliases) == ("b", "c", "d", "e")
