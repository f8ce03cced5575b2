"""`csrecon demo` in Chromium without a screen; skipped where there is no Chromium.

Debian and Ubuntu: apt-get install chromium chromium-driver
"""

import json
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.test_demo_server import image_of, served

webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra dev")
pytest.importorskip("gradio", reason="needs the extra demo")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
LONG = 90.0  # seconds
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER), reason="needs Chromium and its driver (chromium, chromedriver)"
    ),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served(tmp_path_factory.mktemp("browser") / "temporary") as (address, _):
        yield address


@pytest.fixture
def browser(tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "kept")})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    made.set_window_size(1440, 1000)
    yield made
    made.quit()


class Page:
    """The page as a person uses it."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.until("#original img")

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def text(self, selector):
        return self.browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join(' ')",
            selector,
        )

    def until(self, selector, text=""):
        """Wait for an element, and for a text in it."""
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            if self.all(selector) and text in self.text(selector):
                return
            time.sleep(0.1)
        raise AssertionError(f"no {text!r} in {selector}: {self.text(selector)!r}")

    def give(self, path):
        """Upload an image; another one is taken away before."""
        for clear in self.all("#image button[aria-label='Clear']"):
            clear.click()
            self.until("#status", "Grace Hopper")
        self.all("#image input[type=file]")[0].send_keys(str(path))

    def set(self, name, value):
        field = self.all(f"#{name} input[type=number]")[0]
        field.send_keys("\ue009a\ue000", str(value), "\ue007")  # Ctrl-A, the value, Enter

    def choose(self, name, value):
        field = self.all(f"#{name} input")[0]
        field.click()
        for option in self.all("ul[role=listbox] li"):
            if option.get_attribute("aria-label") == value:
                option.click()
                return
        raise AssertionError(f"no {value} in {name}")

    def reconstruct(self):
        """Press the button, wait for the end; the PSNR of the scores."""
        self.all("#go")[0].click()
        end = time.monotonic() + LONG
        while self.all("#files a"):  # of the last time
            assert time.monotonic() < end
            time.sleep(0.05)
        self.until("#files a")
        return float(self.all("#scores tbody tr:nth-child(2) td:nth-child(2)")[0].text)

    def hosts(self):
        """Every host that was asked for anything."""
        events = (json.loads(entry["message"])["message"] for entry in self.log())
        sent = (e["params"] for e in events if e["method"] == "Network.requestWillBeSent")
        return {urlsplit(one["request"]["url"]).netloc for one in sent} - {""}

    def log(self):
        return self.browser.get_log("performance")


def test_a_person_tries_it(browser, address, tmp_path):
    page = Page(browser, address)
    page.give(image_of(tmp_path, 66, 66))
    page.until("#status", "66x66.png: 66×66 pixels")
    page.set("ratio", 10)
    page.set("first-ipl", 2)
    first = page.reconstruct()
    page.set("ratio", 40)
    more_values = page.reconstruct()
    page.set("first-ipl", 6)
    more_iterations = page.reconstruct()
    assert first + 3 < more_values < more_iterations
    assert len(page.all("#film figure")) == 6
    assert "--ratio 0.4" in page.text("#commands")
    assert "--ipl 6" in page.text("#commands")
    assert page.all("#error img")

    for link in page.all("#files a"):
        link.click()
    kept, wanted = tmp_path / "kept", {"image.png", "y.npz", "result.png"}
    end = time.monotonic() + LONG
    while {path.name for path in kept.glob("*")} != wanted and time.monotonic() < end:
        time.sleep(0.1)
    assert {path.name for path in kept.glob("*")} == wanted

    page.choose("second-model", "rista")
    page.until("#second-ipl", "rista applies")
    page.reconstruct()
    page.until("#slider img")
    assert page.hosts() == {urlsplit(address).netloc}


def test_a_wrong_file_and_a_cancel(browser, address, tmp_path):
    page = Page(browser, address)
    wrong = tmp_path / "text.png"
    wrong.write_text("no image")
    page.give(wrong)
    page.until("#status .error", "text.png: ")
    assert str(Path(tmp_path.anchor, "tmp")) not in page.text("#status")
    for clear in page.all("#image button[aria-label='Clear']"):
        clear.click()
    page.until("#status", "Grace Hopper")
    page.set("first-ipl", 24)
    page.all("#go")[0].click()
    page.until("#status", "iteration 1 of 24")
    page.all("#cancel")[0].click()
    page.until("#status", "Cancelled")
    time.sleep(1)
    assert "Cancelled" in page.text("#status")
    page.give(image_of(tmp_path, 66, 66))
    page.until("#status", "66x66.png")
    page.set("first-ipl", 1)
    assert page.reconstruct() > 10


def test_nothing_overflows_a_narrow_screen(browser, address, tmp_path):
    page = Page(browser, address)
    page.give(image_of(tmp_path, 66, 66))
    page.until("#status", "66x66.png")
    page.set("first-ipl", 2)
    page.reconstruct()
    screen = {"width": 390, "height": 840, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    time.sleep(1)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_a_file_of_a_laboratory(browser, address, tmp_path):
    import numpy as np
    import torch

    from csrecon.sensing.operators import BlockOperator, Phi
    from tests.conftest import scene

    phi = Phi.make(96, 256, 0)
    x = torch.from_numpy(scene(48, 64)[..., 0] / np.float32(255))[None, None]
    y = BlockOperator(phi, (48, 64))(x).flatten(0, 2).numpy()
    np.savez(tmp_path / "lab.npz", values=y, pattern=phi.matrix)
    page = Page(browser, address)
    next(tab for tab in page.all("button[role=tab]") if "own" in tab.text).click()
    page.all("#uploads input[type=file]")[0].send_keys(str(tmp_path / "lab.npz"))
    page.until("#contents", "lab.npz:pattern")
    page.all("#height input")[0].send_keys("48")
    page.all("#width input")[0].send_keys("64", "\ue007")
    page.all("#lab-go")[0].click()
    page.until("#lab-commands", "--phi lab.npz:pattern")
    page.until("#lab-result img")
    assert "--shape 48x64" in page.text("#lab-commands")
