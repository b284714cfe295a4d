"""What the repository ships to run the gateway with, held to the programs that read it, and to the gateway.

Where such a program is missing, its test is skipped and says so. The image is not built: its steps are read,
and what it runs is run.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from proxy import __version__
from proxy.config.parse import parse, without_effect
from proxy.config.settings import Config
from tests.e2e import TOKENHUB, Gateway, environment, free_port, run
from tests.e2e.asking import ask, fetch, text, wait_for, workers_of
from tests.e2e.one_provider import TEXT, provider_of
from tests.support.deploy import DEPLOY, ROOT, dashboard, needs_prometheus, promtool, read_yaml, rules

KUBERNETES = DEPLOY / "kubernetes"
DOCKER = DEPLOY / "docker"
# The oldest with native sidecars by default, and the latest that schemas are known of.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
SAMPLES = [DOCKER / "config/routes.toml", *sorted(KUBERNETES.rglob("routes.toml"))]


def config_of(path: Path) -> Config:
    return parse(path.read_text(), str(path))


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"not installed: {program}")


def said(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


# ---------------------------------------------------------------------- the sample configurations


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_sample_is_good_and_says_what_the_repositorys_own_file_says(path):
    config, own = config_of(path), config_of(ROOT / "routes.toml")
    assert without_effect(path.read_text(), str(path)) == ()
    assert config.simulator.mode == "never"
    for id, model in config.models.items():
        assert model == own.models[id]
    for name, provider in config.providers.items():
        theirs = own.providers[name]
        assert (provider.base_url, provider.endpoints) == (theirs.base_url, theirs.endpoints)
        assert (provider.auth, provider.auth_at) == (theirs.auth, theirs.auth_at)
    for name, alias in config.aliases.items():
        assert set(alias.models) <= set(own.aliases[name].models)


# ---------------------------------------------------------------------- the image


def steps() -> list[list[tuple[str, str]]]:
    """The instructions of the Dockerfile by stage; first, what stands before the first stage."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().split("\n") if not line.startswith("#")]
    stages: list[list[tuple[str, str]]] = [[]]
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            if name == "FROM":
                stages.append([])
            stages[-1].append((name, rest.strip()))
    return stages


def only(stage: list[tuple[str, str]], name: str) -> str:
    [rest] = [rest for instruction, rest in stage if instruction == name]
    return rest


def healthcheck() -> list[str]:
    return json.loads(only(steps()[-1], "HEALTHCHECK").partition(" CMD ")[2])


def test_the_image_is_that_of_one_base_and_nobody_is_root():
    [(_, base)], build, final = steps()
    assert re.fullmatch(r"BASE=python:3\.1[123]-slim-(bookworm|trixie)", base)
    assert (build[0][1], final[0][1]) == ("${BASE} AS build", "${BASE}")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", only(final, "USER"))
    told = [only(final, name) for name in ("STOPSIGNAL", "ENTRYPOINT", "CMD")]
    assert told == ["SIGTERM", '["tokenhub"]', '["serve"]']
    assert f"VERSION={__version__}" in [rest for name, rest in final if name == "ARG"]


def test_the_last_stage_installs_nothing():
    final = steps()[-1]
    assert only(final, "RUN") == "install -d -o 65532 -g 65532 -m 0700 /var/lib/tokenhub"
    assert [rest for name, rest in final if name == "COPY"] == [
        "--from=build /opt/tokenhub /opt/tokenhub",
        "deploy/docker/config /etc/tokenhub",
    ]
    config = config_of(DOCKER / "config/routes.toml")
    assert Path(config.state.path).parent == Path(json.loads(only(final, "VOLUME"))[0])
    assert Path(only(final, "WORKDIR")) == Path(config.state.path).parent
    assert "TOKENHUB_CONFIG=/etc/tokenhub/routes.toml" in only(final, "ENV")
    ports = [listen.port for listen in (*config.server.listen, config.admin.listen)]
    assert only(final, "EXPOSE").split() == [str(port) for port in ports]


def test_what_is_copied_is_all_that_the_builder_gets():
    copied = set()
    for name, rest in (step for stage in steps() for step in stage):
        if name == "COPY" and not rest.startswith("--from"):
            copied.update(rest.split()[:-1])
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    everything, *rest = [line for line in lines if line[:1] != "#"]
    allowed = {line[1:] for line in rest if line.startswith("!")}
    assert everything == "*"
    assert {line for line in rest if not line.startswith("!")} == {"**/__pycache__", "**/*.so"}
    assert all((ROOT / path).exists() for path in copied)
    pairs = {(path, a) for path in copied for a in allowed if path == a or path.startswith(f"{a}/")}
    assert ({path for path, _ in pairs}, {a for _, a in pairs}) == (copied, allowed)


