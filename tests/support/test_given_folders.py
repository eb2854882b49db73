"""Folders that a variable names: `~` is the home folder, and a user who does not exist is a message."""

import pytest

from vivit_edu.course import pretraining
from vivit_edu.course.recorded import own_run
from vivit_edu.datasets.clip_cache import cache_folder
from vivit_edu.errors import ConfigError

PLACES = {
    "VIVIT_EDU_CACHE": cache_folder,
    "VIVIT_EDU_RUNS": lambda: own_run("organphantom3d"),
    "VIVIT_EDU_DATA": pretraining.published_vivit,
}


@pytest.mark.parametrize("variable", PLACES)
def test_a_user_who_does_not_exist_is_named(variable, monkeypatch):
    monkeypatch.setenv(variable, "~nosuch-user/here")
    with pytest.raises(ConfigError, match=rf"{variable}='~nosuch-user/here': there is no user of that name"):
        PLACES[variable]()


@pytest.mark.parametrize("variable", ["VIVIT_EDU_CACHE", "VIVIT_EDU_RUNS"])
def test_the_home_folder_is_the_users(variable, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv(variable, "~/here")
    assert tmp_path / "here" in (PLACES[variable](), *PLACES[variable]().parents)
