"""The library's names: what `import zo` offers stays what it is, whatever else is imported."""

import subprocess
import sys

import zo


def test_no_name_is_also_a_submodule():
    """Importing a submodule sets its name in the package, over whatever was offered there."""
    import pkgutil

    assert {module.name for module in pkgutil.iter_modules(zo.__path__)} & set(zo.__all__) == set()


def test_all_names_are_there():
    assert [name for name in zo.__all__ if getattr(zo, name).__name__ != name] == []


def test_import_costs_no_torch():
    code = "import sys, zo, zo.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_library_runs_with_torch_alone():
    """Nothing else that is installed here is imported by all of the library."""
    others = "numpy hydra omegaconf transformers peft datasets pydantic rich safetensors wandb".split()
    code = (
        f"import sys\nfor name in {others!r}: sys.modules[name] = None\n"
        "import pkgutil, zo, torch\nfrom torch import nn\n"
        "for name in zo.__all__: getattr(zo, name)\n"
        "model = nn.Linear(3, 1)\noptimizer = zo.FZOO(model, lr=0.1)\n"
        "look = zo.ModuleLook(model, lambda m, x: (m(x)[:, 0] - 1) ** 2, optimizer)\n"
        "assert zo.train(optimizer, look, [torch.ones(4, 3)], 3) == 3\nprint(optimizer.weights.sha256())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()[-1]) == 64


def test_an_integration_names_the_packages_that_it_lacks():
    code = (
        "import sys\nsys.modules['transformers'] = None\nfrom zo.errors import ZOError\n"
        "try:\n    import zo.integrations.transformers\n"
        "except ImportError as error:\n    print(isinstance(error, ZOError), error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True)
    assert done.stdout.startswith(
        "True zo.integrations.transformers needs the packages transformers and accelerate"
    )
    assert "pip install 'transformers>=5.2,<6' 'accelerate>=1.1'" in done.stdout
