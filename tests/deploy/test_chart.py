"""The Helm chart: what it renders, and what it refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from regard.config import ServerSettings

from .conftest import CHART, VALUES_SETS, Chart, Resource

DEPLOYMENT = "Deployment/test-regard"
OLDEST_AND_NEWEST_KUBERNETES = ("1.30.0", "1.35.0")
CUSTOM_KINDS = {"PrometheusRule", "ServiceMonitor"}
MODELS = ("--set", "models.claim=models")

values_sets = pytest.mark.parametrize("values", VALUES_SETS, ids=[path.stem for path in VALUES_SETS])


@values_sets
def test_helm_finds_nothing_to_complain_about(chart: Chart, values: Path) -> None:
    """`helm lint --strict` passes with every set of values."""
    linted = chart.run("lint --strict", str(CHART), "--values", str(values))

    assert linted.returncode == 0, linted.stdout + linted.stderr


@values_sets
@pytest.mark.parametrize("kubernetes", OLDEST_AND_NEWEST_KUBERNETES)
def test_kubernetes_knows_every_field(chart: Chart, values: Path, kubernetes: str) -> None:
    """Every resource has the fields that Kubernetes' own schemas give it, and no other."""
    schemas = pytest.importorskip("kubernetes_validate", reason="there are no schemas: `make tools` fetches them")
    resources = chart.render("--values", str(values), "--kube-version", kubernetes).values()

    for resource in resources:
        if resource["kind"] not in CUSTOM_KINDS:
            schemas.validate(resource, kubernetes, strict=True)

    assert {"Deployment", "Service", "ConfigMap"} <= {resource["kind"] for resource in resources}


def test_resources_that_nobody_asked_for_stay_out(chart: Chart) -> None:
    """With the least values there is neither an autoscaler nor anything of monitoring."""
    assert set(chart.render(*MODELS)) == {
        "ConfigMap/test-regard",
        DEPLOYMENT,
        "Pod/test-regard-test",
        "PodDisruptionBudget/test-regard",
        "Service/test-regard",
        "Service/test-regard-headless",
        "ServiceAccount/test-regard",
    }


def test_resources_that_are_asked_for_are_there(chart: Chart) -> None:
    """With every value given there are all, and the autoscaler alone sets the number of pods."""
    resources = chart.render("--values", str(CHART / "ci" / "everything-values.yaml"))

    assert {
        "ConfigMap/attention-dashboard",
        "HorizontalPodAutoscaler/attention",
        "PrometheusRule/attention",
        "ServiceMonitor/attention",
    } <= set(resources)
    assert "replicas" not in resources["Deployment/attention"]["spec"]


@values_sets
def test_ports_are_the_settings(chart: Chart, values: Path) -> None:
    """Containers, probes and Services all speak of the ports that the settings file gives."""
    resources = chart.render("--values", str(values))
    deployment = _of_kind(resources, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    settings = _settings(resources)

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": settings["grpc_port"], "http": settings["http_port"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": settings["grpc_port"], "service": ""}
    for service in (resource for resource in resources.values() if resource["kind"] == "Service"):
        assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]}.items() <= ports.items()


@values_sets
def test_notes_name_what_is_there(chart: Chart, values: Path) -> None:
    """What a person is told after the installation names the release's own Services and ports."""
    services = [one for one in chart.render("--values", str(values)).values() if one["kind"] == "Service"]
    told = chart.run("install test", str(CHART), "--dry-run=client", "--namespace", "words", "--values", str(values))

    assert told.returncode == 0, told.stderr
    notes = told.stdout.partition("NOTES:")[2]
    for service in services:
        for port in service["spec"]["ports"]:
            assert f"{service['metadata']['name']}.words:{port['port']}" in notes


