"""Settings that are misspelt, and a settings file that is not a file."""

import os
import sys

import pytest

from app.settings import BadSettings, read_settings, unknown_variables


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_misspelt_variable_is_named_with_the_setting_that_it_resembles():
    (found,) = unknown_variables(["DIGITS_MODELDIR", "DIGITS_PORT", "digits_host", "MODELDIR"])
    assert found.startswith("DIGITS_MODELDIR ")
    assert "DIGITS_MODELS_DIR" in found


def test_tracing_without_its_extra_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setenv("DIGITS_TRACING", "true")
    monkeypatch.setitem(sys.modules, "app.telemetry", None)  # as if what it imports were not installed
    with pytest.raises(BadSettings, match=r"^DIGITS_TRACING: .*\.\[tracing\]"):
        read_settings()


def test_a_variable_that_resembles_no_setting_is_named_alone():
    assert unknown_variables(["DIGITS_XYZZY"]) == ["DIGITS_XYZZY"]


def test_a_misspelt_variable_in_the_file_is_an_error_that_names_the_setting_that_it_resembles(tmp_path):
    (tmp_path / "digits.env").write_text("DIGITS_PROT=80\nOTHER=1\nDIGITS_WORKERS=many\n")
    with pytest.raises(BadSettings) as error:
        read_settings()
    lines = dict(line.split(": ", 1) for line in str(error.value).splitlines())
    assert lines.keys() == {"DIGITS_PROT", "OTHER", "DIGITS_WORKERS"}
    assert "DIGITS_PORT" in lines["DIGITS_PROT"]


def test_the_models_to_load_are_names_separated_by_commas_and_the_default_is_one_of_them(monkeypatch):
    monkeypatch.setenv("DIGITS_MODELS", "cgan, vae")
    monkeypatch.setenv("DIGITS_DEFAULT_MODEL", "vae")
    assert read_settings().models == ("cgan", "vae")
    for name, value in (("DIGITS_MODELS", "vae,"), ("DIGITS_DEFAULT_MODEL", "gan")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(BadSettings, match=name):
                read_settings()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_settings_file_that_is_no_regular_file_is_refused_without_reading_it(tmp_path, make):
    make(tmp_path / "digits.env")
    with pytest.raises(BadSettings, match=r"digits\.env"):
        read_settings()
