"""A short run of the decoder's fuzzing; `make fuzz` is the long one."""

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not to be had on this platform")
def test_no_mutation_of_the_corpus_makes_the_decoder_fail(tmp_path):
    report = tmp_path / "decoder.json"
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.decoder", "--runs=3000", f"--report={report}"]
    done = subprocess.run([*command, "--seconds=300"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(report.read_text())["inputs"] >= 2500
