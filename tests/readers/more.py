"""Readers that are run by hand, as they are large or in languages that CI has not."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.readers import install
from tests.readers.readers import FOLDS, PROGRAMS, READERS, Reader, compiled

# Debian's; javac finds them nowhere by itself.
JARS = Path("/usr/share/java")
JAVA = ["jackson-core.jar", "jackson-databind.jar", "jackson-annotations.jar", "gson.jar"]
# Of a gateway of others that asks for one; it means nothing anywhere else.
MASTER_KEY = "sk-" + "7f3a" * 12
CLASSES = ":".join(str(JARS / jar) for jar in JAVA)


def java() -> list[str]:
    command = ["javac", "-cp", CLASSES, "-d", "{folder}", "{source}"]
    folder = install.built("java", PROGRAMS / "Jvm.java", command)
    return ["java", "-cp", f"{folder}:{CLASSES}", "Jvm"]


def litellm() -> list[str]:
    """Its proxy, for two models, as the settings below say; ``{url}`` and ``{port}`` are filled in later."""
    folder = install.python("litellm")
    listed = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/ran-{name}", "api_base": "{url}", "api_key": "x"},
        }
        for name in ("cheap", "dear")
    ]
    settings = json.dumps({
        "model_list": listed, "litellm_settings": {"num_retries": 0},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {"master_key": MASTER_KEY},
    })  # fmt: skip
    start = f"PYTHONPATH={folder}"
    script = str(PROGRAMS / "litellm_server.py")
    return [
        "env", start, "LITELLM_LOCAL_MODEL_COST_MAP=True", "NO_PROXY=*", install.sys.executable, "-S", "-B",
        script, "{port}", settings,
    ]  # fmt: skip


def portkey() -> list[str]:
    folder = install.npm(install.HERE / "portkey")
    script = folder / "node_modules/@portkey-ai/gateway/build/start-server.js"
    return ["node", str(script), "--headless", "--port={port}"]


MORE = [
    Reader(
        "go", ("go",),
        lambda: [compiled("go_reader.go", "go", "build", "-o", "{folder}/reader", "{source}")()],
        settings=FOLDS,
    ),
    Reader("java", ("java", "javac", *(str(JARS / jar) for jar in JAVA)), java),
    Reader("php", ("php",), lambda: ["php", str(PROGRAMS / "php_reader.php")]),
    Reader(
        "nlohmann", ("g++", "/usr/include/nlohmann/json.hpp"),
        lambda: [compiled("nlohmann_reader.cpp", "g++", "-O1", "-o", "{folder}/reader", "{source}")()],
    ),
    Reader("litellm", (), litellm, is_gateway=True, auth='api_key_env = "MASTER_KEY"'),
    Reader(
        "portkey", ("node", "npm"), portkey, is_gateway=True,
        settings='headers = { x-portkey-provider = "openai", x-portkey-custom-host = "{url}" }',
    ),
]  # fmt: skip
WANTED = os.environ.get("TOKENHUB_READERS", "")
ASKED_FOR = [*READERS, *MORE] if WANTED == "all" else MORE if WANTED == "more" else READERS
