"""The manifests of deploy/kubernetes, rendered by kubectl and validated strictly."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import kubernetes_validate
import pytest
import yaml

from app.settings import Settings, unknown_variables
from benchmarks.cluster import KUBERNETES
from benchmarks.environments import python_of
from tests.conftest import ROOT
from tests.contract.process import running

SCHEMAS = Path(__file__).parent / "schemas"
KUBECTL = Path(sys.executable).with_name("kubectl")
# The oldest that has what the manifests use, and the newest that the validator knows.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
# Components are rendered with the base.
FOLDERS = [
    "base",
    *(f"overlays/{path.name}" for path in sorted((KUBERNETES / "overlays").iterdir())),
    *(f"components/{path.name}" for path in sorted((KUBERNETES / "components").iterdir())),
    "kserve",
]
# What checkov finds missing, and why it is.
NOT_CHECKED = {
    "CKV_K8S_15": "IfNotPresent: a tag names one build of the image",
    "CKV_K8S_35": "the service reads its key from the environment only",
    "CKV_K8S_43": "the digest of an image is known once it is in a registry",
}


def render(folder: str, tmp_path: Path) -> str:
    path = KUBERNETES / folder
    if folder.startswith("components/"):
        parts = {"resources": KUBERNETES / "base", "components": path}
        lists = {kind: [os.path.relpath(part, tmp_path)] for kind, part in parts.items()}
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": "digits", **lists}))
        path = tmp_path
    return kustomize(path)


def kustomize(path: Path) -> str:
    done = subprocess.run([KUBECTL, "kustomize", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # warnings of what is deprecated
    return done.stdout


@pytest.fixture(params=FOLDERS, scope="module")
def resources(request, tmp_path_factory):
    return list(yaml.safe_load_all(render(request.param, tmp_path_factory.mktemp("overlay"))))


def test_the_kustomization_of_the_documentation_renders(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    here = example.replace("../deploy", os.path.relpath(ROOT / "deploy", tmp_path))
    (tmp_path / "kustomization.yaml").write_text(here)
    (deployment,) = (
        each
        for each in yaml.safe_load_all(kustomize(tmp_path))
        if each["kind"] == "Deployment" and each["metadata"]["name"] == "digits"
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.org/digits:0.1.0"


def pods(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each resource that makes pods, with the PodSpec as `spec`."""
    found = []
    for resource in resources:
        if resource["kind"] == "Deployment":
            found.append(resource["spec"]["template"])
        elif resource["kind"] == "InferenceService":
            own = json.loads((SCHEMAS / "inferenceservice.json").read_text())
            own = own["properties"]["spec"]["properties"]["predictor"]["properties"].keys() - {"containers"}
            predictor = resource["spec"]["predictor"]
            spec = {name: value for name, value in predictor.items() if name not in own}
            found.append({"metadata": resource["metadata"], "spec": spec})
    return found


def test_every_resource_is_valid_strictly(resources):
    for resource in resources:
        schema = SCHEMAS / f"{resource['kind'].lower()}.json"
        if schema.exists():
            jsonschema.validate(resource, json.loads(schema.read_text()))
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(resource, version, strict=True)
    for pod in pods(resources):
        for version in VERSIONS:
            kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **pod}, version, strict=True)


