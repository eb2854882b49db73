"""The course as a web site: every chapter whole, every figure there and described, every link alive, light and dark."""

import re
import shutil
import sys
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import nbformat
import pytest
from PIL import Image

from tests.sample_chapter import sample_notebook
from vivit_edu.authoring.masters import master_paths, read, repository
from vivit_edu.authoring.rules import prose
from vivit_edu.authoring.site import broken_links, figures_of, first_page, inside, mathml, page, parts_of_formula, site
from vivit_edu.cli import main
from vivit_edu.course.map import course_map
from vivit_edu.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "notebooks"
MASTERS = master_paths(FOLDER)
PAGES = ["index", "guide", *(path.stem for path in MASTERS)]
each_master = pytest.mark.parametrize("path", MASTERS, ids=[path.stem for path in MASTERS])
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated. Check CHANGES")  # Sphinx, to its extensions
each_page = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages") / "site"
    assert main(["site", str(folder)]) == 0
    return folder


class Page(HTMLParser):
    """What the tests ask of a page: its tags with their attributes, ids, headings, and the text of formulas."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.headings, self.formulas, self.inside = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.ids = {attributes["id"] for _, attributes in self.tags if "id" in attributes}

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "article":  # the headings beside it are the theme's, for print
            self.headings = []
        if re.fullmatch("h[1-6]", tag):
            self.headings.append([int(tag[1]), ""])
        if re.fullmatch("h[1-6]|math", tag):
            self.inside.append(tag)
            if tag == "math":
                self.formulas.append("")

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data):
        if self.inside and self.inside[-1] == "math":
            self.formulas[-1] += data
        if self.inside and self.inside[0] != "math":
            self.headings[-1][1] += data

    def all(self, tag, name):
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]


@pytest.fixture(scope="module")
def pages(built):
    return {name: Page(built / f"{name}.html") for name in PAGES}


@each_master
def test_a_chapter_is_there_whole(pages, built, path):
    master, found = read(path), pages[path.stem]
    titles = [title for _, cell in master.text for title in re.findall(r"^#{1,6} +(.*?)\s*$", prose(cell), re.M)]
    plain = [re.sub(r"\W", "", re.sub(r"\$[^$]*\$|`[^`]*`", "", title)) for title in titles]
    shown = [re.sub(r"\W", "", text) for _, text in found.headings]
    assert all(any(title in text for text in shown) for title in plain)
    cells = [attributes for tag, attributes in found.tags if "cell_input" in attributes.get("class", "").split()]
    assert len(cells) == len(master.code) - 1, "all but the bootstrap"
    figures = [output for _, cell in master.code for output in cell.outputs if "image/png" in output.get("data", {})]
    drawn = [src for src in found.all("img", "src") if src.startswith("_images/")]
    shown_files = [
        name for _, cell in master.text for name in re.findall(r"!\[[^\]]*\]\((results/[^)]+)\)", cell.source)
    ]
    assert len(drawn) == len(figures) + len(shown_files)
    solutions = sum(cell.metadata.get("nbgrader", {}).get("solution", False) for _, cell in master.code)
    assert (built / f"{path.stem}.html").read_text(encoding="utf-8").count("Show a solution") == solutions


def test_the_first_page_says_what_for_whom_how_long_and_how_to_start(pages, built):
    text = first_page(FOLDER, repository())
    for row in course_map(FOLDER):
        assert f"**{row['chapter']} [{row['title']}]({row['file']})** · {row['minutes']} minutes" in text
        assert row["builds"] in text
    assert f"about {sum(int(row['minutes']) for row in course_map(FOLDER)) / 60:.0f} hours" in text
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"```bash\n(git clone.*?)```", readme, re.S)
    assert f"```bash\n{commands}```" in text, "the README's two commands"
    links = pages["index"].all("a", "href")
    for start in ("colab.research.google.com/github/", "mybinder.org/v2/gh/", "codespaces.new/"):
        assert any(link.startswith(f"https://{start}vivit-edu/vivit-edu") for link in links), start
    assert "guide.html" in links and "13_attention_maps.html" in links
    (animation,) = [src for src in pages["index"].all("img", "src") if src.endswith(".gif")]
    with Image.open(built / animation) as image:
        assert image.n_frames > 20
    # the numbers of its first sentences: entries of a table of all pairs, four bytes each
    assert round(28**6 * 4 / 1e9, 1) == 1.9 and round(343**2 * 4 / 1e6, 1) == 0.5 and 343 == (28 // 4) ** 3


@each_page
def test_every_picture_is_there_and_described(pages, built, name):
    for attributes in (attributes for tag, attributes in pages[name].tags if tag == "img"):
        assert (built / unquote(attributes["src"])).is_file(), attributes["src"]
        assert len(attributes.get("alt", "").strip()) > 3, attributes["src"]
        assert not attributes["alt"].startswith("_images")


@each_page
def test_no_link_is_dead_and_nothing_comes_from_the_network(pages, built, name):
    found = pages[name]
    for target in found.all("a", "href") + found.all("link", "href") + found.all("script", "src"):
        file, _, anchor = target.partition("#")
        file = unquote(file.partition("?")[0])
        if re.match("https?:", target):
            assert target in found.all("a", "href"), f"{target} is loaded from the network"
            continue
        assert not file or (built / file).exists(), target
        if anchor and (Path(file).stem in pages or not file):
            assert unquote(anchor) in pages[Path(file).stem if file else name].ids, target


def test_every_chapter_leads_to_the_next_and_back(pages):
    order = ["index", *(path.stem for path in MASTERS)]
    for before, after in zip(order, order[1:]):
        for here, kind, there in ((before, "right-next", after), (after, "left-prev", before)):
            links = [attributes["href"] for _, attributes in pages[here].tags if attributes.get("class") == kind]
            assert links == [f"{there}.html"]


@each_page
def test_headings_leave_no_level_out(pages, name):
    levels = [level for level, text in pages[name].headings if text.strip()]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:])), pages[name].headings


@each_page
def test_formulas_are_drawn(pages, name):
    """What the converter does not know it leaves as it was, backslash included."""
    assert not [formula for formula in pages[name].formulas if "\\" in formula]
    if name == "04_attention":
        assert len(pages[name].formulas) > 10


def test_no_page_holds_a_path_of_this_machine(built):
    here = (str(built.parent), str(FOLDER.parent), str(Path.home()) + "/")
    for path in built.rglob("*.html"):
        assert not any(folder in path.read_text(encoding="utf-8") for folder in here), path.name


# ---- what is refused, and small parts


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with masters of one small chapter, and the site made of them."""
    root = tmp_path_factory.mktemp("small")
    nb = sample_notebook()
    nb.cells[3].source = "## Doubling"
    (root / "masters").mkdir()
    nbformat.write(nb, root / "masters" / "03_sample.ipynb")
    site(root / "site", masters=root / "masters")
    return root


