"""How much memory a process may use: of the machine, of its control groups, of its shell."""

import pytest

from vivit_edu.support import memory
from vivit_edu.support.devices import machine_memory
from vivit_edu.support.memory import usable_memory

V1, V2 = "4:cpu,cpuacct:/jobs/7\n3:memory:/jobs/7\n", "0::/jobs/7\n"


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Lays out control groups: groups(what /proc/self/cgroup says, {path: content})."""

    def lay(said, files):
        (tmp_path / "cgroup").write_text(said)
        for name, text in files.items():
            (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "groups" / name).write_text(text)

    monkeypatch.setattr(memory, "GROUPS_OF_PROCESS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "machine_memory", lambda: 9000)
    monkeypatch.setattr(memory, "address_limit", lambda: None)
    return lay


@pytest.mark.parametrize("said, files, most", [
    (V2, {"jobs/7/memory.max": "5000\n", "jobs/memory.max": "max\n"}, 5000),
    (V2, {"jobs/7/memory.max": "max\n", "jobs/memory.max": "4000\n"}, 4000),  # of the group above
    (V2, {"memory.max": "3000\n"}, 3000),  # in a container the path is the host's
    (V2, {"jobs/7/memory.max": "max\n"}, 9000),
    (V1, {"memory/jobs/7/memory.limit_in_bytes": "6000\n"}, 6000),
    (V1, {"memory/jobs/memory.limit_in_bytes": "2000\n", "memory/jobs/7/memory.limit_in_bytes": "6000\n"}, 2000),
    (V1, {"memory/jobs/7/memory.limit_in_bytes": "9223372036854771712\n"}, 9000),  # how version 1 says "none"
    (V1, {"cpu,cpuacct/jobs/7/memory.limit_in_bytes": "1\n", "jobs/7/memory.max": "1"}, 9000),  # of other controllers
    ("nonsense", {"memory.max": "1"}, 9000),
])  # fmt: skip
def test_a_control_group_may_allow_less_than_the_machine_has(groups, said, files, most):
    groups(said, files)
    assert usable_memory() == most


def test_a_limit_of_the_shell_counts_and_a_system_that_says_nothing_is_unknown(groups, monkeypatch):
    groups(V2, {"jobs/7/memory.max": "5000\n"})
    monkeypatch.setattr(memory, "address_limit", lambda: 70)
    assert usable_memory() == 70
    (memory.GROUPS_OF_PROCESS).unlink()
    for name in ("address_limit", "machine_memory"):
        monkeypatch.setattr(memory, name, lambda: None)
    assert usable_memory() is None


def test_here_it_is_no_more_than_the_machine_has():
    assert 0 < usable_memory() <= machine_memory()


def test_ulimit_is_read():
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (2**45, hard))
        assert memory.address_limit() == 2**45
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, hard))
        assert memory.address_limit() is None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
