"""
The documentation as a site: built without warnings, links that lead somewhere, a search that finds, pages
that everybody can read. The chat's page is held to the last rule too.
"""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urldefrag, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.browser import CHROMEDRIVER, CHROMIUM, DESKTOP, PHONE, Window, webdriver
from tests.interop.clients import FOLDER
from tests.interop.test_browser import PageTestCase
from tests.support import ROOT, requirePart, run

AXE = FOLDER / "node_modules" / "axe-core" / "axe.min.js"

SEARCHED = {
    "presence": "howto/presence",
    "JWT": "faq",
    "eventlet": "howto/flask",
    "reconnect": "howto/recovery",
    "upload": "faq",
    "admin": "howto/admin",
    "asyncio": "faq",
    "CORS": "howto/troubleshooting",
    "Kubernetes": "operate/containers",
}
"A word that people search for, and a page that must be among those found."

READ = ("index", "tutorial", "howto/troubleshooting", "operate/containers", "api/server", "howto/monitoring")
"Pages for axe-core."

END_ANIMATIONS = """
    const ends = (each) => each.effect.getComputedTiming().endTime !== Infinity;
    document.getAnimations().filter(ends).forEach((each) => each.finish());
"""

RULES = "return axe.run(document, { resultTypes: ['violations'] })"


def requireAxe() -> None:
    """Skip (or fail, see `requirePart`) without a browser and axe-core."""
    requirePart(webdriver, "selenium is not installed")
    requirePart(CHROMIUM and CHROMEDRIVER, "no chromium, or no chromedriver (Debian: chromium-driver)")
    requirePart(
        AXE.exists(), "no axe-core: npm install --no-package-lock in tests/interop, as scripts/test does"
    )


def violations(window: Window) -> list[str]:
    """Return the rules of axe-core that the page in a window breaks, each with the elements."""
    # What fades in has less contrast for a moment; what moves for ever does not end.
    window.driver.execute_script(END_ANIMATIONS)
    window.driver.execute_script(AXE.read_text())
    found: dict[str, Any] = window.driver.execute_script(RULES)
    return [
        f"{rule['id']}: {rule['help']}: {[node['html'][:200] for node in rule['nodes'][:5]]}"
        for rule in found["violations"]
    ]


class Links(HTMLParser):
    """
    The links and the anchors of a page.

    :ivar links: the targets of links, and the sources of pictures, scripts and styles.
    :ivar anchors: the ids of elements.
    """

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value and tag != "base":
                self.links.add(value)


class SiteTests(SynchronousTestCase):
    """
    Sphinx's settings are in docs/conf.py; any warning of it is an error here.

    :cvar site: the folder of the built pages.
    """

    site: ClassVar[Path | None] = None

    def setUp(self) -> None:
        cls = type(self)
        if cls.site is None:
            site = Path(self.mktemp()).resolve()
            run(sys.executable, "-m", "sphinx", "-qW", "--keep-going", "docs", site, cwd=ROOT)
            cls.site = site
        self.folder = cls.site
        assert self.folder is not None

    def test_links(self) -> None:
        """Each link inside of the site leads to a file, and to an anchor in it if it names one."""
        pages = {page: Links(page) for page in self.folder.rglob("*.html")}
        self.assertGreater(len(pages), 50)
        for page, links in pages.items():
            for link in links.links:
                parts = urlsplit(link)
                if parts.scheme or parts.netloc:
                    continue
                path, anchor = urldefrag(link)
                target = (page.parent / unquote(path.partition("?")[0])).resolve() if path else page
                if target.is_dir():
                    target /= "index.html"
                self.assertTrue(target.exists(), f"{page}: {link}")
                if anchor and target in pages:
                    self.assertIn(unquote(anchor), pages[target].anchors, f"{page}: {link}")

    def test_markdown(self) -> None:
        """Each link of the files at the root leads to a file."""
        for page in ROOT.glob("*.md"):
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
                self.assertTrue((ROOT / link).exists(), f"{page.name}: {link}")

    def test_search(self) -> None:
        """The index of the site has the words that people search for."""
        from sphinx.search.en import SearchEnglish

        text = (self.folder / "searchindex.js").read_text()
        index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
        stem = SearchEnglish({}).stem
        for word, page in SEARCHED.items():
            found: set[int] = set()
            for terms in (index["terms"], index["titleterms"]):
                numbers = terms.get(stem(word.lower()), [])
                found.update([numbers] if isinstance(numbers, int) else numbers)
            self.assertIn(page, {index["docnames"][number] for number in found}, word)

    def test_news(self) -> None:
        """Each change since the last release is in the news, under its kind and its part."""
        text = (self.folder / "news.html").read_text()
        fragments = len([*(ROOT / "docs" / "newsfragments").rglob("+*.rst")])
        self.assertGreaterEqual(text.count("<li>"), fragments)
        if fragments:
            self.assertIn("(unreleased)", text)
            self.assertRegex(text, "<h3>(Added|Fixed|Changed or removed|Documentation)<")

    def test_everyPage(self) -> None:
        """Each page has the favicon and a link to edit it."""
        for name in READ:
            text = (self.folder / f"{name}.html").read_text()
            self.assertIn("favicon.svg", text)
            self.assertIn(f"/main/docs/{name}.rst", text)

    def test_tablesScroll(self) -> None:
        """Each table that may be wider than the window can be scrolled by the keyboard."""
        for page in self.folder.rglob("*.html"):
            self.assertNotRegex(page.read_text(), 'class="table-wrapper[^"]*">', str(page))

    def test_accessible(self) -> None:
        requireAxe()
        for size in (DESKTOP, PHONE):
            window = Window("", str(Path(self.mktemp()).resolve()), size)
            self.addCleanup(window.driver.quit)
            for name in READ:
                window.driver.get((self.folder / f"{name}.html").as_uri())
                self.assertEqual(violations(window), [], f"{name}, {size}")
                width = window.driver.execute_script("return document.documentElement.scrollWidth")
                self.assertLessEqual(width, size[0], f"{name} is wider than the window")
                window.photograph(f"_site-{name.replace('/', '-')}-{size[0]}")


class ChatAccessibleTests(PageTestCase):
    def test_chat(self) -> None:
        """The entry, a talk, and on a phone the open panel."""
        requireAxe()
        ada, grace = self.window(), self.window(PHONE)
        ada.driver.get(self.server.url)
        ada.waitFor("the form", lambda: ada["#enter"].is_displayed())
        self.assertEqual(violations(ada), [], "entry")
        ada.enter("Ada")
        grace.enter("Grace")
        ada.say("Good evening, see https://example.org")
        grace.sees("#log .said", "Good evening, see https://example.org")
        grace.say("Hello")
        ada.sees("#log .said", "Good evening, see https://example.org", "Hello")
        ada.sees("#log .mine[data-state=delivered] .said", "Good evening, see https://example.org")
        for window, name in ((ada, "desktop"), (grace, "phone")):
            self.assertEqual(violations(window), [], name)