@values_sets
def test_services_and_budget_select_the_pods_and_not_the_test(chart: Chart, values: Path) -> None:
    """What selects pods finds the Deployment's, and the pod of `helm test` is not among them."""
    resources = chart.render("--values", str(values))
    labels = _of_kind(resources, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    test_labels = _of_kind(resources, "Pod")["metadata"]["labels"].items()

    selectors = [one["spec"]["selector"] for one in resources.values() if "selector" in one.get("spec", {})]
    for selector in selectors:
        selected = selector.get("matchLabels", selector).items()
        assert selected <= labels
        assert not selected <= test_labels
    assert len(selectors) >= 3


@values_sets
def test_pods_have_no_rights(chart: Chart, values: Path) -> None:
    """Every container runs as a user that isn't root, can't become it, and can't write its own files."""
    resources = chart.render("--values", str(values))

    for pod in (_of_kind(resources, "Deployment")["spec"]["template"]["spec"], _of_kind(resources, "Pod")["spec"]):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@values_sets
def test_every_container_says_what_it_takes(chart: Chart, values: Path) -> None:
    """So does the one that copies models, and that of `helm test`: a namespace with a quota refuses what doesn't."""
    resources = chart.render("--values", str(values))

    for pod in (_of_kind(resources, "Deployment")["spec"]["template"]["spec"], _of_kind(resources, "Pod")["spec"]):
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_a_rollout_replaces_pods_as_the_values_say(chart: Chart) -> None:
    """A new pod comes before the old one goes, unless there is no room for both."""

    def strategy(*arguments: str) -> Resource:
        found: Resource = chart.render(*MODELS, *arguments)[DEPLOYMENT]["spec"]["strategy"]
        return found

    assert strategy() == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert strategy("--set", "strategy.type=Recreate") == {"type": "Recreate"}
    in_place = "strategy.rollingUpdate.maxSurge=0,strategy.rollingUpdate.maxUnavailable=50%"
    assert strategy("--set", in_place)["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": "50%"}


@pytest.mark.parametrize(("drain_timeout_s", "pre_stop_s"), [(30, 5), (0, 0), (90.5, 20)])
def test_pods_may_finish_what_they_accepted(chart: Chart, drain_timeout_s: float, pre_stop_s: int) -> None:
    """A pod is killed only some seconds after the sleep before its SIGTERM and the whole drain."""
    given = ("--set-json", f"settings.drain_timeout_s={drain_timeout_s},preStopSeconds={pre_stop_s}")
    pod = chart.render(*MODELS, *given)[DEPLOYMENT]["spec"]["template"]["spec"]

    slept = pod["containers"][0].get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})["preStop"]["sleep"]["seconds"]
    assert slept == pre_stop_s
    assert pod["terminationGracePeriodSeconds"] >= slept + drain_timeout_s + 5


def test_pods_are_replaced_when_their_settings_change(chart: Chart) -> None:
    """The pods carry a checksum of the settings file: another file, other pods."""

    def checksum(*arguments: str) -> str:
        template: Resource = chart.render(*MODELS, *arguments)[DEPLOYMENT]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum("--set", "replicas=3")
    assert checksum() != checksum("--set", "settings.log_level=debug")


@pytest.mark.parametrize(
    ("given", "volume"),
    [
        ("models.claim=shared", {"persistentVolumeClaim": {"claimName": "shared", "readOnly": True}}),
        ("models.hostPath=/srv/models", {"hostPath": {"path": "/srv/models", "type": "Directory"}}),
        ("models.image=models:1", {"emptyDir": {}}),
    ],
)
def test_models_come_from_where_the_values_say(chart: Chart, given: str, volume: Resource) -> None:
    """A claim, a directory of the node or an image's copy is mounted where the settings file looks."""
    resources = chart.render("--set", given)
    pod = resources[DEPLOYMENT]["spec"]["template"]["spec"]

    assert {"name": "models", **volume} in pod["volumes"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert _settings(resources)["models"] == [mounts["models"]]
    assert [one["image"] for one in pod.get("initContainers", [])] == ["models:1"] * ("image" in given)


def test_a_gpu_is_asked_for_where_there_shall_be_one(chart: Chart) -> None:
    """The pod's limits get the GPUs beside what they hold already, and its containers the class that sees them."""
    pod = chart.render("--values", str(CHART / "ci" / "gpu-values.yaml"))[DEPLOYMENT]["spec"]["template"]["spec"]

    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "2", "memory": "1Gi"},
        "limits": {"memory": "2Gi", "nvidia.com/gpu": 1},
    }
    assert pod["runtimeClassName"] == "nvidia"


