"""The command line, also as `python -m mdpipe`.

A stage runs the code beside the dvc.yaml that it belongs to. `dvc exp run --queue` and `--temp` run stages in a copy of
the repository, while an editable install leads back to the working copy, and so may PYTHONPATH. The check comes before
any other module of the package is loaded.
"""

import os
import sys
from pathlib import Path

SOURCE = Path("src")


def main() -> None:
    """Run the command line, in a stage of DVC with the code of the repository that the stage runs in."""
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
