"""A short run of the fuzzer of the decoder."""

import importlib.util
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this platform")
def test_mutations_of_the_corpus_do_not_crash_the_decoder(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.decoder", str(tmp_path), "-runs=1000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