@pytest.fixture
def small(first, tmp_path):
    """A copy of it, to be changed: (folder of the masters, folder of the site)."""
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    return tmp_path / "masters", tmp_path / "site"


def assert_headings_are_linked(path):
    page = Page(path)
    assert "what-to-take-along" in page.ids and "#what-to-take-along" in page.all("a", "href")


@pytest.mark.parametrize(
    "files",
    [
        {"mine.txt": "mine"},
        {"searchindex.js": "Search.setIndex({})", "index.html": "a site of somebody else's", "CNAME": "example.org"},
        {".git": "gitdir: elsewhere"},
        {".vivit-edu": '{"made": "classroom", "files": {}}'},
    ],
)
def test_a_folder_of_somebody_elses_is_left_alone(tmp_path, capsys, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert main(["site", str(tmp_path)]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_touched_before_tools_and_pages_are_known_to_be_fine(small, tmp_path, monkeypatch):
    masters, folder = small
    before = snapshot(folder)
    nb = nbformat.read(masters / "03_sample.ipynb", as_version=4)
    nb.cells[3].source = "## Doubling\n\n[there](03_sample.ipynb#nowhere)"
    nbformat.write(nb, masters / "03_sample.ipynb")
    with pytest.raises(ConfigError, match="nowhere"):  # the dead anchor is named
        site(folder, masters=masters)
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    with pytest.raises(ConfigError, match="myst_nb is not installed"):
        site(folder, masters=masters)
    assert snapshot(folder) == before and sorted(p.name for p in tmp_path.iterdir()) == ["masters", "site"]


def test_a_site_is_renewed_around_what_others_put_there_and_what_was_changed(small, capsys):
    """And it is a second site built in the same process: Sphinx keeps what was registered for the first one."""
    masters, folder = small
    assert_headings_are_linked(folder / "03_sample.html")
    theirs = {folder / "CNAME": "example.org", folder / ".git" / "HEAD": "main", folder / "guide.html": "ours now"}
    for path, text in theirs.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (masters / "03_sample.ipynb").rename(masters / "04_sample.ipynb")
    nb = nbformat.read(masters / "04_sample.ipynb", as_version=4)
    nb.cells[0].source = nb.cells[0].source.replace("03_sample", "04_sample")
    nbformat.write(nb, masters / "04_sample.ipynb")
    capsys.readouterr()
    site(folder, masters=masters)
    assert {path: path.read_text() for path in theirs} == theirs
    assert "guide.html was changed" in (said := capsys.readouterr().out) and "CNAME" not in said
    assert_headings_are_linked(folder / "04_sample.html")
    assert not (folder / "03_sample.html").exists()


@pytest.mark.parametrize(
    "target, leads",
    [
        ("04_attention.ipynb", "04_attention.ipynb"),
        ("04_attention.ipynb#Two-Heads", "04_attention.ipynb#two-heads"),
        ("../data/README.md", "https://github.com/a/b/blob/main/data/README.md"),
        ("results/x.png", "results/x.png"),
    ],
)
def test_links_stay_inside_or_lead_to_the_repository(target, leads):
    assert inside(target, {"04_attention.ipynb"}, "https://github.com/a/b") == leads


@each_master
def test_a_page_loses_nothing_but_the_bootstrap(path):
    master = read(path)
    before = len(master.nb.cells)
    shown = page(master, {path.name for path in MASTERS})
    assert len(shown.cells) == before - 1 == len(master.nb.cells) - 1
    assert not any("colab-badge" in cell.source for cell in shown.cells)


def test_the_code_of_a_figure_is_folded_and_the_figure_as_wide_as_in_the_notebook(tmp_path):
    nb = sample_notebook()
    figure = nb.cells[8]
    figure.metadata["tags"] = ["plot"]
    png = {"image/png": "AAAA", "text/plain": "An empty frame."}
    shown = {"image/png": {"alt": "An empty frame.", "width": 160, "height": 80}}
    figure.outputs = [nbformat.v4.new_output("display_data", data=png, metadata=shown)]
    path = tmp_path / "03_sample.ipynb"
    nbformat.write(nb, path)
    cell = page(read(path), set()).cells[7]
    assert "hide-input" in cell.metadata["tags"] and cell.metadata["mystnb"]["code_prompt_show"].startswith("Show the")
    assert list(figures_of(nb).values()) == [shown["image/png"]]


@pytest.mark.parametrize(
    "formula, parts",
    [
        (r"a = 1, \qquad b = \mathrm{MLP}(c), \quad d", ["a = 1,", r"b = \mathrm{MLP}(c),", "d"]),
        (r"\frac{a \quad b}{c}", [r"\frac{a \quad b}{c}"]),
        (r"\left\{ a \quad b \right\} \quad c", [r"\left\{ a \quad b \right\}", "c"]),
        (r"\begin{aligned} a & \quad b \end{aligned}", [r"\begin{aligned} a & \quad b \end{aligned}"]),
    ],
)
def test_parts_of_a_formula_that_stand_next_to_each_other_may_wrap(formula, parts):
    assert parts_of_formula(formula) == parts


def test_mathml_is_marked_as_block_or_inline():
    assert 'display="block"' in mathml(r"\frac{a}{b}", display=True) and "<mfrac>" in mathml(
        r"\frac{a}{b}", display=True
    )
    assert 'display="inline"' in mathml("x", display=False)


# ---- in a browser

# Text whose contrast with what lies behind it is too low to read (WCAG AA: 4.5, 3 for large letters), as strings.
PALE = """() => {
    const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const luminance = rgb => rgb.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = parse(getComputedStyle(e).backgroundColor);
            if (colour.length == 3 || colour[3] > 0.9) return colour;
        }
        return [255, 255, 255];
    };
    const found = new Set();
    for (const element of document.querySelectorAll('article *')) {
        const own = [...element.childNodes].some(node => node.nodeType == 3 && node.textContent.trim());
        if (!own || !element.getClientRects().length || element.closest('math, .headerlink')) continue;
        const style = getComputedStyle(element), size = parseFloat(style.fontSize);
        const [a, b] = [luminance(parse(style.color)), luminance(behind(element))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio >= (size >= 24 ? 3 : 4.5)) continue;
        const what = `${element.tagName}.${element.className} ${style.color} ${ratio.toFixed(1)}`;
        found.add(`${what}: ${element.textContent.trim().slice(0, 40)}`);
    }
    return [...found];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_open_in_a_browser(built, browser, scheme):
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1300, "height": 900})
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(request.url))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or faults.append(request.url))
    for name in PAGES:
        page.goto((built / f"{name}.html").as_uri())
        page.evaluate("document.querySelectorAll('article img').forEach(i => i.loading = 'eager')")
        page.wait_for_function(
            "[...document.querySelectorAll('article img')].every(i => i.complete && i.naturalWidth > 50)"
        )
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
        assert brightness > 200 if scheme == "light" else brightness < 60, f"{name}: {ground}"
        assert page.evaluate(PALE) == [], name
    assert faults == []
    context.close()


# What a reader with a telephone would have to scroll sideways for, or would see out of shape, as strings.
TOO_WIDE = """() => {
    const found = [], width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) found.push(`the page: ${document.documentElement.scrollWidth}`);
    for (const formula of document.querySelectorAll('article div.formula'))
        if (formula.scrollWidth > formula.clientWidth) found.push(`formula: ${formula.textContent.slice(0, 40)}`);
    for (const image of document.querySelectorAll('article img')) {
        const box = image.getBoundingClientRect();
        if (box.right > width) found.push(`too wide: ${image.alt}`);
        if (Math.abs(box.width / box.height * image.naturalHeight / image.naturalWidth - 1) > 0.05)
            found.push(`out of shape, ${box.width} x ${box.height}: ${image.alt}`);
    }
    return found;
}"""


def test_a_telephone_shows_every_page_without_scrolling_sideways(built, browser):
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    for name in PAGES:
        page.goto((built / f"{name}.html").as_uri())
        page.evaluate("document.querySelectorAll('article img').forEach(i => i.loading = 'eager')")
        page.wait_for_function("[...document.querySelectorAll('article img')].every(i => i.complete)")
        assert page.evaluate(TOO_WIDE) == [], name
    context.close()


def test_solutions_and_the_code_of_figures_unfold(built, browser):
    page = browser.new_page()
    page.goto((built / "03_tubelet_embedding.html").as_uri())
    for words in ("Show a solution", "Show the code of this figure"):
        folded = page.locator("details", has_text=words).first
        assert not folded.locator("pre").first.is_visible()
        folded.locator("summary").click()
        assert folded.locator("pre").first.is_visible()
    page.close()


def test_the_search_finds_chapters_and_a_page_leads_to_the_next(built, browser):
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=built)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/search.html?q=rollout")
        page.wait_for_selector("#search-results li a")
        assert page.locator("#search-results li a", has_text="13 · Attention maps").count()
        page.locator("#search-results li a", has_text="13 · Attention maps").first.click()
        page.locator("a.right-next").click()
        assert page.url.endswith(f"/{MASTERS[14].stem}.html")
        page.close()
        server.shutdown()


def test_links_to_other_sites_are_asked_for(tmp_path, monkeypatch):
    """A server on this machine stands for the others: what it does not have is named, what it has is not."""
    (tmp_path / "there.html").write_text("<p>Here.</p>", encoding="utf-8")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        nb, here = sample_notebook(), f"http://127.0.0.1:{server.server_port}"
        nb.cells[0].source = "# 03 · A sample"  # no badges: nothing asks for another server
        nb.cells[0].source += f"\n\n[one]({here}/there.html), [another]({here}/nowhere.html)"
        (tmp_path / "masters").mkdir()
        (tmp_path / "masters" / "03_sample.ipynb").write_text(nbformat.writes(nb), encoding="utf-8")
        monkeypatch.setattr(
            "vivit_edu.authoring.site.INDEX", "# A course\n\n{chapters}\n\n```{{toctree}}\n{names}\nguide\n```\n"
        )
        found = broken_links(tmp_path / "masters")
        server.shutdown()
    local = [text for text in found if here in text]
    assert len(local) == 1 and local[0].startswith("03_sample.ipynb: ") and "/nowhere.html: 404" in local[0]
