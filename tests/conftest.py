"""Shared fixtures: where the real files lie, and a data set small enough to train on in a second."""

import os
import random
import shutil
import sys
import time
import zlib
from pathlib import Path

import pytest

# Small tensors gain nothing from a second thread, and threads that wait for each other on a busy machine
# lose much. Set before torch is imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The tests start many Python processes. Where bytecode is switched off, each compiles what it imports (torch takes
# 3.6 s of a core in place of 1.9): here it is kept after all, but away from the sources. Workers inherit both settings.
if "VIVIT_EDU_NO_BYTECODE" not in os.environ and os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    bytecode = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(bytecode)
    sys.dont_write_bytecode = False

# jsonschema, behind nbformat, does without this one, which takes 1.3 s of each process to compile 38 grammars.
sys.modules.setdefault("rfc3987_syntax", None)


def seed(name: str) -> None:
    """Seeds what tests draw from without a generator of their own: by what is tested, whatever ran before it.

    With another VIVIT_EDU_TEST_SEED everything is drawn anew, by the checks of exercises too.
    """
    import numpy as np
    import torch

    number = zlib.crc32(f"{os.environ.get('VIVIT_EDU_TEST_SEED', 0)} {name}".encode())
    random.seed(number)
    np.random.seed(number)
    torch.default_generator.manual_seed(number)  # in a microsecond; torch.manual_seed asks for every device there is
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


def pytest_sessionstart(session):
    if other := os.environ.get("VIVIT_EDU_TEST_SEED"):
        from vivit_edu.course.checks import calling

        calling.DRAW = int(other)


@pytest.hookimpl(tryfirst=True)
def pytest_collectstart(collector):
    if isinstance(collector, pytest.Module):  # for what a file draws while it is imported
        seed(collector.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    seed(fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    seed(item.nodeid)


# What takes longest is started first, so that no process is left with a long one at the end. The first two go to two
# processes: chapter 12 waits for the phantom to be generated, a classroom does not need it.
LONG = ("runs_again_to_the_same_outputs[12_", "/test_classroom.py", "runs_again", "/test_other_data.py")
LONG += ("/test_browser.py", "/test_site.py", "/test_distributed.py", "/test_project.py", "/test_unsolved.py")
LONG += ("/test_cli.py", "/test_phantom.py", "/test_bad_files.py", "/test_video", "/test_pretrain", "/test_colab.py")
LONG += ("/test_training",)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: next((n for n, word in enumerate(LONG) if word in item.nodeid), len(LONG)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Deals out whole files, so that what a file's tests share is made once, but each chapter that is run again on its
    own. (xdist's own groups have no effect in pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "runs_again" in nodeid else nodeid.split("::")[0]

    config.option.loadscopereorder = False  # files keep the order above; xdist would put those with most tests first
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def clip_cache(tmp_path_factory):
    """Decoded clips of the tests' videos are not left in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIVIT_EDU_CACHE", str(tmp_path_factory.mktemp("clips")))
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real MedMNIST3D files, from $VIVIT_EDU_TEST_DATA; tests that need it skip without."""
    folder = os.environ.get("VIVIT_EDU_TEST_DATA")
    if not folder:
        pytest.skip("needs real MedMNIST3D files: set VIVIT_EDU_TEST_DATA to the folder that holds them")
    return Path(folder).expanduser().resolve()


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """The file of the phantom where the chapters look for it: generating it is no part of their time.

    One of the tests' processes generates it, and the others wait: for two minutes at most, in case that one died.
    """
    from vivit_edu.data import data_root
    from vivit_edu.datasets.phantom import load_phantom

    path = data_root() / "organphantom3d.npz"
    if "PYTEST_XDIST_WORKER" not in os.environ:  # the only process
        load_phantom(28, path)
        return path
    lock = tmp_path_factory.getbasetemp().parent / "phantom.lock"  # of this run, and of all its processes
    for _ in range(240):
        try:
            lock.touch(exist_ok=False)
            break
        except FileExistsError:
            time.sleep(0.5)
    load_phantom(28, path)
    lock.unlink(missing_ok=True)
    return path


@pytest.fixture(scope="session")
def tiny_volumes():
    """Clips of 8³ voxels in three classes: a bright slab early, in the middle or late along the first axis."""
    from tests.tiny import make_tiny_volumes

    return make_tiny_volumes()


# Nothing but the page itself: no look-ups of updates, no first-run dialogues.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium; skips without one, unless $VIVIT_EDU_BROWSER names it."""
    from playwright.sync_api import sync_playwright

    named = os.environ.get("VIVIT_EDU_BROWSER")
    found = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium: install it, or name a browser in VIVIT_EDU_BROWSER")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()
