"""The dashboard in a real browser, before the installed program."""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.e2e import ROOT, Gateway, free_port
from tests.e2e.asking import ask, fetch
from tests.e2e.browser import Browser, needs_browser
from tests.support.keys import expire

pytestmark = needs_browser
PAGES = ("overview", "routes", "aliases", "keys", "usage", "requests")
HOSTILE = '<img src=x onerror="window.hacked=1">'


def config_text() -> str:
    """The repository's own, on free ports."""
    text = (ROOT / "routes.toml").read_text().replace("127.0.0.1:8080", "127.0.0.1:0")
    text = text.replace("# [usage]\n# tags = []  ", '[usage]\ntags = ["team"]\n# ')
    return text.replace("# [admin]  ", '[admin]\nlisten = "127.0.0.1:0"\n# ')


def told(gateway: Gateway, path: str) -> list[dict]:
    """The rows of the admin API."""
    return json.loads(fetch(gateway, "GET", f"/admin/v1/{path}", admin=True).body)["data"]


def make_key(gateway: Gateway, **settings: object) -> str:
    return json.loads(fetch(gateway, "POST", "/admin/v1/keys", settings, admin=True).body)["key"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    """One that has served a few requests, with two keys."""
    with Gateway(tmp_path_factory.mktemp("gateway"), config_text()) as gateway:
        gateway.key = make_key(gateway, name="prod", monthly_tokens=1000, rpm=600, tags="team=search")
        make_key(gateway, name=HOSTILE, expires="1d")
        expire(gateway.config.with_name("tokenhub.db"), HOSTILE)
        while max(row["expires"] or 0 for row in told(gateway, "keys")) > time.time():
            pass  # it is taken on within a second
        for model in ("balanced", "premium", "openai/gpt-4o", HOSTILE):
            ask(gateway, model, gateway.key)
        ask(gateway, "economy", "th-wrong")
        yield gateway


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(shared) -> Browser:
    shared.look(1440)
    return shared


@pytest.fixture
def page(browser, gateway) -> Browser:
    """The dashboard of the shared gateway."""
    browser.open(gateway.admin)
    browser.complaints()
    return browser


# ---------------------------------------------------------------------- what the pages show


SHOWN = {
    "overview": ["Requests per second", "Time to first token", "Healthy", "Connections"],
    "routes": ["openai/gpt-4o", "chat, not streamed", "No requests yet", "meta/muse-spark-1.3"],
    "aliases": ["premium", "anthropic/claude-3-5-sonnet", "latency, the default", "Next request (chat)"],
    "keys": ["prod", HOSTILE, "of 1,000", "600 requests/min", "expired"],
    "usage": ["Saved by caches", "openai/gpt-4o", "by day and model", "Days are in UTC."],
    "requests": ["prod", "requested as premium", "openai/gpt-4o", HOSTILE, "401"],
}


@pytest.mark.parametrize("name", PAGES)
def test_each_page_shows_what_there_is(page, name):
    page.go("usage" if name == "keys" else "keys")
    page.go(name)
    for text in SHOWN[name]:
        page.says(text)
    title = page.driver.title
    heading = page.one("h1")
    assert title == f"{heading.text} · TokenHub"
    assert page.driver.switch_to.active_element == heading  # for whoever does not see it change
    assert [link.text.lower() for link in page.all("nav a[aria-current=page]")] == [name]
    page.says("Live", "#connection")
    assert not page.run("return window.hacked")
    assert page.complaints() == []


@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_readable_at_any_width_in_light_and_dark(page, name):
    page.go(name)
    page.says(SHOWN[name][1])
    for theme in ("light", "dark"):
        for width in (360, 820, 1440):
            page.look(width, 800, theme)
            assert page.faults() == [], (theme, width)
    assert page.complaints() == []


@pytest.mark.parametrize("name", ["keys", "aliases"])
def test_dialogs_are_readable_too(page, name):
    page.go(name)
    page.press({"keys": "New key", "aliases": "Edit economy"}[name])
    for theme, width in (("light", 360), ("dark", 1440)):
        page.look(width, 640, theme)
        assert page.faults() == [], (theme, width)
    page.press("Cancel", "dialog")
    page.until(lambda: not page.all("dialog"))


def test_the_theme_can_be_chosen_and_stays(page):
    def ground() -> str:
        return page.run("return getComputedStyle(document.documentElement).backgroundColor")

    before = ground()
    page.all("#theme")[0].click()
    assert ground() == before  # from the system's, which is light, to light
    page.all("#theme")[0].click()
    dark = ground()
    assert dark != before
    page.driver.refresh()
    assert ground() == dark
    page.all("#theme")[0].click()
    assert ground() == before


def test_charts_follow_the_theme(page):
    def drawn() -> str:
        page.one(".chart canvas")
        return page.run("return document.querySelector('.chart canvas').toDataURL()")

    page.go("usage?metric=requests")
    light = drawn()
    page.look(1440, theme="dark")
    page.go("keys")
    page.go("usage?metric=requests")
    assert drawn() != light
    page.look(1440, theme="light")
    page.until(lambda: drawn() == light)


def test_samples_come_by_themselves(page, gateway):
    def label() -> str:
        return page.run("return document.querySelector('.chart')?.ariaLabel ?? ''")

    page.until(lambda: label().startswith("Requests per second: requests "))
    none = "Requests per second: requests 0,"
    page.until(lambda: ask(gateway, "premium", gateway.key) and not label().startswith(none))
    page.until(lambda: page.all(".tile-value")[4].text.endswith("ms"))


def test_a_request_tells_its_attempts(page, gateway):
    assert ask(gateway, "openai/gpt-4o", gateway.key, x_sim_status="503",
               X_Inferoute_Fallback="anthropic/claude-3-haiku") == 503  # fmt: skip
    page.go("requests?status=503")
    page.one(".opener").click()
    page.says("openai 503", ".attempts li:first-child")
    page.says("anthropic 503", ".attempts li:last-child")
    row = page.one(".more").get_attribute("id")
    page.press("Pause")
    assert page.one("[aria-pressed=true]").text == "Resume"
    assert page.one(".opener").get_attribute("aria-expanded") == "true", row


def test_filters_of_requests(page):
    page.go("requests")
    page.one("input[name=key]").send_keys("prod")
    page.until(lambda: {e.text for e in page.all("tbody td[data-label=Key]") if e.text} == {"prod"})
    page.one("input[name=model]").send_keys("no-such")
    page.says("No recent request matches.")
    assert page.driver.current_url.endswith("#/requests?model=no-such&key=prod")


def test_usage_by_a_tag_and_of_some_requests(page):
    page.go("usage?by=team")
    page.says("search", "tbody th")
    of_all = page.until(lambda: int(page.all(".tile-value")[1].text))
    only = page.one("input[name=only]")
    only.send_keys("alias=premium, team=search", Keys.ENTER)
    page.until(lambda: 0 < int(page.all(".tile-value")[1].text) < of_all)
    assert "only=alias%3Dpremium" in page.driver.current_url
    only.clear()
    only.send_keys("colour=red", Keys.ENTER)
    page.says("Tag can't be 'colour': there are team")
    page.complaints()


def test_a_key_has_a_page_of_its_own(page):
    page.go("keys")
    page.one("a.strong", "prod").click()
    for text in ("Tags: team=search", "Spent this month", "Saved by caches", "of 1,000", "Latest requests"):
        page.says(text)
    page.until(
        lambda: page.run("return document.querySelector('.chart')?.ariaLabel").startswith("USD by day")
    )
    assert [link.text for link in page.all("nav a[aria-current=page]")] == ["Keys"]
    for theme, width in (("light", 360), ("dark", 820), ("light", 1440)):
        page.look(width, 800, theme)
        assert page.faults() == [], (theme, width)
    page.one("a", "Usage").click()
    page.go("key?id=nobody")
    page.says("There is no key 'nobody'")
    page.complaints()


def test_usage_as_a_file(page, gateway):
    page.go("usage")
    page.one("label", "Provider").click()
    page.says("by day and model")
    page.one("th[role=columnheader]", "Provider")
    page.press("Download CSV")
    [path] = page.until(lambda: list(page.folder.glob("tokenhub-usage-*.csv")))
    lines = page.until(lambda: path.read_text().splitlines())
    assert lines[0].startswith("model,provider,requests,errors,")
    assert any(line.startswith("openai/gpt-4o,openai,") for line in lines)


# ---------------------------------------------------------------------- changes


def test_a_key_is_made_with_the_keyboard_alone_and_used(page, gateway):
    page.go("keys")
    page.says("prod")

    def type_(*texts: str) -> None:
        for text in texts:
            page.driver.switch_to.active_element.send_keys(text)

    page.driver.refresh()
    page.says("prod")
    page.one("body").send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element.text == "Skip to the content"
    type_(Keys.ENTER, Keys.TAB)
    assert page.driver.switch_to.active_element.text == "New key"
    type_(Keys.ENTER, "typed", Keys.TAB, "-3", Keys.ENTER)
    page.says("'monthly_usd' must be a number of dollars above 0", "dialog .wrong")
    wrong = page.driver.switch_to.active_element
    assert (wrong.get_attribute("name"), wrong.get_attribute("aria-invalid")) == ("monthly_usd", "true")
    type_(Keys.BACKSPACE, Keys.BACKSPACE, "5", Keys.TAB, "500", Keys.ENTER)
    secret = page.one(".secret").get_attribute("value")
    assert secret.startswith("th-")
    type_(Keys.ESCAPE)  # which would have thrown it away
    assert page.one(".secret").get_attribute("value") == secret
    page.until(lambda: page.driver.switch_to.active_element.text == "Copy key")
    type_(Keys.TAB, Keys.ENTER)
    page.until(lambda: not page.all("dialog"))
    assert secret not in page.driver.page_source

    assert ask(gateway, "balanced", secret) == 200
    page.says("of 500", "tbody tr")
    [row] = [row for row in told(gateway, "keys") if row["name"] == "typed"]
    assert (row["limits"]["monthly_usd"], row["limits"]["monthly_tokens"]) == (5, 500)
    page.until(lambda: [e for e in page.all("tbody tr") if "typed" in e.text and "0 of 500" not in e.text])
    page.go("usage?by=key")
    page.says("typed", "tbody th")


def test_a_key_is_changed_and_revoked(page, gateway):
    secret = make_key(gateway, name="brief", rpm=5)
    page.go("keys")
    page.press("Edit brief")
    page.fill("Requests per minute", "")
    page.fill("Models", "premium, openai/*")
    page.press("Save", "dialog")
    page.says("Saved brief.", "#notice")
    [row] = [row for row in told(gateway, "keys") if row["name"] == "brief"]
    assert (row["limits"]["rpm"], row["models"]) == (None, ["premium", "openai/*"])
    page.press("Revoke brief")
    page.press("Revoke", "dialog")
    page.says("Revoked brief.", "#notice")
    page.says("revoked", "tbody tr.over")
    assert ask(gateway, "premium", secret) == 401


def test_a_key_gets_another_secret(page, gateway):
    first = make_key(gateway, name="turning", rpm=500)
    page.go("keys")
    page.press("Rotate turning")
    page.fill("Keep the old secret working for", "31d")
    page.press("Create new secret", "dialog")
    page.says("'overlap' must be a span such as 24h or 7d", "dialog .wrong")
    page.fill("Keep the old secret working for", "7d")
    page.press("Create new secret", "dialog")
    second = page.one(".secret").get_attribute("value")
    assert second.startswith("th-") and second != first
    page.press("Close", "dialog")
    page.says("old secret works until", "tbody tr")
    page.until(lambda: not page.all("dialog"))
    assert second not in page.driver.page_source
    assert ask(gateway, "premium", first) == ask(gateway, "premium", second) == 200


def test_a_group_is_made_given_to_a_key_changed_and_deleted(page, gateway):
    secret = make_key(gateway, name="member")
    page.go("keys")
    page.press("New group")
    page.fill("Name", "a b")
    page.press("Create group", "dialog")
    page.says("'name' must be up to 64 letters", "dialog .wrong")
    page.complaints()  # a 422 is one of the console's
    page.fill("Name", "search")
    page.fill("USD per day", "0.5")
    page.fill("Requests per minute", "1")
    page.one("dialog input[name=soft]").click()
    page.press("Create group", "dialog")
    page.says("search", "section tbody th")
    page.says("soft: alerts only", "section tbody")
    page.press("Edit member")
    page.one("dialog select[name=group]").send_keys("search")
    page.press("Save", "dialog")
    page.says("group search", "tbody th")
    assert [ask(gateway, "premium", secret) for _ in range(2)] == [200, 429]
    page.press("Edit group search")
    page.fill("Requests per minute", "")
    page.one("dialog input[name=soft]").click()
    page.press("Save", "dialog")
    page.until(lambda: told(gateway, "groups")[0]["limits"]["rpm"] is None)
    [group] = told(gateway, "groups")
    assert (group["limits"]["daily_usd"], group["soft"], group["keys"]) == (0.5, False, 1)
    assert ask(gateway, "premium", secret) == 200
    page.says("of $0.50", "section tbody")
    assert page.faults() == []
    page.press("Revoke member")
    page.press("Revoke", "dialog")
    page.press("Delete group search")
    page.press("Delete", "dialog")
    page.until(lambda: told(gateway, "groups") == [])
    assert page.complaints() == []


def test_a_name_that_is_taken_is_told_beside_it(page, gateway):
    make_key(gateway, name="taken")
    page.go("keys")
    page.press("New key")
    page.fill("Name", "taken")
    page.press("Create key", "dialog")
    page.says("The name 'taken' is taken by key_", "dialog .wrong")
    assert page.driver.switch_to.active_element.get_attribute("name") == "name"
    page.press("Cancel", "dialog")


def alias(gateway: Gateway, name: str) -> dict:
    [row] = [row for row in told(gateway, "aliases") if row["name"] == name]
    return row


def test_the_next_request_follows_an_edited_alias(page, gateway):
    page.go("aliases")
    page.says("Next request", "[aria-label=balanced]")
    page.press("Edit balanced")
    page.press("Remove member 2")
    first = page.one("dialog .line input")
    first.clear()
    first.send_keys("mistral/mistral-small-2603")
    page.press("Save", "dialog")
    page.says("The next request goes to mistral/mistral-small-2603.", "#notice")
    page.says("mistral/mistral-small-2603, the only one that can take it", "[aria-label=balanced]")
    assert ask(gateway, "balanced", gateway.key) == 200
    assert told(gateway, "requests?limit=1")[0]["model"] == "mistral/mistral-small-2603"
    text = gateway.config.read_text()
    assert tomllib.loads(text)["aliases"]["balanced"] == ["mistral/mistral-small-2603"]
    assert "# The well-known names." in text


def test_complaints_stand_beside_what_they_are_about(page, gateway):
    before = alias(gateway, "premium")
    page.go("aliases")
    page.press("Edit premium")
    page.press("Add member", "dialog")
    page.all("dialog .line > input")[2].send_keys("openai/gpt-4")
    page.fill("Sticky", "user")
    page.fill("Keep-alive", "soon")
    page.press("Save", "dialog")
    complaint = "unknown model 'openai/gpt-4'; did you mean 'openai/gpt-4o'?"
    page.says(complaint, "dialog .line:nth-child(3) .wrong")
    for name in ("sticky", "keepalive"):
        field = page.one(f"dialog [name={name}]")
        described = field.get_attribute("aria-describedby").split()[-1]
        assert page.one(f"#{described}").text.startswith(f"'{name}' must be ")
    assert page.all("dialog .wrong.top")[0].text == ""  # where what is about no field would stand
    page.press("Cancel", "dialog")
    assert alias(gateway, "premium") == before


def test_a_split_is_made_previewed_and_removed(page, gateway):
    page.go("aliases")
    page.press("New alias")
    page.fill("Name", "premium")
    page.press("Create alias", "dialog")
    page.says("An alias with this name exists", "dialog .wrong")
    page.fill("Name", "ab")
    page.one("dialog label", "A/B split").click()
    page.press("Add member", "dialog")
    typed = ("gpt-4o", "90"), ("claude-3-haiku", "30")
    for line, (name, weight) in zip(page.all("dialog .line"), typed, strict=True):
        member, share = line.find_elements("css selector", "input")
        member.send_keys(name)
        share.send_keys(weight)
    assert [part.text for part in page.all("dialog .part")] == ["75.0 %", "25.0 %"]
    page.press("Create alias", "dialog")
    page.says("75.0 %", "[aria-label=ab]")
    row = alias(gateway, "ab")
    assert row["models"] == ["gpt-4o", "claude-3-haiku"]
    assert row["split"] == {"gpt-4o": 90, "claude-3-haiku": 30}

    page.press("Preview ab")
    page.says("It would go to openai/gpt-4o (by weight).", "dialog .result")
    assert [e.text for e in page.all("dialog tbody td[data-label^=Score]")] == ["75.0 %", "25.0 %"]
    page.press("Close", "dialog")
    page.press("Remove ab")
    page.press("Remove", "dialog")
    page.until(lambda: not page.all("[aria-label=ab]"))
    assert "ab" not in {row["name"] for row in told(gateway, "aliases")}


def test_a_file_that_somebody_else_has_changed_is_not_overwritten(page, gateway):
    text = gateway.config.read_text()
    page.go("aliases")
    page.press("Edit economy")
    gateway.config.write_text(text + "\nnonsense")
    try:
        page.press("Save", "dialog")
        page.says("was changed meanwhile", "dialog .wrong.top")
        assert gateway.config.read_text() == text + "\nnonsense"
    finally:
        gateway.config.write_text(text)


# ---------------------------------------------------------------------- when something is wrong


def test_a_token_is_asked_for_and_kept_in_the_tab(browser, tmp_path):
    text = config_text().replace("[admin]\n", '[admin]\ntoken_env = "ADMIN"\n')
    with Gateway(tmp_path, text, ADMIN="open sesame") as gateway:
        browser.open(gateway.admin, "keys")
        browser.fill("Token", "wrong")
        browser.press("Continue", "dialog")
        browser.says("This is not the admin token of this gateway.", "dialog .wrong")
        browser.fill("Token", "open sesame")
        browser.press("Continue", "dialog")
        browser.says("There are no keys.")
        browser.says("Live", "#connection")
        assert browser.storage() == {"tokenhub-admin-token": "open sesame"}
        assert browser.run("return localStorage.getItem('tokenhub-admin-token')") is None
        browser.go("usage")
        browser.says("No usage in this period.")
        browser.press("Forget token")
        browser.one("dialog h2", "Admin token")
        assert browser.storage() == {}
        browser.press("Cancel", "dialog")
        browser.says("needs its token")
        browser.go("routes")  # where it is wanted again, and not asked for again
        browser.says("needs its token")
        assert not browser.all("dialog")
        browser.press("Enter token")
        browser.one("dialog h2", "Admin token")


def test_what_is_ejected_is_said(browser, tmp_path):
    with Gateway(tmp_path, config_text()) as gateway:
        for _ in range(5):
            ask(gateway, "openai/gpt-4o", x_sim_status="503")
        browser.open(gateway.admin)
        browser.says("ejected", ".panel")
        browser.says("openai/gpt-4o", ".panel li")
        browser.go("routes")
        browser.says("ejected", "tbody .badge.bad")
        browser.says("503", "tbody tr .error-text")


def test_a_lost_connection_is_said_and_found_again(browser, tmp_path):
    text = config_text().replace('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{free_port()}"')
    with Gateway(tmp_path, text) as gateway:
        browser.open(gateway.admin)
        browser.says("No request in the last five minutes.")
        browser.says("Live, simulated providers", "#connection")
    browser.says("Connection lost, last data from ", "#connection")
    browser.go("keys")
    browser.says("No response from the gateway at 127.0.0.1:")
    with Gateway(tmp_path, text):
        browser.says("Live", "#connection")
        browser.says("There are no keys.")
        assert "No response" not in browser.one("main").text


def test_many_tabs_do_not_starve_each_other(page, gateway):
    """Though each reads a stream, and a browser has six connections for a host."""
    driver = page.driver
    first = driver.current_window_handle
    for _ in range(7):
        driver.switch_to.new_window("tab")
        page.open(gateway.admin, "keys")
        page.says("prod")
        page.says("Live", "#connection")
    for handle in set(driver.window_handles) - {first}:
        driver.switch_to.window(handle)
        driver.close()
    driver.switch_to.window(first)
    page.says("Live", "#connection")
    assert ask(gateway, "premium", gateway.key) == 200
    page.until(lambda: page.all(".tile-value")[0].text != "0")


def test_a_path_that_is_no_page_leads_to_the_overview(page):
    page.run("location.hash = '#/__proto__'")
    page.until(lambda: page.one("h1").text == "Overview")
    assert Path(page.driver.current_url).name == "__proto__"
