"""`vivit-edu site DIR`: the course as a web site of plain files, to read without running anything.

Made by Sphinx with MyST-NB, from the masters as they were executed. Nothing on the pages comes from the network:
formulas are MathML, which browsers draw themselves.
"""

import copy
import io
import re
import shutil
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from ..course.map import course_map_markdown
from ..errors import ConfigError
from .exercises import on_github, relink
from .masters import checkout, master_paths, notebook_text, read, repository, tags

INDEX = """\
# vivit-edu

Build the Video Vision Transformer ([Arnab et al., ICCV 2021](https://arxiv.org/abs/2103.15691)) step by step: from a
volume cut into tubelets to the four attention models of the paper, trained and explained.

These pages are for reading. To run the cells, open a chapter in Colab by the link at its top, or clone
[the repository]({repo}). What looks like a patient here is the *phantom*, a synthetic torso. Solutions of the
exercises are folded away; try first.

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
# Lines of code as wide as the course writes them; formulas and tables wider than a telephone scroll by themselves;
# the ledger's table, which brings no colours, takes the page's, also where that is dark.
STYLE = """\
.bd-page-width { max-width: 104rem; }
.bd-main .bd-content .bd-article-container { max-width: 72em; }
div.cell pre { font-size: 0.8em; }
div.cell_output pre { white-space: pre-wrap; }
div.cell_output .text_html { background: none !important; color: inherit !important; overflow-x: auto; }
div.cell_output .text_html table { font-size: 0.8em; }
div.cell_output .text_html :is(th, td) { padding: 0.2em 0.6em; text-align: left; }
div.formula { margin: 1em 0; overflow-x: auto; }
"""
SETTINGS = {
    "project": "vivit-edu",
    "author": "The vivit-edu maintainers",
    "copyright": "the vivit-edu maintainers, MIT licence",
    "language": "en",
    "extensions": ["myst_nb", "vivit_edu.authoring.site"],
    "nb_execution_mode": "off",
    "myst_enable_extensions": ["dollarmath", "amsmath", "colon_fence"],
    "myst_heading_anchors": 4,
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {"use_download_button": False, "navbar_persistent": []},
    "html_static_path": ["_static"],
    "html_css_files": ["course.css"],
    "html_title": "vivit-edu",
    "html_show_sphinx": False,
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_math_renderer": "mathml",
}


def site(folder, *, masters=None):
    """Builds the site from the masters; its first page is folder/index.html.

    Args:
        folder: where; new, empty, or a site made here before, which is replaced.
        masters: the folder of the masters; None is notebooks/ of the checkout.

    Returns:
        the folder's Path.
    Raises:
        ConfigError: no checkout, a folder that holds something else, a tool that is not installed, or a page that
            Sphinx warns of: a link that leads nowhere, a formula it cannot read.
    """
    folder, masters = Path(folder), masters or checkout() / "notebooks"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (folder / "searchindex.js").is_file():
            raise ConfigError(
                f"{folder} holds other files; expected a new or empty folder, or a site made here before."
            )
        shutil.rmtree(folder)
    try:
        import latex2mathml  # noqa: F401
        import myst_nb  # noqa: F401
        import sphinx_book_theme  # noqa: F401
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace
    except ImportError as error:
        raise ConfigError(f'{error.name} is not installed: pip install "vivit-edu[site]", or `uv sync`.') from None
    with TemporaryDirectory() as temporary:
        sources, warnings = Path(temporary, "sources"), io.StringIO()
        settings = SETTINGS | {"figure_alts": write_sources(sources, masters)}
        with docutils_namespace():  # what Sphinx registers ends with it, and a second site finds nothing in its way
            Sphinx(
                sources, None, folder, Path(temporary, "doctrees"), "html", settings, status=None, warning=warnings
            ).build()
    if text := warnings.getvalue().replace(str(sources), "notebooks").strip():
        raise ConfigError("the site has faults, to be mended in the notebooks:\n" + re.sub(r"\x1b\[[\d;]*m", "", text))
    return folder


def write_sources(folder, masters):
    """What Sphinx reads: the chapters, the first page and the instructor's guide. Returns {file stem: alt text}."""
    folder.mkdir()
    paths, repo, alts = master_paths(masters), repository(), {}
    names = {path.name for path in paths}
    for path in paths:
        master = read(path)
        alts |= figure_alts_of(master.nb)
        (folder / path.name).write_text(notebook_text(page(master, names)), encoding="utf-8")
    chapters = "\n".join(path.stem for path in paths)
    index = INDEX.format(repo=repo, chapters=course_map_markdown(masters), names=chapters)
    (folder / "index.md").write_text(index, encoding="utf-8")
    (folder / "_static").mkdir()
    (folder / "_static" / "course.css").write_text(STYLE, encoding="utf-8")
    guide = masters / "README.md"
    text = guide.read_text(encoding="utf-8") if guide.is_file() else "# Instructor's guide\n\nStill to be written.\n"
    (folder / "guide.md").write_text(relink(text, lambda target: inside(target, names, repo)), encoding="utf-8")
    return alts


def page(master, names):
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
    return nb


def inside(target, names, repo):
    """A link as it must be on the site: to another chapter's page and its headings, else to the repository."""
    file, mark, anchor = target.partition("#")
    return f"{file}{mark}{anchor.lower()}" if file in names else on_github(target, repo)


def figure_alts_of(nb):
    """The alt texts of a notebook's figures, by the name that MyST-NB gives the file: the digest of its content."""
    outputs = [
        output for cell in nb.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    return {
        sha256(b64decode(output.data["image/png"])).hexdigest(): output.metadata.get("image/png", {}).get("alt", "")
        for output in outputs
    }


# ---- what Sphinx calls


def setup(app):
    """This module is also an extension of Sphinx: alt texts and formulas."""
    app.add_config_value("figure_alts", {}, "env")
    app.connect("doctree-read", describe_figures)
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def describe_figures(app, doctree):
    """Gives the figures their alt texts, which MyST-NB leaves behind."""
    from docutils import nodes

    for image in doctree.findall(nodes.image):
        image["alt"] = image.get("alt") or app.config.figure_alts.get(Path(image["uri"]).stem, "")


def inline_math(writer, node):
    from docutils import nodes

    writer.body.append(mathml(node.astext(), display=False))
    raise nodes.SkipNode


def display_math(writer, node):
    from docutils import nodes

    writer.body.append(f'<div class="formula">{mathml(node.astext(), display=True)}</div>\n')
    raise nodes.SkipNode


def mathml(formula, *, display):
    """A LaTeX formula as MathML."""
    from latex2mathml.converter import convert

    return convert(formula, display="block" if display else "inline")
