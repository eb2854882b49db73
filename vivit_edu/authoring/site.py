"""`vivit-edu site DIR`: the course as a web site of plain files, to read without running anything.

Made by Sphinx with MyST-NB, from the masters as they were executed. Nothing on the pages comes from the network:
formulas are MathML, which browsers draw themselves.
"""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..course.map import course_map
from ..errors import ConfigError
from .exercises import on_github, relink
from .masters import COLAB, PLOT, Master, checkout, master_paths, notebook_text, owner_and_name, read, repository, tags
from .ours import built_beside, marked

if TYPE_CHECKING:
    from docutils import nodes
    from nbformat import NotebookNode
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator as HTMLTranslator

INDEX = """\
# Build the Video Vision Transformer yourself

Take a cube of 28 × 28 × 28 voxels, small enough to fit on a stamp, and let every voxel look at every other one. The
table of who looks at whom takes **two gigabytes**, for one clip, one head and one layer. Cut the cube into 343 little
boxes first, and the same table takes **half a megabyte**. A network that works with such a table saw this:

{picture}

:::{{container}} start
[Start in Colab]({colab})
[Read chapter 00]({first})
:::

In {count} notebooks you write ViViT ([Arnab et al., ICCV 2021](https://arxiv.org/abs/2103.15691)) in plain PyTorch.
Each part that you write is checked at once, and the check names the likely mistake. In the end your models give the
same outputs as the authors' own code.

## What you will build

- **Tubelets:** the cut of a clip into small boxes, and the layer that turns each box into a token.
- **Attention:** queries, keys and values, masks, several heads, and the block around them.
- **Four video transformers:** all the models of the paper, from attention over everything to heads that share the work.
- **The bill:** formulas for what each model costs, and a design that has to fit into a budget.
- **Training:** weights of image models, augmentation that knows left from right, and the whole training loop.
- **Attention maps, and tests of whether to believe them,** and a fair comparison with convolutional networks.

## For whom

You know Python and a little PyTorch, and you have trained a small network before. You don't need to know transformers.
The chapters take about {hours} hours, and a laptop without a GPU runs all of them.

## Start

**In the browser,** with nothing to install: [Colab]({colab}), [Binder]({binder}) or [Codespaces]({codespaces}). Binder
and Codespaces are set up, but were not tried yet.

**On your machine,** with Git and Python 3.11 or newer:

```bash
git clone {repo} && cd {folder} && python -m pip install uv
uv run jupyter lab notebooks
```

**With a class:** the [instructor's guide](guide.md) has timetables, points, the mistakes to expect and the command that
makes an nbgrader course.

**Here,** to read: solutions and the code of figures are folded away, so try first. Ctrl + K searches all pages.

## The chapters

{chapters}

```{{toctree}}
:hidden:
:caption: Chapters

{names}
```

```{{toctree}}
:hidden:
:caption: For instructors

guide
```
"""
ANIMATION = """\
![The slices of a liver in the synthetic torso, one after the other, and next to them the same slices with the trained \
model's attention in yellow](results/attention_phantom.gif)

*A trained ViViT reads a test volume that it classifies rightly. Yellow shows where its attention went. The torso is
synthetic and called the phantom: nobody was scanned.*
"""
WEB = Path(__file__).parent / "web"  # conf.py and the style sheet
PICTURE = r"results/[\w.-]+\.(?:png|gif)"  # what chapters show besides the figures that they draw


def site(folder: Path | str, *, masters: Path | None = None) -> Path:
    """Builds the site from the masters; its first page is folder/index.html.

    folder: where: new, empty, or a site that this function made before. Then its pages are replaced; files that
    were changed since, or that somebody else put there, are left alone. masters: the folder of the masters; None is
    notebooks/ of the checkout. Returns the folder. Raises ConfigError where there is no checkout, where the folder
    holds something else or cannot be written to, where a tool is not installed, and where Sphinx warns of a page: of
    a link that leads nowhere, or of a formula that it cannot read. Then the folder stays as it was.
    """
    folder, masters = Path(folder), masters or checkout() / "notebooks"
    marked(folder, "site")  # before anything is loaded
    check_tools()
    with TemporaryDirectory() as temporary, built_beside(folder, "site", renew_all=True) as (built, kept):
        pages = Path(temporary, "pages")
        if text := run_sphinx("html", masters, Path(temporary, "sources"), pages):
            raise ConfigError(f"the site has faults. Mend them in the notebooks:\n{text}")
        # MyST-NB leaves a folder of its own next to the pages; .buildinfo is for a second build in the same folder
        shutil.copytree(pages, built, ignore=shutil.ignore_patterns(".buildinfo"), dirs_exist_ok=True)
    for name in kept:
        print(f"{name} was changed since this command wrote it, or is not its own, and stays as it is.")
    return folder


