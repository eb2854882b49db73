"""A mutation run: small faults are written into the heart of the package, one at a time, and the tests must notice.

    uv run --with cosmic-ray python tests/mutation.py --sample 320 --seed 0

prints each fault that no test noticed, and a table. The faults are cosmic-ray's (https://cosmic-ray.readthedocs.io).
cosmic-ray itself starts a new process for each, which imports torch for seconds; here one process imports it and forks,
so this needs a POSIX system. It takes about 25 minutes of a processor core and is no part of `uv run pytest`.
"""

import argparse
import contextlib
import difflib
import importlib
import os
import random
import re
import resource
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = {  # the module, and the tests of what is in it, those first that find most faults in little time
    "attention": ("test_attention", "test_parity"),
    "embedding": ("test_embedding", "test_models", "test_parity"),
    "vivit": ("test_models", "test_parity", "test_numerics"),
    "pretrained": ("test_pretrained", "experiments/test_pretrain"),
    "augment/__init__": ("test_augment", "test_bad_input"),
}
# An arithmetic operator on tensors turned into one of bits only raises a TypeError, which any test would notice.
TRIVIAL = ("BitOr", "BitAnd", "BitXor", "RShift", "LShift")
# What needs more hangs, which counts as noticed. Processor time, not the clock's: on a busy machine a fault that
# no test notices would pass for noticed.
SECONDS, MEMORY = 120, 12 * 2**30


def faults(module):
    """[(operator, number)] of all faults that cosmic-ray can write into a module."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    nodes, found = list(ast_nodes(get_ast(source_of(module)))), []
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments() or name.endswith(TRIVIAL):  # some need to be told names of variables
            continue
        positions = sum(len(list(operator().mutation_positions(node))) for node in nodes)
        found += [(name.removeprefix("core/"), number) for number in range(positions)]
    return found


def with_fault(module, operator, number):
    """A module's source with one fault in it."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    return mutate_code(source_of(module), get_operator(f"core/{operator}")(), number)


def source_of(module):
    return path_of(ROOT, module).read_text(encoding="utf-8")


def path_of(root, module):
    return root / "vivit_edu" / f"{module}.py"


def noticed(copy, module):
    """Whether the module's tests fail on what lies in `copy`, in a process of their own.

    Where they pass it leaves the names of all that they imported in the file "imported".
    """
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        import pytest

        files = [f"tests/{name}.py" for name in TESTS[module]]
        failed = pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", *files]) != 0
        (copy / "imported").write_text(" ".join(sys.modules))
        os._exit(int(failed))
    return os.waitpid(child, 0)[1] != 0


def import_for_all(names):
    """Imports what the tests need here, once, that no fork need do so: all but the package and its tests."""
    for name in names:
        if name.split(".")[0] not in ("vivit_edu", "tests", "conftest", "__main__"):
            with contextlib.suppress(Exception):  # some names in sys.modules are no modules on disk
                importlib.import_module(name)


def changed_lines(before, after):
    """The lines that differ, as "17: - old + new"."""
    lines = [line for line in difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")][2:]
    number = lines[0].split()[1].lstrip("-").split(",")[0]
    return f"{number}: " + "  ".join(" ".join(line.split()) for line in lines[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sample", type=int, default=320, help="how many faults, shared among the modules by their number"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--again", metavar="FILE", help="try only the faults that are in FILE, the output of an earlier run"
    )
    parser.add_argument("--modules", nargs="+", choices=TESTS, default=list(TESTS), metavar="MODULE")
    options = parser.parse_args()
    import torch  # noqa: E401, F401 once, for all forks
    from tqdm import tqdm

    torch.set_num_threads(1)
    made = {module: faults(module) for module in options.modules}
    everything = [(module, *fault) for module, found in made.items() for fault in found]
    drawn = random.Random(options.seed).sample(everything, min(options.sample, len(everything)))
    if options.again:
        lines = re.findall(
            r"^([\w/]+)\.py:.*\((\S+) (\d+)\)$", Path(options.again).read_text(encoding="utf-8"), re.MULTILINE
        )
        drawn = [fault for fault in everything if (fault[0], fault[1], str(fault[2])) in lines]
        options.modules = [module for module in options.modules if module in {fault[0] for fault in drawn}]
    tried, killed = Counter(), Counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        copy = Path(folder)
        for part in ("vivit_edu", "tests", "data", "notebooks"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        # the copy, and not the checkout, is what the forks import; the caches of bytecode must not outlive a fault
        sys.path[:] = [str(copy), *(p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "tests"))]
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = os.environ["VIVIT_EDU_NO_BYTECODE"] = "1"  # in tests/conftest.py, too
        for module in options.modules:
            if noticed(copy, module):
                raise SystemExit(f"the tests of {module} fail without a fault: mend that first")
            import_for_all((copy / "imported").read_text().split())
        for module, operator, number in tqdm(drawn, desc="faults", unit="fault"):
            source, mutated, tried[module] = source_of(module), with_fault(module, operator, number), tried[module] + 1
            path_of(copy, module).write_text(mutated, encoding="utf-8")
            if noticed(copy, module):
                killed[module] += 1
            else:
                tqdm.write(f"{module}.py:{changed_lines(source, mutated)}  ({operator} {number})", file=sys.stdout)
                sys.stdout.flush()
            path_of(copy, module).write_text(source, encoding="utf-8")
    print("\n| module | faults | tried | noticed | share |\n|---|---|---|---|---|")
    for module in options.modules:
        share = 100 * killed[module] / max(tried[module], 1)
        print(f"| `{module}` | {len(made[module])} | {tried[module]} | {killed[module]} | {share:.0f} % |")
    share = 100 * killed.total() / tried.total()
    print(f"| all | {len(everything)} | {tried.total()} | {killed.total()} | {share:.1f} % |")


if __name__ == "__main__":
    main()