def test_a_misspelt_field_is_not_valid(tmp_path):
    (deployment, *_) = (each for each in yaml.safe_load_all(render("base", tmp_path)) if each["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def test_names_that_resources_refer_to_exist(resources):
    names = {(resource["kind"], resource["metadata"]["name"]) for resource in resources}
    for pod in pods(resources):
        spec = pod["spec"]
        if "serviceAccountName" in spec:
            assert ("ServiceAccount", spec["serviceAccountName"]) in names
        maps = [volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume]
        for container in spec["containers"]:
            maps += [source["configMapRef"]["name"] for source in container.get("envFrom", [])]
        assert {("ConfigMap", name) for name in maps} <= names
    for resource in resources:
        if target := resource.get("spec", {}).get("scaleTargetRef"):
            assert ("Deployment", target["name"]) in names
    labels = [pod["metadata"]["labels"] for pod in pods(resources)]
    for resource in resources:
        if resource["kind"] in {"Service", "PodDisruptionBudget", "NetworkPolicy"}:
            selector = resource["spec"].get("podSelector") or resource["spec"]["selector"]
            wanted = selector.get("matchLabels", selector).items()
            assert any(wanted <= each.items() for each in labels), resource["metadata"]["name"]
    ports = {port["name"] for pod in pods(resources) for each in pod["spec"]["containers"] for port in each["ports"]}
    for resource in resources:
        if resource["kind"] == "Service":
            assert {port["targetPort"] for port in resource["spec"]["ports"]} <= ports


def test_a_scaled_deployment_has_no_number_of_replicas(resources):
    scaled = {
        resource["spec"]["scaleTargetRef"]["name"]
        for resource in resources
        if resource["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}
    }
    for resource in resources:
        if resource["kind"] == "Deployment":
            assert ("replicas" in resource["spec"]) == (resource["metadata"]["name"] not in scaled)


def settings_of(resources: list[dict[str, Any]], container: dict[str, Any]) -> dict[str, str]:
    maps = {resource["metadata"]["name"]: resource["data"] for resource in resources if resource["kind"] == "ConfigMap"}
    found = {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    return found


def test_a_pod_has_the_time_that_its_shutdown_takes(resources):
    for pod in pods(resources):
        spec, container = pod["spec"], pod["spec"]["containers"][0]
        grace_s = spec["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
        if container["name"] == "haproxy":
            (configuration,) = (
                each["data"]["haproxy.cfg"] for each in resources if "haproxy.cfg" in each.get("data", {})
            )
            (needed_s,) = map(int, re.findall(r"hard-stop-after (\d+)s", configuration))
        else:
            settings = settings_of(resources, container)
            # Besides, the supervisor waits for a second.
            needed_s = int(settings["DIGITS_SHUTDOWN_GRACE_S"]) + 1
            assert unknown_variables(settings) == []
            Settings.model_validate({name.removeprefix("DIGITS_").lower(): value for name, value in settings.items()})
        assert grace_s >= needed_s


def test_service_links_do_not_set_the_port_of_the_service(resources):
    # Kubernetes would set DIGITS_PORT for a Service named digits.
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods(resources))


def test_the_inference_service_has_the_container_of_the_deployment(tmp_path):
    def container(folder: str) -> dict[str, Any]:
        (pod,) = pods(list(yaml.safe_load_all(render(folder, tmp_path))))
        found: dict[str, Any] = pod["spec"]["containers"][0]
        return found

    # Under other names: the ports, and the settings, which the Deployment has in a ConfigMap.
    mine, kserve = container("base"), container("kserve")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        mine[probe]["httpGet"].pop("port")
        kserve[probe]["httpGet"].pop("port")
    for own in ("name", "ports", "env", "envFrom"):
        mine.pop(own)
        kserve.pop(own, None)
    assert kserve == mine


def test_the_inference_service_has_the_settings_of_the_deployment(tmp_path):
    def settings(folder: str) -> dict[str, str]:
        resources = list(yaml.safe_load_all(render(folder, tmp_path)))
        (pod,) = pods(resources)
        return settings_of(resources, pod["spec"]["containers"][0])

    assert settings("kserve") == settings("base")


def test_the_alerts_of_the_operator_are_those_of_prometheus():
    rule = yaml.safe_load((KUBERNETES / "components/monitoring/prometheusrule.yaml").read_text())
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text()), "run make rules"


def test_the_metric_that_scales_is_one_of_the_service(tmp_path):
    (scaled,) = (
        each for each in yaml.safe_load_all(render("overlays/keda", tmp_path)) if each["kind"] == "ScaledObject"
    )
    used = {
        name for each in scaled["spec"]["triggers"] for name in re.findall(r"digits_\w+", each["metadata"]["query"])
    }
    with running(models="gan") as service:
        page = httpx.get(f"{service.url}/metrics", timeout=60).text
    assert used
    assert used <= set(re.findall(r"^(\w+)", page, re.MULTILINE))


def test_checkov_finds_nothing_else_that_is_missing(tmp_path):
    for path in (KUBERNETES / "overlays").iterdir():
        (tmp_path / f"{path.name}.yaml").write_text(kustomize(path))
    python = python_of(Path(__file__).parent / "checkov")
    command = [python.with_name("checkov"), "--directory", tmp_path, "--framework", "kubernetes", "--skip-download"]
    command += ["--output", "json", "--skip-check", ",".join(NOT_CHECKED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["summary"]["passed"] > 0
    assert [
        (each["check_id"], each["check_name"], each["resource"]) for each in found["results"]["failed_checks"]
    ] == []
