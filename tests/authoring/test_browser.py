"""The course in JupyterLab, in a real browser: every chapter opens, and a slider that is moved changes its picture.

That the chapters run is tested elsewhere, so none is run here: the sliders are tried in a short notebook.

Needs Chromium (or Chrome), headless; skipped with a word where there is none. $VIVIT_EDU_BROWSER names another
one, and where it is set the tests fail rather than skip.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from vivit_edu.authoring import notebooks as harness
from vivit_edu.authoring.masters import master_paths, notebook_text, read

FOLDER = Path(__file__).parents[2] / "notebooks"
MASTERS = master_paths(FOLDER)
# Cells out of sight are drawn too, and nothing asks for news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
}
# Every explorer of the chapters with its film strip, on clips that are there at once.
EXPLORERS = {"scroll_volume", "tubelet_explorer", "attention_explorer"}
SLIDERS = (
    """import numpy as np
import torch
from vivit_edu import build_model
from vivit_edu.course.attention_widget import attention_explorer, attention_strip
from vivit_edu.course.widgets import scroll_volume, tubelet_explorer, tubelet_strip, volume_strip
clips = torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
volume = (255 * clips[0]).to(torch.uint8)
model = build_model("spacetime", clip_shape=(1, 8, 8, 8), tubelet=(4, 4, 4), dim=16, depth=2, heads=2, mlp_dim=16)""",
    "scroll_volume(volume[0].numpy(), volume[0].numpy() // 128, ('bright',))",
    "volume_strip(volume[0].numpy())",
    "tubelet_explorer(volume)",
    "tubelet_strip(volume, sizes=((2, 2), (4, 4)))",
    "attention_explorer(model, clips)",
    "attention_strip(model, clips)",
)
PATIENCE = int(os.environ.get("VIVIT_EDU_PATIENCE", "1"))  # how many times longer to wait on a busy machine
MINUTE = 60_000 * PATIENCE  # milliseconds, as Playwright counts


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks; its address, ending in a slash."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(FOLDER, home / "notebooks")
    nb = new_notebook(cells=[new_code_cell(source) for source in SLIDERS], metadata=read(MASTERS[0]).nb.metadata)
    (home / "notebooks" / "sliders.ipynb").write_text(notebook_text(nb), encoding="utf-8")
    for name, values in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    folders = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "RUNTIME")}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--expose-app-in-browser",
        "--ip=127.0.0.1",
        "--port=0",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={home / 'notebooks'}",
        f"--LabApp.user_settings_dir={home / 'settings'}",
        f"--LabApp.workspaces_dir={home / 'workspaces'}",
    ]
    with running(
        command, home / "log", os.environ | harness.ENVIRONMENT | folders | {"OMP_NUM_THREADS": "1"}
    ) as process:
        yield address_of(process, home / "log")


@contextmanager
def running(command, log, environment):
    """A process for as long as the block runs; what it prints goes to a file."""
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def address_of(process, log):
    """Where JupyterLab answers, once it does."""
    for _ in range(240 * PATIENCE):
        assert process.poll() is None, log.read_text()
        if found := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text()):
            try:
                urlopen(found[0] + "api")
                return found[0]
            except OSError:
                pass
        time.sleep(0.25)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()}")


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def reader(browser, lab):
    """A page in which one notebook is open after another, without loading JupyterLab anew for each."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.goto(f"{lab}lab?reset", timeout=2 * MINUTE)
    page.wait_for_function("window.jupyterapp && window.jupyterapp.shell", timeout=MINUTE)
    page.evaluate("window.jupyterapp.restored.then(() => null)")
    yield page
    context.close()


def turn_to(page, path, cells):
    """Closes the notebook that is open, opens another one and waits until all of its cells are drawn."""
    page.evaluate(
        """async path => {
        const open = [...window.jupyterapp.shell.widgets('main')];
        await window.jupyterapp.commands.execute('docmanager:open', {path, factory: 'Notebook'});
        open.forEach(widget => widget.dispose());
    }""",
        path,
    )
    page.wait_for_function(f"document.querySelectorAll('.jp-Notebook .jp-Cell').length == {cells}", timeout=MINUTE)


