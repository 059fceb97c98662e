"""The architecture of the three packages: layers point one way, heavy packages load late, nothing forbidden stands in a module."""

import textwrap

import house
import pytest

RULES = {rule.__name__: rule for rule in (house.layers, house.foreign, house.heavy, house.statements, house.docstrings)}


@pytest.mark.parametrize("name", RULES)
def test_the_house_rules_hold(name):
    breaches = RULES[name]()
    if breaches:
        pytest.fail("\n".join(breaches), pytrace=False)


def test_every_package_is_read():
    read = {module.package for module in house.modules()}
    assert read == set(house.PACKAGES)
    assert not (house.ROOT / "datasets/__init__.py").exists()  # from the root it would shadow the package `datasets`
    assert not (house.ROOT / "envs/__init__.py").exists()


WRONG = {  # one wrong line each: (rule, file, text, word of the breach)
    "to the right": ("layers", "dynsys/models/net.py", "from dynsys.train import fit", "lies to the right"),
    "to the right in a function": ("layers", "dynsys/metrics/score.py", "def f():\n    import dynsys.report.page", "lies to the right"),
    "to the right, relative": ("layers", "dynsys/models/net.py", "from ..train import fit", "lies to the right"),
    "to the right, from the package": ("layers", "dynsys/models/net.py", "from dynsys import cli", "lies to the right"),
    "interop too far": ("layers", "dynsys/interop/torch.py", "from dynsys.analysis import lyapunov", "lies to the right"),
    "train sees metrics": ("layers", "dynsys/train/loop.py", "from dynsys.metrics.power import d_h", "as callables"),
    "no layer": ("layers", "dynsys/helpers.py", "", "stands in no layer"),
    "envs from dynsys": ("foreign", "dynsys/cli.py", "def f():\n    import dynsys_envs.gym", "must not import"),
    "jax in datasets": ("foreign", "datasets/dynsys_datasets/read.py", "def f():\n    import jax.numpy as jnp", "must not import"),
    "dynsys in datasets": ("foreign", "datasets/dynsys_datasets/read.py", "from dynsys.errors import DataError", "must not import"),
    "torch at the top": ("heavy", "dynsys/interop/torch.py", "import torch.nn as nn", "module level"),
    "scipy.io by from": ("heavy", "datasets/dynsys_datasets/mat.py", "from scipy import io", "module level"),
    "h5py in a class body": ("heavy", "dynsys/train/store.py", "class A:\n    import h5py", "module level"),
    "h5py in try": ("heavy", "dynsys/train/store.py", "try:\n    import h5py\nexcept ImportError:\n    h5py = None", "module level"),
    "print": ("statements", "dynsys/train/loop.py", "def f():\n    print(1)", "print outside cli"),
    "assert": ("statements", "dynsys/train/loop.py", "def f(x):\n    assert x", "assert"),
    "eval": ("statements", "datasets/dynsys_datasets/read.py", "x = eval('1')", "eval"),
    "exec": ("statements", "datasets/dynsys_datasets/read.py", "exec('1')", "exec"),
    "pickle": ("statements", "dynsys/train/store.py", "from pickle import load", "pickles"),
    "allow_pickle": ("statements", "dynsys/train/store.py", "def f(g, p):\n    return g(p, allow_pickle=True)", "allow_pickle"),
    "stub": ("statements", "dynsys/train/store.py", "def f():\n    raise NotImplementedError", "NotImplementedError"),
    "long": ("statements", "dynsys/train/store.py", "\n" * 501, "502 lines"),
    "no module docstring": ("docstrings", "dynsys/train/__init__.py", None, "no docstring"),
    "no method docstring": (
        "docstrings",
        "dynsys/train/a.py",
        'class A:\n    """A."""\n    def f(self):\n        pass',
        "A.f has no docstring",
    ),
}

RIGHT = {  # what looks alike but is allowed
    "to the left": ("layers", "dynsys/train/loop.py", "from dynsys.models.alrnn import ALRNN\nfrom . import other"),
    "ground floor": ("layers", "dynsys/registry.py", "from dynsys.errors import UnknownName\nfrom dynsys.status import Status"),
    "late torch": ("heavy", "dynsys/interop/torch.py", "def f():\n    import torch"),
    "torch for types": ("heavy", "dynsys/interop/torch.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    "scipy is not heavy": ("heavy", "dynsys/analysis/a.py", "import scipy.linalg"),
    "print in cli": ("statements", "dynsys/cli.py", "print(1)"),
    "private": ("docstrings", "dynsys/train/a.py", "def _f():\n    pass"),
}


def plant(folder, file, text):
    """A tree with the one given file, with a docstring in front unless text is None."""
    path = folder / file
    path.parent.mkdir(parents=True)
    path.write_text("" if text is None else '"""Says what it is."""\n' + textwrap.dedent(text))
    return folder


@pytest.mark.parametrize("case", WRONG)
def test_the_rules_refuse_a_wrong_tree(case, tmp_path):
    rule, file, text, word = WRONG[case]
    breaches = RULES[rule](plant(tmp_path, file, text))
    assert len(breaches) == 1
    assert word in breaches[0]
    assert file in breaches[0]


@pytest.mark.parametrize("case", RIGHT)
def test_the_rules_let_a_right_tree_pass(case, tmp_path):
    rule, file, text = RIGHT[case]
    assert RULES[rule](plant(tmp_path, file, text)) == []