def test_a_gpu_of_another_name_is_asked_for_by_it(chart: Chart) -> None:
    """Slices of a GPU, or another device plugin's GPUs, have names of their own."""
    pod = chart.render(*MODELS, "--set", "gpu.count=1,gpu.resource=nvidia.com/mig-1g.10gb")[DEPLOYMENT]

    limits = pod["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"memory": "2Gi", "nvidia.com/mig-1g.10gb": 1}


def test_no_gpu_is_asked_for_otherwise(chart: Chart) -> None:
    """A pod on CPUs has neither the limit nor the class."""
    pod = chart.render(*MODELS)[DEPLOYMENT]["spec"]["template"]["spec"]

    assert pod["containers"][0]["resources"]["limits"] == {"memory": "2Gi"}
    assert "runtimeClassName" not in pod


def test_copying_models_takes_no_gpu(chart: Chart) -> None:
    """What copies them has the server's resources without its GPU."""
    pod = chart.render("--set", "models.image=models:1,gpu.count=1")[DEPLOYMENT]["spec"]["template"]["spec"]

    assert pod["initContainers"][0]["resources"]["limits"] == {"memory": "2Gi"}
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "2Gi", "nvidia.com/gpu": 1}


@pytest.mark.parametrize("given", ["replicas=1", "models.claim=a,models.image=b"])
def test_models_must_come_from_one_place(chart: Chart, given: str) -> None:
    """None, or two of them, is refused in words."""
    assert "give exactly one of models.claim, models.hostPath and models.image" in chart.refusal("--set", given)


def test_both_ports_must_differ(chart: Chart) -> None:
    """One port for gRPC and HTTP, which the server refuses, is refused before there is a pod."""
    said = chart.refusal(*MODELS, "--set", "settings.http_port=50051")

    assert "grpc_port and http_port are both 50051; give each a port of its own" in said


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("strategy.rollingUpdate.maxSurge=0", "maxSurge and maxUnavailable are both 0"),
        ("strategy.rollingUpdate.maxSurge=0%", "maxSurge and maxUnavailable are both 0"),
        (
            "autoscaling.enabled=true,autoscaling.minReplicas=9,autoscaling.maxReplicas=2",
            "minReplicas, 9, is more than maxReplicas, 2",
        ),
        (r"podLabels.app\.kubernetes\.io/name=x", "podLabels: app.kubernetes.io/name is the chart's own"),
        (r"podLabels.app\.kubernetes\.io/instance=x", "podLabels: app.kubernetes.io/instance is the chart's own"),
        (r"podLabels.helm\.sh/chart=x", "podLabels: helm.sh/chart is the chart's own"),
    ],
)
def test_values_that_do_not_go_together_are_refused_in_words(chart: Chart, wrong: str, why: str) -> None:
    """Kubernetes would refuse them only where they are installed."""
    assert why in chart.refusal(*MODELS, "--set", wrong)