def pins(path: Path) -> dict[str, Requirement]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    found = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    assert all(str(pin.specifier).startswith("==") for pin in found.values())
    assert len(found) == len(lines)
    return found


def needed(*roots: Requirement) -> dict[str, list[Requirement]]:
    """What these need, and what that needs, by name; as it is installed here."""
    found: dict[str, list[Requirement]] = {}
    todo = list(roots)
    while todo:
        requirement = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in found:
            todo += [Requirement(text) for text in distribution(name).requires or ()]
        found.setdefault(name, []).append(requirement)
    return found


def check_pins(path: Path, *roots: Requirement) -> None:
    pinned, wanted = pins(path), needed(*roots)
    assert pinned.keys() == wanted.keys()
    for name, requirements in wanted.items():
        version = str(pinned[name].specifier)[2:]
        for requirement in requirements:
            assert requirement.specifier.contains(version), f"{path.name}: {name} {version}: {requirement}"


def test_the_versions_in_the_image_are_whole_and_in_range():
    # Of the file, and not of what is installed here, which may be of another day.
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = [line for line in setup["options"]["install_requires"].splitlines() if line]
    check_pins(DOCKER / "runtime.txt", *map(Requirement, wanted))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    check_pins(DOCKER / "build.txt", *map(Requirement, wanted))


def test_the_dockerfile_passes_its_linter():
    done = said(Path(TOKENHUB).with_name("hadolint"), DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_health_check_tells_a_gateway_from_none(tmp_path):
    python, *rest = healthcheck()
    assert (python, "8080" in rest[-1]) == ("python", True)

    def check(port: int) -> int:
        command = [Path(TOKENHUB).with_name(python), *rest[:-1], rest[-1].replace("8080", str(port))]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False, timeout=20).returncode

    with Gateway(tmp_path, text()) as gateway:
        assert check(gateway.host_and_port[1]) == 0
    assert check(gateway.host_and_port[1]) == 1


# What a container engine does, as far as the image relies on it: network, processes and mounts of its own, a
# root that can't be written but for the volume, and a user without rights.
_CONTAINED = """
ip link set lo up
mount -t tmpfs -o mode=0755 tmpfs /var/lib && mkdir -m 0700 /var/lib/tokenhub
mount --make-rprivate / && mount -o remount,bind,ro /
cd /var/lib/tokenhub && exec unshare --user --map-user=65532 --map-group=65532 "$0" "$@"
"""


@dataclass
class Container:
    """The gateway, run as the image runs it; ``pid`` is outside what is 1 inside."""

    outer: subprocess.Popen[str]
    log: Path
    pid: int = 0

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = ("nsenter", "-t", str(self.pid), "-n", "-m", "-U", "--preserve-credentials")
        environ = environment(TOKENHUB_ADMIN_TOKEN="s3cret", TOKENHUB_CONFIG=str(SAMPLES[0]))
        return said(*enter, *command, env=environ, cwd="/")


@pytest.fixture
def container(tmp_path) -> Iterator[Container]:
    if os.geteuid() or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        pytest.skip("namespaces need root, util-linux and iproute2")
    log, config = tmp_path / "log", tmp_path / "routes.toml"
    text, waits = SAMPLES[0].read_text(), 'lame_duck = "5s"'
    assert waits in text
    config.write_text(text.replace(waits, 'lame_duck = "50ms"'))
    serve = [TOKENHUB, "serve", "--config", str(config), "--workers", "2"]
    with log.open("w") as file:
        outer = subprocess.Popen(
            ["unshare", "-mpnf", "--kill-child", "sh", "-ec", _CONTAINED, *serve], stderr=file, text=True,
            env=environment(TOKENHUB_ADMIN_TOKEN="s3cret", OPENAI_API_KEY="sk-x"),
        )  # fmt: skip
    try:
        wait_for(lambda: outer.poll() is not None or "listening on" in log.read_text(), 30)
        if outer.poll() is not None and "Operation not permitted" in log.read_text():
            pytest.skip(f"no namespaces here: {log.read_text()}")
        assert outer.poll() is None, log.read_text()
        [pid] = workers_of(outer.pid)
        yield Container(outer, log, pid)
    finally:
        outer.kill()
        outer.wait()


