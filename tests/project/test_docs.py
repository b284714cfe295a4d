"""The documentation, held to the program: its parsers read what is shown, and what is named exists."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tomlkit

from proxy.cli.main import _parser
from proxy.config import parse as config
from proxy.control.admin import openapi
from proxy.control.telemetry import metrics
from proxy.endpoints import PROXIED
from proxy.routing.catalog import Catalog
from proxy.usage.counters import Counted
from proxy.wire.error_response import REASONS
from tests.e2e import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README_LINES = 350  # a page that is read to its end

# What a partial configuration may go without: providers and models of the usual names.
BASE = """
[providers]
openai = { base_url = "https://api.openai.com/v1", endpoints = ["chat", "embeddings", "responses"] }
anthropic = { base_url = "https://api.anthropic.com/v1", endpoints = ["chat", "messages"] }
google = { base_url = "https://example.com/v1" }
[models]
"openai/gpt-4o" = {}
"openai/gpt-4o-mini" = {}
"anthropic/claude-3-5-sonnet" = {}
"anthropic/claude-3-haiku" = {}
"google/gemini-flash" = {}
"""


class Block(NamedTuple):
    """A fenced block; ``kind`` is the first word after the fence, ``more`` the rest of that line."""

    page: Path
    line: int
    kind: str
    more: str
    text: str


def blocks(*kinds: str) -> list[Any]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", text, re.M | re.S):
            line = text.count("\n", 0, match.start()) + 1
            if match[2] in kinds:
                block = Block(page, line, match[2], match[3].strip(), match[4])
                found.append(pytest.param(block, id=f"{page.relative_to(ROOT)}:{line}"))
    assert found
    return found


each_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
# Pages beside them that have links.
ROOT_PAGES = [ROOT / name for name in ("ARCHITECTURE.md", "CHANGELOG.md", "THREAT_MODEL.md")]


# ---------------------------------------------------------------------- what is shown


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {name: merged(base[name], over[name]) for name in base.keys() & over.keys()
            if isinstance(base[name], dict) and isinstance(over[name], dict)}  # fmt: skip
    return base | over | both


@pytest.mark.parametrize("block", blocks("toml"))
def test_configurations_are_read_by_the_parser(block):
    """`toml complete` is a whole file; others are parts, which stand beside the usual providers."""
    assert block.more in ("", "complete"), block.more
    text = block.text
    if not block.more:
        text = tomlkit.dumps(merged(tomllib.loads(BASE), tomllib.loads(text)))
    config.parse(text)
    assert not config.without_effect(text)


@pytest.mark.parametrize("block", [*blocks("python"), *blocks("json")])
def test_python_compiles_and_json_is_json(block):
    if block.kind == "json":
        json.loads(block.text)
    else:
        compile(block.text, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def commands(script: str) -> Iterator[list[str]]:
    """The arguments of each call of tokenhub in a script. Variables stand for 1, which all options take."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        call: list[str] = []
        for token in [*lexer, ";"]:
            if not token or token.strip("();<>|&"):
                call.append(token)
                continue
            yield from _called(call)
            call = []


def _called(call: list[str]) -> Iterator[list[str]]:
    while call and (call[0] in ("{", "do", "then", "exec", "sudo") or re.match(r"\w+=", call[0])):
        call = call[1:]
    if call[:2] == ["docker", "exec"]:
        call = call[3:]
    if call and call[0].rpartition("/")[2] == "tokenhub":
        yield ["1" if word.startswith("$") else word for word in call[1:]]


@pytest.mark.parametrize("block", blocks("sh"))
def test_commands_are_read_by_the_parser(block):
    for call in commands(block.text):
        _parser().parse_args(call)  # SystemExit, with a message: it is none


def test_commands_are_found():
    script = """
a=1 .venv/bin/tokenhub keys list && tokenhub chat "a b" $M >x # tokenhub y
K=$(tokenhub keys create \\
  --name x); docker run -d tokenhub; docker exec box tokenhub models
"""
    found = [["keys", "list"], ["chat", "a b", "1"], ["keys", "create", "--name", "x"], ["models"]]
    assert list(commands(script)) == found


