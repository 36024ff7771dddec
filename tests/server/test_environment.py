"""The metrics folders of processes that share a machine."""

import subprocess
import sys
from pathlib import Path

from app.server.environment import make_metrics_folder, remove_stale_metrics

HELD = """
import sys
from pathlib import Path
from app.server.environment import make_metrics_folder

print(make_metrics_folder(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_a_folder_outlives_a_later_start_until_the_last_process_that_uses_it_is_gone(tmp_path):
    command = [sys.executable, "-c", HELD, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        (folder / "counter_1.db").write_bytes(b"counts")
        remove_stale_metrics(tmp_path)
        assert (folder / "counter_1.db").exists()
        process.kill()
    remove_stale_metrics(tmp_path)
    assert not folder.exists()


def test_only_folders_of_the_service_are_removed(tmp_path):
    kept = [tmp_path / "digits-of-somebody", tmp_path / "digits-metrics-file", make_metrics_folder(tmp_path)]
    kept[0].mkdir()
    kept[1].write_text("")
    (tmp_path / "digits-metrics-link").symlink_to(kept[0])
    remove_stale_metrics(tmp_path)
    assert all(path.exists() for path in kept)
