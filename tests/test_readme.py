"""The README and the tables in docs/ agree with the code."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from app.checkpoints.manifest import Manifest
from app.main import create_app
from app.settings import Settings
from tests.api.reading import arrays, frames, image
from tests.conftest import ROOT
from tests.contract.process import running
from training.card import PICTURES, card
from training.evaluation.eval_protocol import PROTOCOL
from training.generation import gives_labels
from training.quality_report import quality_tables

README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))
FLOORS = next(line for line in README.splitlines() if line.startswith("| model | Fréchet distance"))
QUALITY = (ROOT / "docs" / "quality.md").read_text()


def curl_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("curl ")]


def settings_table() -> str:
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f"`{field.default}`"
        lines.append(f"| `DIGITS_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def test_the_curl_lines_work_as_they_stand(tmp_path):
    commands = curl_commands()
    assert len(commands) >= 9
    with running() as service:
        for command in commands:
            here = command.replace("http://127.0.0.1:8000", service.url).replace("@tests/", f"@{ROOT}/tests/")
            done = subprocess.run([*shlex.split(here), "--fail"], cwd=tmp_path, capture_output=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stderr.decode()}"
            assert done.stdout or "-o " in command
    assert image((tmp_path / "digits.png").read_bytes()).shape == (4 * 28 * 4, 4 * 28 * 4)
    assert arrays((tmp_path / "labelled.npz").read_bytes())["images"].shape == (100, 28, 28)
    assert image((tmp_path / "reconstruction.png").read_bytes()).shape == (28 * 8, 2 * 28 * 8)
    assert image((tmp_path / "strip.png").read_bytes()).shape == (28 * 4, 10 * 28 * 4)
    assert len(frames((tmp_path / "path.png").read_bytes())) == 30
    assert image((tmp_path / "between.png").read_bytes()).shape == (28 * 4, 8 * 28 * 4)


def test_the_endpoint_table_lists_every_operation():
    listed = set(re.findall(r"^\| `(GET|POST) (\S+)` \|", README, re.MULTILINE))
    paths = create_app(Settings()).openapi()["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert listed == {(method, path) for method, path in served if not path.startswith("/v2")}


def test_the_settings_table_lists_every_setting():
    assert f"<!-- settings: begin -->\n{settings_table()}\n<!-- settings: end -->" in CONFIGURATION


def shipped_manifests() -> list[Manifest]:
    paths = sorted((ROOT / "models").glob("*/manifest.json"))
    return [Manifest.model_validate_json(path.read_bytes()) for path in paths]


def test_the_quality_tables_have_the_figures_of_the_shipped_manifests():
    manifests = shipped_manifests()
    assert f"<!-- quality: begin -->\n{quality_tables(manifests)}\n<!-- quality: end -->" in QUALITY
    for manifest in manifests:
        assert manifest.quality is not None
        figures = manifest.quality.figures
        if "frechet_distance" not in figures or manifest.quality.protocol != PROTOCOL:
            continue
        cells = [f"{figures[name].value:.2f}" for name in ("frechet_distance", "recall")]
        cells.append(f"{figures['label_agreement'].value:.3f}" if "label_agreement" in figures else "")
        assert f"| `{manifest.name}` | {' | '.join(cells)} |".replace("|  |", "| |") in README
        distance, recall = figures["frechet_distance"].floor, figures["recall"].floor
        assert f"{distance:.1f} {'with' if gives_labels(manifest) else 'without'}" in FLOORS
        assert f"recall (real images {recall:.2f})" in FLOORS
        if "label_agreement" in figures:
            assert f"label agreement (real images {figures['label_agreement'].floor:.3f})" in FLOORS


def test_the_shipped_cards_are_those_of_the_shipped_manifests():
    for manifest in shipped_manifests():
        folder = ROOT / "models" / manifest.name
        pictures = [name for name in PICTURES if (folder / name).is_file()]
        assert (folder / "card.md").read_text() == card(manifest, pictures), folder


def test_every_file_of_the_tree_exists():
    tree = README.split("## Code")[1].split("```")[1]
    folder = Path()
    for line in tree.strip().splitlines():
        name, text = line.split(maxsplit=1)
        if not line.startswith(" "):
            folder = ROOT / name
            assert folder.is_dir(), name
        else:
            path = folder / name
            assert path.exists(), path
            for file in re.findall(r"\w+\.py", text):
                assert (path / file).is_file(), path / file


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make ([\w-]+)", README, re.MULTILINE))))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("document", ["README.md", "SECURITY.md", *(f"docs/{path.name}" for path in DOCS)])
def test_every_link_and_picture_exists(document):
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target


def test_ci_runs_the_readmes_test_commands():
    commands = ["make test", "make test-integration"]
    assert [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("make test")] == commands
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-2:] == commands


def test_the_services_of_the_composition_are_restarted_and_cannot_write_to_their_image():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("digits", "digits-gpu"):
        assert (services[name]["restart"], services[name]["read_only"]) == ("unless-stopped", True)
    assert services["digits-gpu"]["profiles"] == ["gpu"]