# ---------------------------------------------------------------------- what is named


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.M | re.S)
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        same = sum(1 for known in found if known == anchor or known.startswith(f"{anchor}-"))
        found.add(f"{anchor}-{same}" if anchor in found else anchor)
    return found


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name}: {target}"


@each_page
def test_every_page_can_be_found_and_the_readme_is_short(page):
    if page.name == "README.md":
        assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
        return
    index = ROOT / "docs" / "README.md"
    assert f"({page.relative_to(index.parent)})" in index.read_text()


@each_page
def test_modules_that_are_named_exist(page):
    for name in re.findall(r"`((?:proxy|tests|benchmarks)/[\w/]+\.\w+)`", page.read_text()):
        assert (ROOT / name).exists(), name


def test_modules_in_the_architecture_exist():
    """Paths there begin at the package, or at the repository."""
    named = set(re.findall(r"`([a-z_]+(?:/\w+)*\.py)`", (ROOT / "ARCHITECTURE.md").read_text()))
    assert len(named) > 40
    assert {one for one in named if not ((ROOT / "proxy" / one).exists() or (ROOT / one).exists())} == set()


@each_page
def test_settings_that_are_named_exist(page, reference):
    known = {f"[{setting.section}] {setting.name}" for setting in reference.settings()}
    for section, name in re.findall(r"`\[([a-z.]+)\] (\w+)", page.read_text()):
        assert f"[{section}] {name}" in known


def test_commands_in_a_sentence_exist():
    known = {name for action in _parser()._actions for name in action.choices or ()}
    for page in PAGES:
        assert set(re.findall(r"`tokenhub ([a-z]\w*)", page.read_text())) <= known, page


@each_page
def test_headers_that_are_named_exist(page):
    known = {name.lower() for name in headers()}
    for name in re.findall(r"X-Inferoute-\w+(?:-\w+)?", page.read_text()):
        assert name.lower() in known, name


def test_all_headers_and_paths_are_in_the_api_page():
    text = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in headers() if name not in text] == []
    assert [path for path in PROXIED if path.startswith(b"/v1/") and f"`{path.decode()}`" not in text] == []
    assert [path for path in admin_paths() if f"{path}`" not in text and f"{path}?" not in text] == []


def sources(*, besides: str = "simulator") -> list[str]:
    """All modules but those of a package."""
    return [path.read_text() for path in (ROOT / "proxy").rglob("*.py") if path.parent.name != besides]


def headers() -> set[str]:
    """The gateway's own, as they are written to a client or named in an error."""
    written = set(re.findall(r"\b(X-Inferoute-[A-Z]\w+(?:-[A-Z]\w+)?)", "".join(sources())))
    return written | {"X-TokenHub-Key"}


def admin_paths() -> set[str]:
    return {openapi.PATH, *openapi.document(has_token=True)["paths"]}


def metric_names() -> set[str]:
    """Of all families that /metrics has, with or without a sample."""
    catalog = Catalog(config.parse(tomlkit.dumps(tomllib.loads(BASE))), {}, 0)
    facts = metrics.MetricInputs(Counted({}, {}), catalog, (), 1, True, {}, 0.0, 0.0)
    return set(re.findall(r"^# TYPE (\w+) ", "".join(metrics.exposition(facts)), re.M))


@each_page
def test_metrics_that_are_named_exist(page):
    names = metric_names() | {*metrics._GEN_AI, "gen_ai_token_type"}
    named = re.findall(r"\b(?:tokenhub|gen_ai)_[a-z_]+\b", page.read_text())
    assert {name.removesuffix("_bucket") for name in named} - names == set()


def test_all_metrics_are_in_the_table():
    text = (ROOT / "docs" / "operations.md").read_text()
    assert [name for name in metric_names() if f"`{name}`" not in text] == []


# Banned by docs/words.md, which quotes them; commands.md has the parsers' own words.
STUMBLES = re.compile(r"\b(?:is none|are none|so many|so long|as of|whoever|everybody|nobody)\b", re.I)
PROSE = [
    *(page for page in PAGES if page.name not in ("words.md", "commands.md")),
    *(ROOT / name for name in ("ARCHITECTURE.md", "THREAT_MODEL.md", "routes.toml", "docs/settings.toml")),
    *sorted((ROOT / "proxy" / "control" / "admin" / "dashboard").glob("*.js")),
]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_keeps_to_its_rules(page):
    """Names in backquotes, such as a test's, may be of any words."""
    text = page.read_text()
    prose = re.sub(r"`[^`\n]*`", "", text) if page.suffix == ".md" else text
    assert STUMBLES.findall(prose) == []