def broken_links(masters: Path | None = None) -> list[str]:
    """The links to other sites that lead nowhere, each as "chapter: address: what its server says".

    Sphinx's linkcheck asks for every address once, so this needs the network. masters: as for `site`.
    """
    check_tools()
    with TemporaryDirectory() as temporary:
        pages = Path(temporary, "pages")
        run_sphinx("linkcheck", masters or checkout() / "notebooks", Path(temporary, "sources"), pages)
        found = [json.loads(line) for line in (pages / "output.json").read_text(encoding="utf-8").splitlines()]
    bad = [link for link in found if link["status"] in ("broken", "timeout")]
    return [f"{link['filename']}: {link['uri']}: {link['info']}" for link in bad]


def check_tools() -> None:
    """Refuses to begin where something that a site is made with is not installed."""
    try:
        import latex2mathml  # noqa: F401
        import myst_nb  # noqa: F401
        import sphinx  # noqa: F401
        import sphinx_book_theme  # noqa: F401
    except ImportError as error:
        raise ConfigError(f'{error.name} is not installed: pip install "vivit-edu[site]", or `uv sync`.') from None


def run_sphinx(builder: str, masters: Path, sources: Path, pages: Path) -> str:
    """Writes what Sphinx reads to `sources`, and what a builder makes of it to `pages`; returns its warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    warnings, figures = io.StringIO(), {"figures": write_sources(sources, masters)}
    with docutils_namespace():  # what Sphinx registers ends with it, and a second site finds nothing in its way
        Sphinx(
            sources, WEB, pages, sources.with_name("doctrees"), builder, figures, status=None, warning=warnings
        ).build()
    return re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue()).replace(str(sources), "notebooks").strip()


def write_sources(folder: Path, masters: Path) -> dict[str, str]:
    """What Sphinx reads: the chapters, the first page and the instructor's guide.

    Returns what `figures_of` says of all figures.
    """
    folder.mkdir()
    paths, repo, figures = master_paths(masters), repository(), {}
    names = {path.name for path in paths}
    for path in paths:
        master = read(path)
        figures |= figures_of(master.nb)
        (folder / path.name).write_text(notebook_text(page(master, names)), encoding="utf-8")
    for picture in sorted((masters / "results").glob("*.*")):
        if re.fullmatch(PICTURE, f"results/{picture.name}"):
            (folder / "results").mkdir(exist_ok=True)
            shutil.copy(picture, folder / "results")
    (folder / "index.md").write_text(first_page(masters, repo), encoding="utf-8")
    guide = masters / "README.md"
    text = guide.read_text(encoding="utf-8") if guide.is_file() else "# Instructor's guide\n\nStill to be written.\n"
    (folder / "guide.md").write_text(relink(text, lambda target: inside(target, names, repo)), encoding="utf-8")
    return figures


def first_page(masters: Path, repo: str) -> str:
    """The site's first page, as Markdown: what the course is, for whom, how to start, its chapters."""
    rows, owner = course_map(masters), owner_and_name(repo)
    picture = ANIMATION if (masters / "results" / "attention_phantom.gif").is_file() else ""
    chapters = [
        f"- **{row['chapter']} [{row['title']}]({row['file']})** · {row['minutes'] or '–'} minutes\\\n"
        f"  {row['builds'] or '–'}"
        for row in rows
    ]
    notebook = f"notebooks/{rows[0]['file']}"
    return INDEX.format(
        picture=picture,
        colab=f"{COLAB}github/{owner}/blob/main/{notebook}",
        binder=f"https://mybinder.org/v2/gh/{owner}/main?urlpath=lab/tree/{notebook}",
        codespaces=f"https://codespaces.new/{owner}",
        first=rows[0]["file"],
        count=len(rows),
        hours=round(sum(int(row["minutes"] or 0) for row in rows) / 60),
        repo=repo,
        folder=owner.split("/")[1],
        chapters="\n".join(chapters),
        names="\n".join(Path(row["file"]).stem for row in rows),
    )


