"""What py-spy saw is counted once, for the part that it belongs to."""

import pytest

from benchmarks.cells import GENERATE_ONE, GENERATE_VAE
from benchmarks.profiling import PARTS, Profile, markdown, part_of, read_stacks

SERVE = "serve (app/__main__.py:98)"
RUN = "Handle._run (asyncio/events.py:80)"
ANSWER = "answer (app/api/generate.py:79)"


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        ((SERVE, RUN, ANSWER, "normal_rows (app/inference/latents.py:62)"), "noise and labels"),
        ((SERVE, RUN, ANSWER, "to_uint8 (app/images/encode.py:24)", "clip (numpy/_core/fromnumeric.py:2296)"), "8-bit"),
        ((SERVE, RUN, ANSWER, "Batcher.submit (app/inference/batching.py:161)"), "rows to batches"),
        ((SERVE, RUN, ANSWER), "admission, middleware"),
        ((SERVE, RUN, "BoundedHttpProtocol._feed (app/protocol.py:192)"), "HTTP"),
        ((SERVE, RUN, "_SelectorSocketTransport.write (asyncio/selector_events.py:1057)"), "sockets"),
        ((SERVE, RUN), "its turns"),
        (("<module> (<frozen runpy>:88)",), "elsewhere"),
        ((), "elsewhere"),
    ],
)
def test_a_stack_belongs_to_the_innermost_part_that_is_known(stack, part):
    assert part_of(stack).startswith(part)


def test_only_stacks_of_the_main_thread_count():
    text = f"thread (7): MainThread;{SERVE};{RUN} 3\nthread (8): inference_0;run (app/inference/workers.py:4) 90\n"
    text += f"thread (7): MainThread;{SERVE};{RUN} 2\nthread (7): MainThread 1\n"
    assert read_stacks(text) == {(SERVE, RUN): 5, (): 1}


def test_the_parts_of_the_event_loop_are_its_time():
    shares = {name: 0.1 for name, _ in PARTS} | {"elsewhere": 0.1}
    profile = Profile(
        cell=GENERATE_ONE,
        file="fast",
        cores=3,
        images_per_s=1000,
        loop_user_us=250,
        loop_system_us=50,
        workers_us=600,
        load_us=40,
        samples=1000,
        shares=shares,
    )
    assert profile.all_us == 3000
    assert profile.rest_us == 3000 - 940
    table = markdown([profile, profile.model_copy(update={"cell": GENERATE_VAE, "file": "plain"})])
    heads = "gan, 1 image a request, 64 callers, fast | vae, 1 image a request, 64 callers, plain"
    assert f"| microseconds of a core for an image | {heads} |" in table
    assert "| event loop: noise and labels | 30 | 30 |" in table
    assert table.count("| 30 | 30 |") == len(shares)
