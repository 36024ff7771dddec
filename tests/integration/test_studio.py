"""The studio in headless Chromium, against the service with the shipped checkpoints."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.conftest import FIXTURES, ROOT, serving
from tests.integration.browser import DESKTOP, PHONE, Watched, chromium, draw
from tests.tiny_models import write_checkpoints

KEY = "correct-horse-battery"
ROOMS = {
    "draw": "Draw",
    "sample": "Sample",
    "walk": "Walk",
    "compare": "Compare",
    "film": "Training film",
    "quiz": "Quiz",
    "hood": "Under the hood",
}
SIZES = {"desktop": DESKTOP, "phone": PHONE}
USED = re.compile(r"^z\d+$")  # a number of a latent that is not marked as unused
TWO = ((0.3, 0.3), (0.5, 0.18), (0.66, 0.35), (0.3, 0.8), (0.72, 0.8))
# The most requests that were in flight at once, by operation and model.
COUNT_REQUESTS_IN_FLIGHT = """() => {
    const [original, flying] = [window.fetch, {}];
    window.most = {};
    window.fetch = (url, options) => {
        const name = `${url.pathname} ${url.searchParams.get("model")}`;
        flying[name] = (flying[name] ?? 0) + 1;
        window.most[name] = Math.max(window.most[name] ?? 0, flying[name]);
        let ended = false;
        const end = () => {
            if (!ended) flying[name] -= 1;
            ended = true;
        };
        options.signal.addEventListener("abort", end);
        return original(url, options).finally(end);
    };
}"""


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    write_checkpoints(directory)
    for source, name, files in (
        ("dcgan", "boots", ("examples.png", "film.png", "history.json", "neighbours.png")),
        ("lapgan-7", "sketch", ("examples.png", "film.png", "history.json")),
    ):
        for file in files:
            shutil.copy(ROOT / "models" / source / file, directory / name)
    return directory


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@contextmanager
def opened(browser, client, hash_="", **options):
    """A page of the studio, with its faults."""
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    page = context.new_page()
    page.watched = Watched(page)
    page.goto(f"{client.base_url}/{hash_}")
    try:
        yield page
    finally:
        context.close()


@pytest.fixture
def page(browser, client):
    """A page of the studio, on which nothing may fail."""
    with opened(browser, client) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Draw")
        yield page
        assert not page.watched.faults


def results(page, name):
    return page.get_by_role("article", name=name, exact=True)


def params_of(page):
    # Of the browser itself: Playwright's `url` follows a moment later.
    query = page.evaluate("location.hash").partition("?")[2]
    return dict(part.split("=", 1) for part in query.split("&") if part)


def answer(page, choice):
    """Answer a question of the quiz; the text of the verdict."""
    page.get_by_role("button", name=choice).click()
    return page.locator("#verdict").inner_text()


def assert_accessible(page):
    violations = Axe().run(page).response["violations"]
    found = [(each["id"], node["target"], node["failureSummary"]) for each in violations for node in each["nodes"]]
    assert not found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_room_opens_and_is_accessible(browser, client, scheme, size):
    with opened(browser, client, viewport=SIZES[size], color_scheme=scheme, reduced_motion="reduce") as page:
        for name, title in ROOMS.items():
            page.get_by_role("navigation").get_by_role("link", name=title, exact=True).click()
            expect(page.get_by_role("heading", level=1)).to_have_text(title)
            expect(page).to_have_url(re.compile(f"#/{name}$"))
            if name == "draw":
                draw(page)
                expect(page.get_by_text("reads 3").first).to_be_visible()
                page.get_by_role("button", name="Pull the").first.click()
            if name == "sample":
                expect(page.get_by_role("button", name="Image 0 of seed 8 by vae")).to_be_visible()
            if name == "walk":
                expect(page.get_by_role("img", name="slerp, step 1")).to_be_visible()
            if name == "compare":
                expect(page.get_by_role("img", name="recall")).to_have_count(2)
            if name == "film":
                page.get_by_role("slider", name="Epoch").press("ArrowRight")
                expect(page.get_by_role("img", name="after epoch 2")).to_be_visible()
            if name == "quiz":
                answer(page, "Real")
            page.watched.settle()
            assert_accessible(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not page.watched.faults


def test_an_address_without_a_room_names_the_one_that_is_shown(page):
    for asked, named in (("", "#/draw"), ("#/nowhere", "#/draw"), ("#/walk", "#/walk"), ("#/nowhere", "#/draw")):
        page.evaluate(f"location.hash = '{asked}'")
        for _ in range(100):  # of the browser itself: Playwright's `url` may still be the one before
            if page.evaluate("location.hash") == named:
                break
            page.wait_for_timeout(50)
        assert page.evaluate("location.hash") == named


def test_a_visitor_who_leaves_as_the_first_room_appears_is_not_sent_back(browser, client):
    with opened(browser, client, "#/nowhere") as page:
        page.add_init_script("""addEventListener("DOMContentLoaded", () => {
            new MutationObserver((_, observer) => {
                if (document.querySelector("h1")?.textContent !== "Draw") return;
                observer.disconnect();
                location.hash = "#/walk?model=cgan&label=3";
            }).observe(document, { childList: true, subtree: true });
        });""")
        page.reload()
        shown(page, "Image at x 0.00, y 0.00")
        assert params_of(page) == {"model": "cgan", "label": "3"}
        assert not page.watched.faults


def test_a_drawing_has_an_answer_of_every_model_that_takes_images(page):
    draw(page)
    for name in ("lenet", "vgg"):
        expect(page.get_by_role("region", name=f"{name} reads").get_by_role("heading")).to_contain_text("reads 3")
    for name in ("cvae", "vae"):
        card = results(page, name)
        expect(card.get_by_role("img", name=f"reconstruction by {name}")).to_have_attribute("src", re.compile("base64"))
        expect(card.get_by_role("img", name="difference, mean squared error")).to_be_visible()
    for name in ("cgan as 3", "gan", "gan-deep"):
        expect(page.get_by_role("listitem").filter(has=page.get_by_text(name, exact=True))).to_contain_text("logit")


def test_the_address_restores_a_drawing_and_its_latent(browser, client, page):
    draw(page)
    card = results(page, "cvae")
    card.get_by_role("button", name="Pull the").click()
    reconstruction = card.get_by_role("img", name="reconstruction")
    before = reconstruction.get_attribute("src")
    card.get_by_role("slider", name=USED).first.fill("2.5")
    expect(reconstruction).not_to_have_attribute("src", before)
    page.watched.settle()
    with opened(browser, client, page.evaluate("location.hash")) as other:
        expect(results(other, "cvae").get_by_role("slider", name=USED).first).to_have_value("2.5")
        again = results(other, "cvae").get_by_role("img", name="reconstruction")
        expect(again).to_have_attribute("src", reconstruction.get_attribute("src"))
        expect(other.get_by_text("reads 3").first).to_be_visible()
        assert not other.watched.faults


def test_undo_takes_the_last_stroke_and_clear_takes_all(page):
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    draw(page)
    one = params_of(page)["ink"]
    draw(page, ((0.1, 0.9), (0.9, 0.9)))
    assert params_of(page)["ink"] != one
    page.get_by_role("button", name="Undo").click()
    assert params_of(page)["ink"] == one
    page.get_by_role("button", name="Clear").click()
    assert "ink" not in params_of(page)
    expect(page.get_by_text("Nothing is drawn yet.")).to_be_visible()


def test_a_photo_can_be_opened_and_is_kept_in_the_address_as_the_models_see_it(browser, client, page):
    page.get_by_label("Open a picture").set_input_files(FIXTURES / "drawings" / "2-table.jpg")
    expect(page.get_by_text("reads 2").first).to_be_visible()
    seen = page.get_by_role("img", name="The drawing as the models see it").get_attribute("src")
    with opened(browser, client, page.evaluate("location.hash")) as other:
        expect(other.get_by_role("img", name="The drawing as the models see it")).to_have_attribute("src", seen)


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_picture_can_be_pasted_and_dropped(page, digit, kind):
    page.evaluate(
        """([kind, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "7.png", { type: "image/png" }));
            const options = { bubbles: true, cancelable: true };
            dispatchEvent(kind === "paste"
                ? new ClipboardEvent("paste", { clipboardData: transfer, ...options })
                : new DragEvent("drop", { dataTransfer: transfer, ...options }));
        }""",
        [kind, list(digit)],
    )
    expect(page.get_by_text("reads 7").first).to_be_visible()


def test_a_test_image_can_be_loaded_and_drawn_over(page):
    page.get_by_role("button", name="Example").click()
    expect(page.get_by_text("reads 0").first).to_be_visible()
    draw(page, ((0.8, 0.2), (0.9, 0.3)))
    assert {"img", "ink"} <= set(params_of(page))


def test_the_pen_can_be_moved_with_the_keyboard(page):
    page.get_by_label("Drawing area").focus()
    for key in ("Space", *["ArrowDown"] * 12, "Space"):
        page.keyboard.press(key)
    expect(page.get_by_text("reads 1").first).to_be_visible()
    assert "ink" in params_of(page)


def test_drawing_fast_keeps_one_request_in_flight_for_each_operation_and_model(page):
    page.evaluate(COUNT_REQUESTS_IN_FLIGHT)
    for _ in range(3):
        draw(page)
    page.watched.settle()
    most = page.evaluate("window.most")
    assert {name.split()[0] for name in most} == {"/normalize", "/reconstruct", "/classify", "/score"}
    assert set(most.values()) == {1}


def test_a_superseded_request_is_aborted(page):
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.route("**/classify?*", lambda _: None)  # never answer
    with page.expect_request("**/classify?*"):
        draw(page)
    page.get_by_role("button", name="Clear").click()
    for _ in range(600):
        if any("/classify" in url for url in failed):
            break
        page.wait_for_timeout(50)
    assert any("/classify" in url for url in failed)
    page.unroute_all()


def test_a_seed_gives_the_images_of_the_api_and_its_link_restores_them(browser, client, page):
    page.goto(f"{client.base_url}/#/sample?seed=11&label=3&truncation=1")
    expected = client.post("/generate", json={"model": "cgan", "n": 1, "seed": 11, "label": "3", "truncation": 1.0})
    tile = page.get_by_role("button", name="Image 0 of seed 11 by cgan, label 3")
    expect(tile.locator("img")).to_have_attribute("src", f"data:image/png;base64,{expected.json()['images'][0]['png']}")
    precision = measured(client, "cgan", "precision", truncation=1.0)
    expect(results(page, "cgan")).to_contain_text(f"precision{precision:.2f}")
    tile.click()
    expect(page.get_by_role("dialog", name="cgan, image 0")).to_contain_text("reads 3")
    page.get_by_role("link", name="Send to Draw").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Draw")
    expect(page.get_by_text("reads 3").first).to_be_visible()
    page.go_back()
    expect(page.get_by_role("dialog", name="cgan, image 0")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("spinbutton", name="Seed").fill("12")
    expect(page.get_by_role("button", name="Image 0 of seed 12 by vae")).to_be_visible()
    assert params_of(page) == {"seed": "12", "label": "3", "truncation": "1"}


def measured(client, model, name, **control):
    """The figure of this name on the card of a model, at a value of one sampling control."""
    controls = client.get(f"/models/{model}").json()["manifest"]["quality"]["controls"]
    return next(each["figures"][name] for each in controls if control.items() <= each.items())


def source(png):
    return f"data:image/png;base64,{png}"


def shown(page, name):
    """The source of the image of this name, once it is there."""
    image = page.get_by_role("img", name=name, exact=True)
    expect(image).to_have_attribute("src", re.compile("base64"))
    return image.get_attribute("src")


def test_a_walk_moves_with_the_keyboard_and_its_link_restores_it(browser, client, page):
    page.goto(f"{client.base_url}/#/walk?model=cgan&label=3")
    plane = page.get_by_label("Plane of cgan")
    before = shown(page, "Image at x 0.00, y 0.00")
    plane.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowDown"):
        page.keyboard.press(key)
    after = shown(page, "Image at x 0.10, y 0.04")
    assert after != before
    assert params_of(page) == {"model": "cgan", "label": "3", "x": "0.1", "y": "0.04"}
    with opened(browser, client, page.evaluate("location.hash")) as other:
        expect(other.get_by_role("img", name="Image at x 0.10, y 0.04")).to_have_attribute("src", after)
        expect(other.get_by_role("status").filter(has_text="lenet reads 3")).to_have_count(1)
        assert not other.watched.faults


def test_the_plane_is_decoded_under_the_pointer_with_one_request_in_flight_for_each_operation(page):
    page.evaluate("location.hash = '#/walk'")
    at_rest = shown(page, "Image at x 0.00, y 0.00")
    page.watched.settle()
    page.evaluate(COUNT_REQUESTS_IN_FLIGHT)
    box = page.get_by_label("Plane of").bounding_box()
    for share in (0.2, 0.8, 0.3, 0.9):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 0.75 * box["height"], steps=8)
    expect(page.get_by_role("img", name="Image at x 0.80, y -0.50")).not_to_have_attribute("src", at_rest)
    assert "x" not in params_of(page)
    page.mouse.down()
    page.mouse.up()
    assert (params_of(page)["x"], params_of(page)["y"]) == ("0.8", "-0.5")
    page.mouse.move(0, 0)
    page.get_by_role("combobox", name="Class").first.select_option("7")
    page.watched.settle()
    most = page.evaluate("window.most")
    assert {name.split()[0] for name in most} == {"/generate", "/classify", "/interpolate"}
    assert set(most.values()) == {1}


def test_the_anchors_and_both_paths_are_those_of_the_api(page, client):
    page.goto(f"{client.base_url}/#/walk?model=gan&a.seed=5&a.index=2&path=ca&step=4")
    asked = {"model": "gan", "n": 1, "return_latents": True}
    a, c = (
        client.post("/generate", json={**asked, **each}).json()["images"][0]
        for each in ({"seed": 5, "first": 2}, {"seed": 8, "first": 2})
    )
    expect(page.get_by_role("img", name="Image at A")).to_have_attribute("src", source(a["png"]))
    for way in ("lerp", "slerp"):
        ends = {"model": "gan", "from_latent": c["latent"], "to_latent": a["latent"], "steps": 10, "path": way}
        path = client.post("/interpolate", json=ends).json()["images"]
        image = page.get_by_role("img", name=f"{way}, step 4", exact=True)
        expect(image).to_have_attribute("src", source(path[3]["png"]))
        expect(results(page, way).get_by_role("listitem")).to_have_count(10)
    expect(page.get_by_text("has 100 numbers")).to_be_visible()


def test_a_path_plays_only_when_it_is_asked_to(page):
    page.evaluate("location.hash = '#/walk'")
    step = page.get_by_role("slider", name="Step")
    expect(page.get_by_role("button", name="Play")).to_be_enabled()
    page.watched.settle()
    expect(step).to_have_value("1")
    page.get_by_role("button", name="Play").click()
    expect(step).not_to_have_value("1")
    page.get_by_role("button", name="Pause").click()
    expect(step).to_have_value(params_of(page)["step"])


def test_a_drawing_can_be_an_anchor_and_its_link_restores_it(browser, client, page):
    page.evaluate("location.hash = '#/walk'")
    page.get_by_role("combobox", name="B is").select_option("a drawing")
    expect(page.get_by_text("Three anchors span the plane.")).to_be_visible()
    assert_accessible(page)
    draw(page)
    page.watched.settle()
    image = shown(page, "Image at B")
    expect(page.get_by_text("Three anchors span the plane.")).to_have_count(0)
    with opened(browser, client, page.evaluate("location.hash")) as other:
        expect(other.get_by_role("img", name="Image at B")).to_have_attribute("src", image)


@pytest.mark.parametrize("model", ["cvae", "vae"])
def test_an_image_is_sent_to_walk_as_an_anchor(page, client, model):
    page.goto(f"{client.base_url}/#/sample?seed=11&temperature=0.6&open={model}.4")
    image = page.get_by_role("dialog").get_by_role("img").first.get_attribute("src")
    page.get_by_role("link", name="Send to Walk").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Walk")
    expect(page.get_by_role("img", name="Image at A")).to_have_attribute("src", image)
    expect(page.get_by_role("region", name="Anchor A")).to_contain_text("temperature 0.6")


def test_two_models_are_compared_at_one_seed_with_the_figures_of_their_cards(browser, client, page):
    page.goto(f"{client.base_url}/#/compare?left=cgan&right=vae&seed=11&truncation=1")
    expected = client.post(
        "/generate", json={"model": "cgan", "n": 1, "seed": 11, "label": "balanced", "truncation": 1.0}
    )
    first = results(page, "cgan").get_by_role("img", name="image 0, label 0")
    expect(first).to_have_attribute("src", source(expected.json()["images"][0]["png"]))
    precision = measured(client, "cgan", "precision", truncation=1.0)
    expect(results(page, "cgan")).to_contain_text(f"precision{precision:.2f}")
    for model, control in (("cgan", "truncation"), ("vae", "temperature")):
        recall = measured(client, model, "recall", **{control: 0.5})
        expect(results(page, model).get_by_role("img", name="recall")).to_have_attribute(
            "aria-label", re.compile(f"over {control}: 0.5: {recall:.2f}")
        )
    figures = client.get("/models/vae").json()["manifest"]["quality"]["figures"]["recall"]
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="recall higher", exact=False)).first
    expect(row).to_contain_text(f"{figures['value']:.3f}")
    expect(row).to_contain_text(f"real {figures['floor']:.3f}")
    page.get_by_role("combobox", name="Left").select_option("vae")
    assert (params_of(page)["left"], params_of(page)["right"]) == ("vae", "cgan")
    expect(page.get_by_role("article").first).to_have_attribute("aria-label", "vae")
    page.get_by_role("combobox", name="Right").select_option("lapgan-7")
    expect(page.get_by_text("cannot be compared")).to_be_visible()


def test_an_image_is_sent_to_compare_with_its_controls(page, client):
    page.goto(f"{client.base_url}/#/sample?seed=11&first=20&label=4&open=cgan.21")
    image = page.get_by_role("dialog").get_by_role("img").first.get_attribute("src")
    page.get_by_role("link", name="Send to Compare").click()
    expect(results(page, "cgan").get_by_role("img", name="image 21, label 4")).to_have_attribute("src", image)
    assert params_of(page) == {"left": "cgan", "seed": "11", "first": "20", "label": "4"}


def test_an_opened_image_has_the_nearest_training_images_of_the_card(page):
    page.goto(page.url.partition("#")[0] + "#/sample?open=cgan.2")
    dialog = page.get_by_role("dialog", name="cgan, image 2")
    dialog.get_by_text("Nearest training images").click()
    picture = dialog.get_by_role("img", name="each above the negative of its nearest training image")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 560
    assert_accessible(page)


def frame_of(page):
    return page.locator("canvas.shipped").evaluate("canvas => canvas.toDataURL()")


def test_the_film_of_a_link_is_at_its_epoch_and_follows_the_slider(browser, client):
    with opened(browser, client, "#/film?model=cvae&epoch=3") as page:
        expect(page.get_by_role("img", name="What cvae made after epoch 3")).to_be_visible()
        page.watched.settle()
        before = frame_of(page)
        history = client.get("/models/cvae/history").json()["epochs"]
        assert history[2]["negative_elbo"] != history[3]["negative_elbo"]
        curve = page.get_by_role("img", name=re.compile("^negative elbo"))
        expect(curve).to_have_attribute(
            "aria-label", re.compile(f"^negative elbo: {history[2]['negative_elbo']:.3g} at")
        )
        page.get_by_role("slider", name="Epoch").press("ArrowRight")
        expect(page.get_by_role("img", name="What cvae made after epoch 4")).to_be_visible()
        expect(curve).to_have_attribute(
            "aria-label", re.compile(f"^negative elbo: {history[3]['negative_elbo']:.3g} at")
        )
        assert frame_of(page) != before
        assert params_of(page) == {"model": "cvae", "epoch": "4"}
        exported = client.get("/models/cvae/history").json()["exported"]
        page.get_by_role("button", name=f"Exported epoch: {exported}").click()
        expect(page.get_by_role("slider", name="Epoch")).to_have_value(str(exported))
        assert not page.watched.faults


def test_the_film_plays_to_its_end_only_when_it_is_asked(browser, client):
    last = len(client.get("/models/dcgan/history").json()["epochs"])
    with opened(browser, client, f"#/film?model=dcgan&epoch={last - 2}") as page:
        page.watched.settle()
        assert params_of(page)["epoch"] == str(last - 2)
        page.get_by_role("button", name="Play").click()
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        expect(page.get_by_role("button", name="Play")).to_be_visible()
        assert params_of(page)["epoch"] == str(last)
        page.get_by_role("button", name="Play").click()  # from the beginning
        page.get_by_role("button", name="Pause").click()
        assert int(params_of(page)["epoch"]) < last


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lenet", "ships no images of its epochs"),
        ("vae", "ships no history of its training"),
        ("nobody", "is not loaded"),
    ],
)
def test_a_model_without_a_film_says_what_it_lacks(browser, client, name, said):
    with opened(browser, client, f"#/film?model={name}") as page:
        expect(page.get_by_text(said)).to_be_visible()
        expect(page.get_by_role("img", name="cross entropy")).to_have_count(int(name == "lenet"))
        assert_accessible(page)
        page.get_by_label("Model", exact=True).select_option("dcgan")
        expect(page.get_by_role("img", name="What dcgan made after epoch 1")).to_be_visible()
        assert not page.watched.faults


def played(page, key):
    """Play a quiz with this key; the images with their verdicts."""
    seen = []
    for number in range(1, 21):
        expect(page.get_by_role("heading", name=f"{number} of 20")).to_be_visible()
        image = page.get_by_role("img", name="An image, real or made")
        size = image.evaluate("image => image.decode().then(() => image.naturalWidth)")
        source = image.get_attribute("src")
        page.keyboard.press(key)
        seen.append((source, size, page.locator("#verdict").inner_text()))
        page.keyboard.press("Enter")
    return seen


def test_a_quiz_is_half_real_and_its_link_gives_the_same_one(browser, client):
    with (
        opened(browser, client, "#/quiz?seed=7&of=dcgan") as page,
        opened(browser, client, "#/quiz?seed=7&of=dcgan") as other,
    ):
        seen, again = played(page, "ArrowLeft"), played(other, "ArrowRight")
        assert [source for source, *_ in seen] == [source for source, *_ in again]
        assert len({source for source, *_ in seen}) == 20
        assert {size for _, size, _ in seen} == {28}
        real = [source for source, _, verdict in seen if "test image" in verdict]
        assert len(real) == 10
        assert all(verdict.startswith("✓") == (source in real) for source, _, verdict in seen)
        assert all(verdict.startswith("✗") == (source in real) for source, _, verdict in again)
        made = client.post("/generate", json={"model": "dcgan", "n": 10, "seed": 7}).json()["images"]
        assert {f"data:image/png;base64,{image['png']}" for image in made} == {source for source, *_ in seen} - set(
            real
        )
        expect(page.get_by_role("heading", name="10 of 20 right")).to_be_visible()
        expect(page.get_by_role("listitem").filter(has_text="real images")).to_contain_text("10 of 10")
        expect(page.get_by_role("listitem").filter(has_text="dcgan")).to_contain_text("0 of 10")
        expect(page.get_by_role("img", name="that you took for a real one")).to_have_count(10)
        assert_accessible(page)
        page.reload()
        expect(page.get_by_role("heading", name="10 of 20 right")).to_be_visible()
        page.get_by_role("button", name="Play this one again").click()
        expect(page.get_by_role("heading", name="1 of 20")).to_be_visible()
        assert not page.watched.faults


def test_a_quiz_of_all_models_names_each_only_after_the_answer(browser, client):
    with opened(browser, client, "#/quiz?seed=3") as page:
        page.watched.settle()
        names = set()
        for _ in range(20):
            assert not re.search(r"was made by|test image", page.locator(".round").inner_text())
            verdict = answer(page, "Made")
            if found := re.search(r"was made by (\S+?)[. ]", verdict):
                names.add(found[1])
            page.keyboard.press("Enter")
        listed = client.get("/models").json()["models"]
        quick = {model["name"] for model in listed if "generate" in model["capabilities"] and not model["sequential"]}
        assert len(names) > 3
        assert names <= quick
        expect(page.get_by_role("heading", name="10 of 20 right")).to_be_visible()
        expect(page.get_by_role("listitem").filter(has_text="real images")).to_contain_text("0 of 10")


def test_a_quiz_whose_images_cannot_be_made_says_why_and_tries_again(browser, client):
    problem = {"status": 503, "code": "overloaded", "detail": "The service is overloaded; retry later."}
    refuse = {"status": 503, "content_type": "application/problem+json", "body": json.dumps(problem)}
    with opened(browser, client) as page:
        page.route("**/generate", lambda route: route.fulfill(**refuse))
        page.get_by_role("link", name="Quiz").click()
        expect(page.get_by_role("alert")).to_contain_text(problem["detail"])
        page.unroute_all()
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("img", name="An image, real or made")).to_be_visible()


def test_a_model_that_takes_seconds_computes_only_on_demand(page):
    page.goto(page.url.partition("#")[0] + "#/sample")
    row = results(page, "dbn")
    expect(row.get_by_role("button")).to_have_text("Generate 10")
    row.get_by_role("button").click()
    expect(row.get_by_role("button", name="Image 9")).to_be_visible(timeout=60_000)


def test_a_request_of_the_page_is_shown_as_code_that_works(page, tmp_path):
    page.get_by_role("link", name="Under the hood").click()
    code = page.get_by_role("region", name="The request as code")
    expect(code).to_contain_text("curl -s 'http")
    row = page.get_by_role("row").filter(has_text="/models").last
    row.get_by_role("button").click()
    page.get_by_role("button", name="Python").click()
    expect(code).to_contain_text("urlopen")
    (tmp_path / "request.py").write_text(code.inner_text())
    done = subprocess.run([sys.executable, tmp_path / "request.py"], capture_output=True, check=True)
    assert b"cgan" in done.stdout
    page.get_by_role("link", name="Training film").click()
    page.watched.settle()
    page.get_by_role("link", name="Under the hood").click()
    page.get_by_role("row").filter(has_text="/pictures/film").get_by_role("button").click()
    (tmp_path / "request.py").write_text(code.inner_text())
    subprocess.run([sys.executable, tmp_path / "request.py"], cwd=tmp_path, check=True)
    assert (tmp_path / "film.png").read_bytes().startswith(b"\x89PNG")
    expect(page.get_by_text("a second").first).to_be_visible()


def test_the_page_loads_nothing_from_elsewhere(browser, client):
    with opened(browser, client) as page:
        urls = []
        page.on("request", lambda request: urls.append(request.url))
        page.reload()
        draw(page)
        page.watched.settle()
        assert urls
        assert all(url.startswith((str(client.base_url), "data:", "blob:")) for url in urls)


def test_an_error_is_shown_where_it_happened_in_the_words_of_the_service(browser, client):
    problem = {"status": 503, "code": "overloaded", "detail": "The service is overloaded; retry later."}
    with opened(browser, client) as page:
        refuse = {"status": 503, "content_type": "application/problem+json", "body": json.dumps(problem)}
        page.route("**/reconstruct?model=vae*", lambda route: route.fulfill(**refuse))
        draw(page)
        page.watched.settle()
        notice = results(page, "vae").get_by_role("alert")
        expect(notice).to_contain_text(problem["detail"])
        expect(results(page, "cvae").get_by_role("alert")).to_have_count(0)
        page.unroute_all()
        notice.get_by_role("button", name="Try again").click()
        expect(notice).to_have_count(0)
        expect(results(page, "vae")).to_contain_text("cross-entropy")


def test_the_page_opens_by_itself_once_the_service_is_ready(browser, client):
    problem = {"status": 503, "code": "not_ready", "detail": "loading", "reasons": ["loading the models"]}
    context = browser.new_context()
    page = context.new_page()
    answer = {"status": 503, "content_type": "application/problem+json", "body": json.dumps(problem)}
    page.route("**/readyz", lambda route: route.fulfill(**answer))
    page.goto(str(client.base_url))
    expect(page.get_by_text("loading the models").last).to_be_visible()
    page.unroute_all()
    expect(page.get_by_role("heading", level=1)).to_have_text("Draw")
    context.close()


def test_a_key_is_asked_for_and_kept_in_memory_only(browser, tiny_models):
    with serving(models_dir=tiny_models, api_key=KEY) as guarded, opened(browser, guarded) as page:
        dialog = page.get_by_role("dialog", name="This service needs a key")
        expect(dialog).to_be_visible()
        assert_accessible(page)
        dialog.get_by_label("API key").fill("another-key-than-this")
        dialog.get_by_role("button").click()
        expect(dialog).to_contain_text("refused")
        dialog.get_by_label("API key").fill(KEY)
        dialog.get_by_role("button").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Draw")
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        page.get_by_role("link", name="Training film").click()
        expect(page.get_by_role("img", name="What boots made after epoch 1")).to_be_visible()
        page.get_by_role("link", name="Under the hood").click()
        expect(page.get_by_role("region", name="The request as code")).to_contain_text("$DIGITS_API_KEY")
        assert KEY not in page.content()
        page.reload()
        expect(dialog).to_be_visible()


def test_rooms_whose_models_are_not_loaded_are_not_shown(browser):
    with serving(models="lenet") as reader, opened(browser, reader) as page:
        expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(
            ["Draw", "Training film", "Under the hood"]
        )
        draw(page)
        expect(page.get_by_text("reads 3").first).to_be_visible()
        expect(page.get_by_role("heading", name="Reconstructions")).to_have_count(0)
        assert not page.watched.faults


def test_models_of_other_classes_and_sizes_work_in_every_room(browser, tiny_models):
    with serving(models_dir=tiny_models) as other, opened(browser, other, viewport=PHONE) as page:
        draw(page, TWO)
        page.watched.settle()
        page.get_by_role("link", name="Sample").click()
        expect(page.get_by_role("button", name=re.compile(r"by boots, label Ankle boot"))).to_have_count(4)
        page.get_by_label("Label", exact=True).select_option("Bag")
        expect(page.get_by_role("button", name=re.compile(r"by boots, label Bag"))).to_have_count(10)
        page.get_by_role("button", name=re.compile(r"Image 0 .* by sketch")).click()
        expect(page.get_by_role("link", name="Send to Compare")).to_be_visible()
        # Its images do not change gradually with their latents.
        expect(page.get_by_role("link", name="Send to Walk")).to_have_count(0)
        page.keyboard.press("Escape")
        for hash_ in (
            "walk?model=boots&label=Bag",
            "walk?model=fitted&b.ink=-",
            "walk?model=small",
            "compare?left=boots&right=sketch",
        ):
            page.evaluate(f"location.hash = '#/{hash_}'")
            page.watched.settle()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        expect(results(page, "boots").get_by_role("img", name="label T-shirt/top")).to_have_count(3)
        page.watched.settle()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("link", name="Training film").click()
        page.get_by_label("Model", exact=True).select_option("sketch")
        exported = other.get("/models/sketch/history").json()["exported"]
        page.get_by_role("button", name=f"Exported epoch: {exported}").click()
        expect(page.get_by_role("img", name=f"What sketch made after epoch {exported}")).to_be_visible()
        page.get_by_role("link", name="Quiz").click()
        for _ in range(20):
            answer(page, "Made")
            page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="10 of 20 right")).to_be_visible()
        page.watched.settle()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not page.watched.faults