def test_values_that_go_together_are_taken(chart: Chart) -> None:
    """What is near to what is refused, and which Kubernetes takes, stays as it was."""
    given = [
        "strategy.type=Recreate,strategy.rollingUpdate.maxSurge=0",
        "strategy.rollingUpdate.maxSurge=0,strategy.rollingUpdate.maxUnavailable=100%",
        "strategy.rollingUpdate.maxSurge=150%",
        "autoscaling.minReplicas=9,autoscaling.maxReplicas=2",
        "autoscaling.enabled=true,autoscaling.minReplicas=2,autoscaling.maxReplicas=2",
        "probes.readiness.successThreshold=3,probes.liveness.successThreshold=1",
        r"podLabels.example\.com/name=x",
    ]
    for values in given:
        assert DEPLOYMENT in chart.render(*MODELS, "--set", values)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("settings.grpc_port=70000", "/settings/grpc_port"),
        ("settings.grpc_port=0", "/settings/grpc_port"),
        ("settings.max_inputs=many", "/settings/max_inputs"),
        ("settings.engine.max_rows=0", "/settings/engine/max_rows"),
        ("settings.engine.max_encode_share=1", "/settings/engine/max_encode_share"),
        ("settings.engine.instances=many", "/settings/engine/instances"),
        ("settings.engine.provider=abacus", "/settings/engine/provider"),
        ("settings.log_level=loud", "/settings/log_level"),
        ("settings.max_row=3", "max_row"),
        ("replicas=-1", "/replicas"),
        ("replica=2", "replica"),
        ("image.digest=abc", "digest"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("models.hostPath=models", "/models/hostPath"),
        ("resources.limits.memory=lots", "/resources/limits/memory"),
        ("gpu.count=-1", "/gpu/count"),
        ("gpu.resource=gpus", "/gpu/resource"),
        ("probes.liveness.period=3", "period"),
        ("probes.liveness.successThreshold=3", "/probes/liveness/successThreshold"),
        ("probes.startup.successThreshold=2", "/probes/startup/successThreshold"),
        ('alerts.job="', "/alerts/job"),
        ("strategy.type=Sometimes", "/strategy/type"),
        ("strategy.rollingUpdate.maxSurge=half", "/strategy/rollingUpdate/maxSurge"),
        ("strategy.rollingUpdate.maxUnavailable=101%", "/strategy/rollingUpdate/maxUnavailable"),
        ("podDisruptionBudget.maxUnavailable=half", "/podDisruptionBudget/maxUnavailable"),
        ("podDisruptionBudget.maxUnavailable=999%", "/podDisruptionBudget/maxUnavailable"),
        ("service.type=ExternalName", "/service/type"),
        ("user=0", "/user"),
    ],
)
def test_a_wrong_value_is_refused_by_name(chart: Chart, wrong: str, named: str) -> None:
    """The schema names what is unknown or out of range, before anything is rendered."""
    said = chart.refusal(*MODELS, "--set", wrong)

    assert "values don't meet the specifications of the schema" in said
    assert named in said


def test_schema_knows_every_value() -> None:
    """No object of values.yaml is open to misspelt names, and none has a value that the schema lacks."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        while "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
            assert set(values) <= set(schema["properties"]), path
            for name, value in values.items():
                if isinstance(value, dict):
                    compare(value, schema["properties"][name], f"{path}.{name}")

    whole = schema
    compare(values, schema, "values")


def test_settings_are_those_of_the_server() -> None:
    """The chart knows every setting of the server but where models lie, with the server's own bounds."""
    mine = json.loads((CHART / "values.schema.json").read_text())["properties"]["settings"]["properties"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())["settings"]
    servers = ServerSettings.model_json_schema()
    engine = servers["$defs"]["EngineSettings"]["properties"]
    server = servers["properties"].keys() - {"models"}

    assert set(values) == set(mine) == server
    assert set(values["engine"]) == set(mine["engine"]["properties"]) == set(engine)
    for name, bounds in [*servers["properties"].items(), *engine.items()]:
        given = mine["engine"]["properties"].get(name) or mine.get(name, {})
        for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum"):
            if keyword in bounds and "$ref" not in given:
                assert given[keyword] == bounds[keyword], f"{name}: {keyword}"


def _of_kind(resources: dict[str, Resource], kind: str) -> Resource:
    (found,) = (resource for resource in resources.values() if resource["kind"] == kind)
    return found


def _settings(resources: dict[str, Resource]) -> dict[str, Any]:
    (text,) = (one["data"]["regard.toml"] for one in resources.values() if "regard.toml" in one.get("data", {}))
    return tomllib.loads(text)
