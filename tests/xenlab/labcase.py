"""A class of tests with a pool of the lab's machines."""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent / "integration"), str(HERE.parents[1] / "tools")]
from harness import PoolCase  # noqa: E402
from lab import LabPool  # noqa: E402


def make_lab(case):
    """The pool for a class of tests; not formed yet."""
    return LabPool.attach(n=case.members, options=case.options)


class LabCase(PoolCase):
    members = 2

    @classmethod
    def make_pool(cls):
        return make_lab(cls)