def page(master: Master, names: set[str]) -> NotebookNode:
    """A chapter as it stands on the site: no bootstrap cell, solutions folded away, links to pages of the site."""
    nb = copy.deepcopy(master.nb)
    nb.metadata["language_info"] = {"name": "python"}  # which a chapter that never ran does not say
    nb.cells = [cell for cell in nb.cells if "bootstrap" not in tags(cell)]
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}):  # MyST-NB leaves the links of outputs as they are
                output.data["text/markdown"] = relink(
                    output.data["text/markdown"],
                    lambda target: (
                        re.sub(r"\.ipynb(?=#|$)", ".html", target)
                        if target.partition("#")[0] in names
                        else on_github(target, master.repo)
                    ),
                )
        if cell.cell_type == "markdown":
            source = re.sub(r"\[!\[([^\]]+)\]\([^)]+\)\]\((\S+)\)", r"[\1](\2)", cell.source)  # badges as plain links
            source = re.sub(r"\]\(#[^)\s]+\)", lambda link: link[0].lower(), source)  # Jupyter's anchors have capitals
            cell.source = relink(source, lambda target: inside(target, names, master.repo))
        elif cell.metadata.get("nbgrader", {}).get("solution"):
            cell.metadata["tags"] = [*tags(cell), "hide-input"]
            cell.metadata["mystnb"] = {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide the solution"}
        elif PLOT in tags(cell):
            cell.metadata["tags"] = [*tags(cell), "hide-input"]
            prompts = {"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code"}
            cell.metadata["mystnb"] = prompts
    return nb


def inside(target: str, names: set[str], repo: str) -> str:
    """A link as it must be on the site: to another chapter's page, to a picture of results, else to the repository."""
    file, mark, anchor = target.partition("#")
    if re.fullmatch(PICTURE, file):
        return file
    return f"{file}{mark}{anchor.lower()}" if file in names else on_github(target, repo)


def figures_of(nb: NotebookNode) -> dict[str, dict]:
    """What is said of a notebook's figures, alt text and width on the page, by the name that MyST-NB gives the file:
    the digest of its content."""
    outputs = [
        output for cell in nb.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    return {
        sha256(b64decode(output.data["image/png"])).hexdigest(): output.metadata.get("image/png", {})
        for output in outputs
    }


# ---- what Sphinx calls


def setup(app: Sphinx) -> dict[str, bool]:
    """This module is also an extension of Sphinx: alt texts and formulas."""
    app.add_config_value("figures", {}, "env")
    app.connect("doctree-read", describe_figures)
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def describe_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Gives the figures their alt texts and widths, which MyST-NB leaves behind."""
    from docutils import nodes

    for image in doctree.findall(nodes.image):
        known = app.config.figures.get(Path(image["uri"]).stem, {})
        image["alt"] = image.get("alt") or known.get("alt", "")
        if "width" in known:
            image["width"] = f"{known['width']}px"


def inline_math(writer: HTMLTranslator, node: nodes.math) -> None:
    """Draws a formula inside a line."""
    from docutils import nodes

    writer.body.append(mathml(node.astext(), display=False))
    raise nodes.SkipNode


def display_math(writer: HTMLTranslator, node: nodes.math_block) -> None:
    """Draws a formula on lines of its own."""
    from docutils import nodes

    parts = "\n".join(mathml(part, display=True) for part in parts_of_formula(node.astext()))
    writer.body.append(f'<div class="formula">{parts}</div>\n')
    raise nodes.SkipNode


def parts_of_formula(formula: str) -> list[str]:
    """The parts of a formula that stand next to each other, \\quad or more apart: on a telephone they wrap like words.

    Braces and environments stay whole.
    """
    parts, depth = [""], 0
    for piece in re.split(r"(\\(?:begin|end|left|right)\b|\\q?quad\b|\\[{}]|[{}])", formula):
        depth += piece in ("{", r"\begin", r"\left")
        depth -= piece in ("}", r"\end", r"\right")
        if depth == 0 and piece in (r"\quad", r"\qquad"):
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts if part.strip()]


def mathml(formula: str, *, display: bool) -> str:
    """A LaTeX formula as MathML. display: on lines of its own, else inside a line."""
    from latex2mathml.converter import convert

    return convert(formula, display="block" if display else "inline")