# ---------------------------------------------------------------------- errors


def error_codes() -> tuple[set[str], set[str]]:
    """All codes that the gateway may answer with: literals, and the beginnings of composed ones.

    A code is what is passed for a parameter called ``code``. The simulator's are a provider's.
    """
    trees = [ast.parse(source) for source in sources()]
    places: dict[str, set[int]] = {}
    codes: set[str] = set()
    begins: set[str] = set()

    def take(value: ast.expr | None) -> None:
        for node in ast.walk(value) if value is not None else ():
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                begins.add(str(node.values[0].value))
                return
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                codes.add(node.value)

    for tree in trees:
        for owner in ast.walk(tree):
            if isinstance(owner, ast.ClassDef | ast.Module):
                for function in owner.body:
                    if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                        _note_code(function, owner, places, take)
    for tree in trees:
        for call in ast.walk(tree):
            if isinstance(call, ast.Call):
                name = getattr(call.func, "attr", getattr(call.func, "id", ""))
                for word in call.keywords:
                    if word.arg == "code":
                        take(word.value)
                for index in places.get(name, ()):
                    if index < len(call.args):
                        take(call.args[index])
    return {code for code in codes if re.fullmatch(r"[a-z_]+", code)}, begins


def _note_code(function: Any, owner: Any, places: dict[str, set[int]], take: Any) -> None:
    arguments = [*function.args.posonlyargs, *function.args.args]
    names = [argument.arg for argument in arguments]
    defaults = dict(zip(reversed(names), reversed(function.args.defaults), strict=False))
    if "code" in names:
        is_method = isinstance(owner, ast.ClassDef)
        name = owner.name if function.name == "__init__" else function.name
        places.setdefault(name, set()).add(names.index("code") - is_method)
        take(defaults.get("code"))


def table_rows() -> Iterator[list[str]]:
    for line in (ROOT / "docs" / "errors.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0][:1].isdigit():
            yield cells


def test_every_error_code_is_in_the_table_and_none_else():
    codes, begins = error_codes()
    assert len(codes) > 30  # they are found at all
    described = {code for cells in table_rows() for code in re.findall(r"`(\w+)`", cells[2])}
    assert codes - described == set()
    assert {code for code in described - codes if not code.startswith(tuple(begins))} == set()


def test_statuses_and_types_of_the_table_exist():
    types = set(re.findall(r'"(\w+_error|usage_limit_exceeded)"', (ROOT / "proxy" / "errors.py").read_text()))
    for status, kind, *_ in table_rows():
        assert kind.strip("`") in types, kind
        for number in status.split(", "):
            assert int(number) in REASONS or number in ("409", "414"), number  # those are the admin API's


# ---------------------------------------------------------------------- pages made from the code


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("name", ["routes.md", "commands.md"])
def test_pages_made_from_the_code_are_current(name, reference):
    assert (ROOT / "docs" / name).read_text() == reference.PAGES[name](), "run: python docs/generate.py"


def test_a_setting_or_a_value_without_a_description_is_refused(tmp_path, reference, monkeypatch):
    with pytest.raises(LookupError, match="add it to WORDS"):
        reference.words(lambda value: value)
    text = reference.DESCRIPTIONS.read_text()
    less = re.sub(r"^max_body = '''.*?'''$", "", text, flags=re.M | re.S)
    assert less != text
    written = tmp_path / "settings.toml"
    written.write_text(less)
    monkeypatch.setattr(reference, "DESCRIPTIONS", written)
    with pytest.raises(LookupError, match=r"does not describe \[server\] max_body$"):
        reference.routes_page()
    written.write_text(text.replace("max_body =", "max_bodies =", 1))
    with pytest.raises(LookupError, match="does not describe"):
        reference.routes_page()
    written.write_text(text.replace("[auth]", "[auth]\nother = 'x'", 1))
    with pytest.raises(LookupError, match=r"describes unknown settings: \[auth\] other$"):
        reference.routes_page()


def test_what_a_restart_is_for_is_said(reference):
    fixed = {f"{one.section}.{one.name}" for one in reference.settings() if one.needs_restart}
    assert {"server.listen", "admin.token_env", "state.path"} <= fixed
    assert not {"server.max_body", "routing.half_life", "providers.base_url", "aliases.models"} & fixed


def test_defaults_read_as_they_are_written(reference):
    """Each default, as the page shows it, is read by the parser, and changes nothing."""
    plain = config.parse(reference.SAMPLE)
    sections: dict[str, list[str]] = {}
    for setting in reference.settings():
        if setting.section not in ("providers", "models", "aliases") and setting.default != "none":
            value = setting.default.strip("`")
            sections.setdefault(setting.section, []).append(f"{setting.name} = {value}")
    text = "".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())
    assert config.parse(reference.SAMPLE + text) == plain


