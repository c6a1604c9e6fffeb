"""What the site takes from elsewhere in this repository: KaTeX, which `vantage play` ships too."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

KATEX = Path(__file__).parents[1] / "src/vantage/play/katex"


def on_files(files: Files, config: Any) -> Files:
    """Add KaTeX to the site, so that formulas are typeset without a network."""
    for path in sorted(KATEX.rglob("*")):
        if path.is_file():
            name = f"katex/{path.relative_to(KATEX).as_posix()}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
