"""Real environments: packages installed by pip, commands run in a process of their own."""

import os
import site
import subprocess
import sys
import venv
from pathlib import Path


class Environment:
    """An empty virtual environment that also sees the packages of this one, mobtk among them.

    What is installed in it is seen first.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.bin = folder / "bin"
        here = next(folder.glob("lib/python*/site-packages"))
        lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
        (here / "outer.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def install(self, *packages: Path) -> None:
        """Install packages from their folders by pip, without what they depend on, which is there."""
        command = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "-q", "--no-deps",
                   "--no-build-isolation", "--disable-pip-version-check", *map(str, packages)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def run(self, *words: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """``python WORDS``, with mobtk's own variables as given only."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MOBTK_")}
        return subprocess.run([str(self.bin / "python"), *words], cwd=cwd, env=clean | {"OMP_NUM_THREADS": "1"} | variables,
                              capture_output=True, text=True, check=False)  # fmt: skip

    def mobtk(self, *words: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """``mobtk WORDS``."""
        return self.run("-m", "mobtk", *words, cwd=cwd, **variables)


def package(folder: Path, name: str, code: str, *, module: str | None = None, needs: str = "mobtk", point: str | None = None,
            more: dict[str, str] | None = None) -> Path:  # fmt: skip
    """A package with one module (and more), whose entry point is its name or another."""
    module = module or name.replace("-", "_")
    home = folder / name
    home.mkdir(parents=True)
    (home / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        f'[project]\nname = "{name}"\nversion = "1.0"\nlicense = "MIT"\ndependencies = ["{needs}"]\n'
        f'[project.entry-points.mobtk]\n{point or name} = "{module}"\n'
        f'[tool.hatch.build.targets.wheel]\ninclude = ["*.py"]\n',
        encoding="utf-8",
    )
    for file, text in {module: code, **(more or {})}.items():
        (home / f"{file}.py").write_text(text, encoding="utf-8")
    return home
