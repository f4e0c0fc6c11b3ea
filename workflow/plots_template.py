"""Make the pages of `dvc plots show` work without network: `python -m workflow.plots_template`, once per clone.

DVC's pages load Vega from a CDN. Snakemake's package contains Vega for its reports, so a template with these scripts
goes into .dvc/plots.html, and DVC's local configuration names it. Git ignores both files.
"""

import sys
from pathlib import Path

from dvc.repo import Repo
from snakemake.assets import Assets

SCRIPTS = ("vega/vega.js", "vega-lite/vega-lite.js", "vega-embed/vega-embed.js")
TEMPLATE = "plots.html"
"""Relative to .dvc, as in DVC's configuration."""

PAGE = """<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
{refresh_tag}
<title>DVC Plots</title>
SCRIPTS
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    """Write the template and set `plots.html_template` in .dvc/config.local."""
    scripts = (Assets.get_content(name).replace("</script", "<\\/script") for name in SCRIPTS)
    page = PAGE.replace("SCRIPTS", "\n".join(f"<script>{script}</script>" for script in scripts))
    with Repo() as repo:
        path = Path(repo.dvc_dir) / TEMPLATE
        path.write_text(page, encoding="utf-8")
        with repo.config.edit("local") as config:
            config.setdefault("plots", {})["html_template"] = TEMPLATE
    sys.stdout.write(f"{path.relative_to(repo.root_dir)}\n")


if __name__ == "__main__":
    main()