def test_the_program_says_which_pages_are_old(tmp_path, reference, monkeypatch, capsys):
    monkeypatch.setattr(reference, "DOCS", tmp_path)
    assert reference.main(["--check"]) == 1
    assert "run python docs/generate.py" in capsys.readouterr().err
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0


# ---------------------------------------------------------------------- what is installed

# What is no text of ours; and the list of changes, which says what was.
NO_TEXT = {"vendor", "node_modules", "__pycache__", "build"}
# Pip's options, what it is asked to install, and where the line or the quotation ends.
INSTALL = re.compile(r"""\bpip3?(?:\s+-[^\s`]+(?:\s+[^\s`-][^\s`]*)?)*\s+install\b([^\n`;&|#)]*)""")


def texts() -> Iterator[tuple[str, str]]:
    """Whatever of the repository people read or run."""
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT)
        hidden = any(part.startswith(".") and part != ".ci" for part in inside.parts)
        if hidden or NO_TEXT & {*inside.parts} or not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        try:
            yield str(inside), path.read_text()
        except UnicodeDecodeError:
            continue


def bare_names(text: str) -> list[str]:
    """What a text has pip install from an index by a name that is ours, or might be taken for it. A command
    without any name is told too, as the reader would put in the one that he knows.
    """
    found = []
    for match in INSTALL.finditer(text):
        wanted = [word.strip("'\",.:") for word in match[1].split() if not word.startswith("-")]
        found += [word for word in wanted if re.match(r"tokenhub(-gateway)?($|[\[=<>~!,])", word)]
        if "--upgrade" in match[1] and not wanted:
            found.append(match[0])
    return found


BARE = [
    "pip install tokenhub", "pip install 'tokenhub[otel]'", "`pip install --upgrade`, then",
    ".venv/bin/pip install -q --upgrade tokenhub-gateway", 'python -m pip install "tokenhub==0.2"',
    "pip3 install x tokenhub\n", "pip --python /x/python install tokenhub>=1",
]  # fmt: skip
PATHS = [
    "pip install '/path/to/tokenhub[otel]'", "pip install .", "pip install -e '.[test]'",
    "pip uninstall tokenhub", "pip install -r deploy/docker/build.txt",
    "`pip install --upgrade /path/to/this/repository`, then restart tokenhub",
]  # fmt: skip


def test_a_bare_name_is_found_and_a_path_is_none():
    assert [text for text in BARE if not bare_names(text)] == []
    assert [text for text in PATHS if bare_names(text)] == []


def test_nothing_tells_to_install_the_name_of_somebody_elses_program():
    """PyPI's tokenhub is another program with the same command; and this one is in no index yet."""
    read = {name: text for name, text in texts() if name != "tests/project/test_docs.py"}
    found = {name: bare_names(text) for name, text in read.items()}
    assert len(found) > 300  # they are read at all
    assert {name: names for name, names in found.items() if names} == {}
    extra = re.compile(r"tokenhub(-gateway)?\[(otel|test|bench)")
    assert [name for name, text in read.items() if extra.search(text)] == []
    assert "\nname = tokenhub-gateway\n" in (ROOT / "setup.cfg").read_text()