def test_it_runs_as_the_image_runs_it(container):
    told = Path(f"/proc/{container.pid}/status").read_text()
    assert re.search(r"NSpid:\s+\d+\s+1\n", told)
    assert re.search(r"CapEff:\s+0+\n", told)
    healthy = container.inside(str(Path(TOKENHUB).with_name("python")), *healthcheck()[1:])
    assert (healthy.returncode, healthy.stderr) == (0, "")
    made = container.inside(TOKENHUB, "keys", "create", "--name", "me")
    assert (made.returncode, made.stdout[:3]) == (0, "th-"), made.stderr
    assert container.inside("test", "-e", "/var/lib/tokenhub/tokenhub.db").returncode == 0
    assert container.inside("touch", "/etc/tokenhub-test").returncode == 1
    os.kill(container.pid, signal.SIGTERM)
    assert container.outer.wait(20) == 0
    last = json.loads(container.log.read_text().splitlines()[-1])
    assert last["message"] == "stopped"


# ---------------------------------------------------------------------- compose.yaml


@pytest.fixture
def compose() -> dict[str, Any]:
    [document] = read_yaml(DOCKER / "compose.yaml")
    return document


def test_compose_publishes_to_this_machine_alone_and_holds_no_secret(compose):
    services = compose["services"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["cap_drop"] == ["ALL"]
        assert service["healthcheck"]
        if "build" not in service:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        for variable, value in service.get("environment", {}).items():
            if re.search("KEY|TOKEN|PASSWORD|SECRET", variable):
                assert value.startswith(f"${{{variable}:"), variable
    assert set(compose["secrets"]) == set(services["prometheus"]["secrets"])
    assert not services["prometheus"].get("read_only")  # secrets from the environment are copied in


def test_compose_and_what_it_mounts_fit_together(compose):
    services = compose["services"]
    config = config_of(SAMPLES[0])
    gateway, prometheus, grafana = (services[name] for name in ("gateway", "prometheus", "grafana"))
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (DOCKER / source).is_dir() if source.startswith(".") else source in compose["volumes"]
    asked = {config.admin.token_env, *(provider.api_key_env for provider in config.providers.values())}
    assert set(gateway["environment"]) == asked
    build = gateway["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).exists()
    ports = [listen.port for listen in (*config.server.listen, config.admin.listen)]
    assert gateway["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]
    assert int(gateway["stop_grace_period"][:-1]) > config.server.lame_duck_s + config.server.drain_timeout_s
    [scraped] = read_yaml(DEPLOY / "prometheus/prometheus.yml")[0]["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": [f"gateway:{config.admin.listen.port}"]}]
    assert scraped["authorization"]["credentials_file"] == f"/run/secrets/{prometheus['secrets'][0]}"
    [sources] = read_yaml(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")
    assert [source["url"] for source in sources["datasources"]] == ["http://prometheus:9090"]
    [boards] = read_yaml(DEPLOY / "grafana/provisioning/dashboards/tokenhub.yaml")
    [provider] = boards["providers"]
    targets = [volume.split(":")[1] for volume in grafana["volumes"]]
    assert provider["options"]["path"] in targets
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana/dashboards" / Path(home).relative_to(provider["options"]["path"])).exists()


# ---------------------------------------------------------------------- Kubernetes

OF_OTHERS = ("kustomization.yaml", "podmonitor.yaml")  # than Kubernetes itself
MANIFESTS = [path for path in sorted(KUBERNETES.rglob("*.yaml")) if path.name not in OF_OTHERS]


def documents(folder: str) -> dict[str, Any]:
    """The manifests of a folder by kind."""
    paths = sorted((KUBERNETES / folder).glob("*.yaml"))
    return {document["kind"]: document for path in paths for document in read_yaml(path)}


def pod_of(folder: str) -> dict[str, Any]:
    return documents(folder)["Deployment"]["spec"]["template"]["spec"]


def gateway_of(pod: dict[str, Any]) -> dict[str, Any]:
    containers = [*pod["containers"], *pod.get("initContainers", ())]
    [found] = [container for container in containers if container["name"] == "tokenhub"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_manifest_is_as_the_schemas_have_it(path, version):
    for document in read_yaml(path):
        kubernetes_validate.validate(document, version, strict=True)


@needs("kubectl")
@pytest.mark.parametrize("folder", ["gateway", "single", "sidecar"])
def test_what_kustomize_makes_is_as_the_schemas_have_it(folder):
    made = built(folder)
    for document in made:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
    config, deployment = (of_kind(made, kind) for kind in ("ConfigMap", "Deployment"))
    source = KUBERNETES / ("gateway" if folder == "single" else folder) / "routes.toml"
    assert config["data"] == {"routes.toml": source.read_text()}
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert {"name": "routes", "configMap": {"name": config["metadata"]["name"]}} in volumes


def of_kind(documents: list[Any], kind: str) -> Any:
    [found] = [document for document in documents if document["kind"] == kind]
    return found


def built(folder: str) -> list[Any]:
    done = said("kubectl", "kustomize", KUBERNETES / folder)
    assert done.returncode == 0, done.stderr
    return read_yaml(done.stdout)


@needs("kubectl")
def test_the_single_one_has_a_volume_and_nothing_that_is_for_several():
    made = {document["kind"]: document for document in built("single")}
    assert not {"HorizontalPodAutoscaler", "PodDisruptionBudget"} & made.keys()
    spec = made["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    assert "initContainers" not in pod
    claim = made["PersistentVolumeClaim"]["metadata"]["name"]
    assert {"name": "state", "persistentVolumeClaim": {"claimName": claim}} in pod["volumes"]
    mounted = {mount["name"] for mount in gateway_of(pod)["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("folder", ["gateway", "sidecar"])
def test_a_pod_is_confined_and_given_the_time_it_needs(folder):
    pod, config = pod_of(folder), config_of(KUBERNETES / folder / "routes.toml")
    server = config.server
    assert pod["terminationGracePeriodSeconds"] >= server.lame_duck_s + server.drain_timeout_s + 10
    assert pod["automountServiceAccountToken"] is False
    context = pod["securityContext"]
    assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert context["runAsUser"] == int(only(steps()[-1], "USER").partition(":")[0])
    for container in (*pod["containers"], *pod["initContainers"]):
        confined = container["securityContext"]
        assert (confined["readOnlyRootFilesystem"], confined["allowPrivilegeEscalation"]) == (True, False)
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("folder", ["gateway", "sidecar"])
def test_what_a_pod_mounts_is_what_its_configuration_reads(folder):
    pod, config = pod_of(folder), config_of(KUBERNETES / folder / "routes.toml")
    container = gateway_of(pod)
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["TOKENHUB_CONFIG"]["value"] == "/etc/tokenhub/routes.toml"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    text = (KUBERNETES / folder / "kustomization.yaml").read_text()
    [generated] = read_yaml(KUBERNETES / folder / "kustomization.yaml")[0]["configMapGenerator"]
    assert volumes[mounts["/etc/tokenhub"]]["configMap"] == {"name": generated["name"]}
    for provider in config.providers.values():
        path = Path(provider.api_key_file)
        secret = volumes[mounts[str(path.parent)]]["secret"]["secretName"]
        # The command that makes it is there to be copied.
        assert re.search(rf"create secret generic {secret} .*--from-file={path.name}=", text)
    secrets = {volume["secret"]["secretName"] for volume in volumes.values() if "secret" in volume}
    if config.admin.token_env:
        secret = variables[config.admin.token_env]["valueFrom"]["secretKeyRef"]
        assert f"create secret generic {secret['name']} --from-literal={secret['key']}=" in text
        secrets.add(secret["name"])
    assert set(re.findall(r"create secret generic (\S+)", text)) == secrets
    assert not re.search(r"\bsk-|th-\w{20}", text)


def test_the_gateways_parts_go_by_the_same_names_and_ports():
    found, config = documents("gateway"), config_of(KUBERNETES / "gateway/routes.toml")
    pod = pod_of("gateway")
    container = gateway_of(pod)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": config.server.listen[0].port, "admin": config.admin.listen.port}
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert found["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["port"] == "admin"
    let_in = [rule["ports"] for rule in found["NetworkPolicy"]["spec"]["ingress"]]
    assert let_in == [[{"port": "http"}], [{"port": "admin"}]]
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        found["PodMonitor"]["spec"]["selector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod["topologySpreadConstraints"]),
    ):
        assert selector == labels
    target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", found["Deployment"]["metadata"]["name"])
    assert "replicas" not in found["Deployment"]["spec"]
    assert pod["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    [state] = [volume for volume in pod["volumes"] if volume["name"] == "state"]
    assert state["emptyDir"]["sizeLimit"] == "1Gi"
    assert config.state.ledger_keep_bytes < 1 << 30


def test_probes_ask_what_the_gateway_answers(tmp_path):
    gateway, sidecar = gateway_of(pod_of("gateway")), gateway_of(pod_of("sidecar"))
    asked = [gateway[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    paths, ports = {one["path"] for one in asked}, {one["port"] for one in asked}
    assert ports == {"http"}
    assert paths == {"/healthz", "/readyz"}
    with Gateway(tmp_path, text()) as running:
        assert {fetch(running, "GET", path).status for path in paths} == {200}
    # Nobody but the pod reaches a sidecar, the kubelet neither.
    command = sidecar["livenessProbe"]["exec"]["command"]
    assert sidecar["startupProbe"]["exec"]["command"] == command
    assert [*command[:-1], command[-1].strip()] == healthcheck()
    assert sidecar["restartPolicy"] == "Always"


def test_keys_that_are_made_beforehand_open_each_pod(tmp_path):
    """The commands of kustomization.yaml, and of the init container."""
    config = (KUBERNETES / "gateway/routes.toml").read_text()
    (tmp_path / "routes.toml").write_text(config.replace('"0.0.0.0:8081"', f'"127.0.0.1:{free_port()}"'))
    made = run("keys", "create", "--config", "routes.toml", "--name", "my-app", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"routes.toml", "tokenhub.db"}
    [init] = pod_of("gateway")["initContainers"]
    assert [mount["mountPath"] for mount in init["volumeMounts"]] == ["/keys", "/var/lib/tokenhub"]
    pods = [tmp_path / "a", tmp_path / "b"]
    with provider_of() as url:
        for pod in pods:
            pod.mkdir()
            command = init["command"][-1].replace("/keys/", f"{tmp_path}/")
            command = command.replace("/var/lib/tokenhub/", f"{pod}/")
            for _ in range(2):  # the second time it is there
                subprocess.run([*init["command"][:-1], command], check=True, timeout=10)
            assert (pod / "tokenhub.db").stat().st_mode & 0o777 == 0o600
            settings = TEXT.format(url=url).replace("t.db", "tokenhub.db")
            with Gateway(pod, settings) as gateway:
                assert ask(gateway) == 401
                assert ask(gateway, key=made.stdout.strip()) == 200


# ---------------------------------------------------------------------- systemd


@pytest.fixture
def unit(tmp_path) -> Path:
    """The unit, with the program where it is here."""
    path = tmp_path / "tokenhub.service"
    text = (DEPLOY / "systemd/tokenhub.service").read_text()
    assert "ExecStart=/opt/tokenhub/bin/tokenhub serve\n" in text
    path.write_text(text.replace("/opt/tokenhub/bin/tokenhub", TOKENHUB))
    return path


@needs("systemd-analyze")
def test_systemd_reads_the_unit_without_a_word(unit):
    done = said("systemd-analyze", "verify", "--man=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs("systemd-analyze")
def test_the_unit_is_hardly_exposed(unit):
    done = said("systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", unit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_waits_as_long_as_the_gateway_may_drain(unit):
    [seconds] = re.findall(r"^TimeoutStopSec=(\d+)s$", unit.read_text(), re.MULTILINE)
    server = config_of(ROOT / "routes.toml").server
    assert int(seconds) > server.lame_duck_s + server.drain_timeout_s


# ---------------------------------------------------------------------- Prometheus and Grafana


@needs_prometheus
def test_promtool_finds_no_fault(tmp_path):
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    (tmp_path / "token").write_text("s3cret")
    config = folder / "prometheus.yml"
    config.write_text(config.read_text().replace("/run/secrets/admin_token", str(tmp_path / "token")))
    promtool("check", "config", "--lint-fatal", str(config))
    promtool("check", "rules", "--lint-fatal", str(folder / "alerts.yml"))


@needs_prometheus
def test_each_alert_goes_off_when_it_should():
    promtool("test", "rules", *map(str, sorted((DEPLOY / "prometheus").glob("*_test.yml"))))


def test_each_alert_is_tested_and_says_what_to_do():
    tested: dict[str, list[bool]] = {}
    for path in (DEPLOY / "prometheus").glob("*_test.yml"):
        for case in read_yaml(path)[0]["tests"]:
            for alert in case["alert_rule_test"]:
                tested.setdefault(alert["alertname"], []).append(bool(alert["exp_alerts"]))
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {alert["alert"] for alert in alerts} == {name for name, fires in tested.items() if any(fires)}
    for alert in alerts:
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert set(alert["annotations"]) == {"summary", "description"}


def test_the_dashboard_can_be_provisioned():
    board = dashboard()
    assert (board["uid"], board["title"]) == ("tokenhub", "TokenHub")
    assert "id" not in board  # Grafana gives it
    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query", "model": "query"}
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in cells) < 24  # a dashboard is 24 wide
        assert not cells & taken, panel["title"]
        taken |= cells
        for holder in (panel, *panel.get("targets", ())) if panel["type"] != "row" else ():
            assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
