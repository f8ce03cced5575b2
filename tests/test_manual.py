"""The site of docs/: it builds strictly, has every page, and asks nothing of another host."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tests.conftest import ROOT

pytest.importorskip("mkdocs", reason="needs the extra docs: pip install 'csrecon[docs]'")
pytest.importorskip("mkdocstrings", reason="needs the extra docs: pip install 'csrecon[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manual")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loads(HTMLParser):
    """What a browser fetches by itself to show a page; links that are clicked are not among it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        address = given.get("href") if tag == "link" else given.get("src")
        if address and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(address)
        self.found += re.findall(r"url\(['\"]?([^)'\"]+)", given.get("style") or "")


def loads(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        return re.findall(r"(?:url\(|@import )['\"]?([^)'\";]+)", text)
    reader = Loads()
    reader.feed(text)
    return reader.found


@pytest.mark.slow
def test_it_builds_strictly_and_has_every_page(site):
    assert (site / "index.html").is_file()
    for page in ROOT.glob("docs/*.md"):
        assert page.stem == "index" or (site / page.stem / "index.html").is_file(), page.name
    for text in ("training/NOTES", "src/csrecon/reconstructors/unfolding.py"):
        assert (site / "repository" / text / "index.html").is_file()  # outside of docs/
    assert not list(site.rglob("outside.py"))


@pytest.mark.slow
def test_its_reference_has_the_public_names(site):
    text = (site / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("csrecon.sample", "csrecon.reconstruct", "csrecon.load"):
        assert f'id="{name}"' in text
    assert "sampling ratio m/n in (0, 1]" in text
    assert "Raises" in text


@pytest.mark.slow
def test_it_loads_nothing_from_another_host(site):
    pages = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(pages) > 20
    for path in pages:
        outside = [found for found in loads(path) if re.match(r"(?:[a-z]+:)?//", found)]
        assert not outside, f"{path.relative_to(site)}: {outside}"
        assert 'class="mermaid"' not in path.read_text(
            encoding="utf-8"
        )  # drawn by a script of a CDN


def test_the_reader_of_pages_finds_what_is_loaded():
    reader = Loads()
    reader.feed('<link href="//a/b.css"><script src="https://c/d.js"></script><a href="https://e">')
    assert reader.found == ["//a/b.css", "https://c/d.js"]
