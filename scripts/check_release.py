"""Build the source archive and the wheel, and use the wheel with each extra in a fresh environment.

    python scripts/check_release.py [EXTRA ...]

Without names, all extras are checked, and the wheel without one. Each environment is made by pip
with the pinned versions of a stack, checked by ``scripts/use_extra.py`` and removed. It takes a few
minutes for each extra, and 7 GB for those of the classic stack.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
WITHOUT_EXTRA = "none"
CLASSIC = {"bettertransformer", "ipex"}
"""Extras that need the torch of the classic stack."""

ALSO = {"report": ["transformers"]}
"""Extras without which one has nothing to do: ``report`` writes pages about models by name."""

BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


def run(*command: object, cwd: Path) -> None:
    """Run a command, and print what it says only if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        shown = " ".join(str(part) for part in command)
        raise RuntimeError(f"exit code {done.returncode} of {shown}\n{done.stdout[-6000:]}")


def make_environment(folder: Path) -> Path:
    """Make an empty virtual environment, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


def build(folder: Path) -> tuple[Path, Path]:
    """Build the source archive from the tree, and the wheel from the archive.

    Returns:
        The wheel, and the unpacked archive.
    """
    source = folder / "source"  # a copy: building writes into it
    skipped = shutil.ignore_patterns(
        ".*cache", ".git", ".venv", "__pycache__", "*.egg-info", "site", "build"
    )
    shutil.copytree(ROOT, source, ignore=skipped)
    python = make_environment(folder / "build")
    run(python, "-m", "pip", "install", "setuptools>=68", "wheel", cwd=folder)
    run(python, "-c", BUILD, folder, cwd=source)
    (archive,) = folder.glob("*.tar.gz")
    run(python, "-m", "pip", "wheel", "--no-deps", "-w", folder, archive, cwd=folder)
    shutil.unpack_archive(archive, folder, filter="data")
    shutil.rmtree(source)
    (wheel,) = folder.glob("*.whl")
    return wheel, folder / archive.name.removesuffix(".tar.gz")


def check(extra: str, wheel: Path, archive: Path, folder: Path) -> None:
    """Install the wheel with one extra, and use both."""
    stack = "classic" if extra in CLASSIC else "modern"
    constraints = archive / "requirements" / f"{stack}.txt"
    environment = folder / extra
    empty = folder / "empty"  # neither the tree nor the archive is on the path
    empty.mkdir(exist_ok=True)
    extras = [] if extra == WITHOUT_EXTRA else [extra, *ALSO.get(extra, [])]
    target = f"cpuaccel[{','.join(extras)}] @ {wheel.as_uri()}"
    try:
        python = make_environment(environment)
        # Most modules are never imported, so none is compiled ahead.
        install = (python, "-m", "pip", "install", "--no-compile", "-c", constraints)
        run(*install, "torch", cwd=empty)  # first, so that no dependency selects another build
        run(*install, target, cwd=empty)
        run(python, "-m", "pip", "check", cwd=empty)
        run(environment / "bin" / "cpuaccel", "doctor", cwd=empty)
        run(python, "-I", archive / "scripts" / "use_extra.py", extra, cwd=empty)
    finally:
        shutil.rmtree(environment, ignore_errors=True)


def main() -> int:
    """Check extras, and return the exit code."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    known = [WITHOUT_EXTRA, *parser["options.extras_require"]]
    arguments = argparse.ArgumentParser(description="Use the wheel with each extra.")
    arguments.add_argument("extras", nargs="*", metavar="EXTRA", help=f"of {', '.join(known)}")
    chosen: list[str] = arguments.parse_args().extras or known
    if unknown := [extra for extra in chosen if extra not in known]:
        arguments.error(f"unknown extra {unknown[0]!r}. Available: {', '.join(known)}")
    failed = []
    with tempfile.TemporaryDirectory(prefix="cpuaccel-release") as name:
        folder = Path(name)
        wheel, archive = build(folder)
        print(f"built {archive.name}.tar.gz and {wheel.name}", flush=True)
        for extra in chosen:
            begun = time.monotonic()
            try:
                check(extra, wheel, archive, folder)
                result = "works"
            except RuntimeError as error:
                failed.append(extra)
                result = f"FAILED: {error}"
            print(f"{extra}: {result} ({time.monotonic() - begun:.0f} s)", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