def run_all(page):
    """Runs all cells and waits until the kernel has ended the last one."""
    page.evaluate("""async () => {
        const panel = window.jupyterapp.shell.currentWidget;
        await panel.context.ready;
        await panel.sessionContext.ready;
        await window.jupyterapp.commands.execute('notebook:run-all-cells');
    }""")


def test_a_slider_that_is_moved_changes_the_picture_and_a_reload_shows_what_was_saved(page, lab):
    def open_sliders():
        page.goto(f"{lab}lab/tree/sliders.ipynb?reset", timeout=2 * MINUTE)
        page.wait_for_function(
            f"document.querySelectorAll('.jp-Notebook .jp-Cell').length == {len(SLIDERS)}", timeout=MINUTE
        )

    open_sliders()
    run_all(page)
    assert not page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count()
    assert not page.locator(".jupyter-widgets-error-widget").count()
    explorers = page.locator(".widget-vbox").all()
    assert len(explorers) == len(EXPLORERS)
    for explorer in explorers:
        sliders = explorer.locator(".widget-hslider").all()
        assert sliders
        for slider in sliders:
            handle, reading = slider.locator(".noUi-handle"), slider.locator(".widget-readout")
            before, value, words = pixels(explorer), reading.inner_text(), explorer.locator("img").get_attribute("alt")
            at_the_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
            there, back = ("ArrowLeft", "ArrowRight") if at_the_end else ("ArrowRight", "ArrowLeft")
            handle.press(there)
            wait_until(lambda: pixels(explorer) != before)
            assert reading.inner_text() != value and explorer.locator("img").get_attribute("alt") != words
            handle.press(back)
            wait_until(lambda: pixels(explorer) == before)
            assert reading.inner_text() == value
    drawn = page.locator(".jp-RenderedImage img").count()
    assert drawn == len(EXPLORERS)
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    open_sliders()
    page.wait_for_function(f"document.querySelectorAll('.jp-RenderedImage img').length == {drawn}", timeout=MINUTE)
    assert page.evaluate(
        "[...document.querySelectorAll('.jp-RenderedImage img')].every(i => i.complete && i.naturalWidth > 50)"
    )


@pytest.mark.parametrize("path", MASTERS, ids=[path.stem for path in MASTERS])
def test_a_chapter_opens_with_its_saved_figures(reader, path):
    master = read(path)
    drawn = [output for _, cell in master.code for output in cell.outputs if "image/png" in output.get("data", {})]
    page = reader
    turn_to(page, path.name, len(master.nb.cells))
    title = master.nb.cells[0].source.splitlines()[0].removeprefix("# ")
    assert page.locator(".jp-Notebook h1").first.inner_text().strip().rstrip("¶") == title
    page.wait_for_function(f"document.querySelectorAll('.jp-OutputArea img').length == {len(drawn)}", timeout=MINUTE)
    assert page.evaluate(
        "[...document.querySelectorAll('.jp-OutputArea img')].every(i => i.complete && i.naturalWidth > 50)"
    )
    assert not page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count()
    assert not page.locator(".merror, mjx-merror").count(), "a formula that MathJax cannot read"


def test_every_explorer_of_a_chapter_is_tried_in_the_browser():
    shown = {
        name
        for path in MASTERS
        for _, cell in read(path).code
        for name in re.findall(r"\b(\w+_explorer|scroll_volume)\(", cell.source)
    }
    assert shown <= EXPLORERS, "show it in SLIDERS, with its film strip"


def pixels(explorer):
    """The picture of an explorer as the browser shows it, scaled down; never of another one."""
    return explorer.locator("img").evaluate(
        "async i => { await i.decode(); const c = document.createElement('canvas'); c.width = c.height = 64;"
        " const x = c.getContext('2d'); x.drawImage(i, 0, 0, 64, 64); return c.toDataURL(); }"
    )


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds * PATIENCE
    while not true():
        assert time.monotonic() < end, "the picture did not change as expected"
        time.sleep(0.1)
