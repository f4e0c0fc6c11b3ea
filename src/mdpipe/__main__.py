"""The command line, also as `python -m mdpipe`.

A stage runs the code next to its dvc.yaml. `dvc exp run --queue` and `--temp` run stages in a copy of the repository,
but an editable install, and perhaps PYTHONPATH, would import the package from the working copy. This is checked before
any other module of the package is imported.

OpenMP's settings are read when torch is imported, so they are made here, too.
"""

import os
import sys
from pathlib import Path

SOURCE = Path("src")


def main() -> None:
    """Run the command line, in a stage of DVC with the code of the repository that the stage runs in."""
    # Threads that wait sleep. By default they spin, and where other processes use the cores, too, a thread that still
    # computes waits for one that only spins, and training with two threads takes several times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code, loaded = SOURCE / "mdpipe", Path(__file__).parent
    if "DVC_STAGE" in os.environ and code.is_dir() and not code.samefile(loaded):
        first, path = str(SOURCE.resolve()), os.environ.get("PYTHONPATH", "")
        if path.startswith(first):
            sys.exit(f"mdpipe: {loaded} hides {code.resolve()}, the code of this repository; rename or remove it")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [first, path]))}
        os.execve(sys.executable, [sys.executable, "-m", "mdpipe", *sys.argv[1:]], environment)

    from mdpipe.cli import app

    app()


if __name__ == "__main__":
    main()
