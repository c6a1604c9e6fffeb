"""What other trainers' losses climb, examined exactly: writes benchmarks/results/losses.json.

    python benchmarks/losses.py --peer TRL_ENVIRONMENT/bin/python

The losses of TRL are run from TRL's own installed code, by its interpreter (TRL 1.16, and this
package's dependencies); it is named by --peer or by the variable VANTAGE_TRL_PYTHON. Those of verl
and of the RLHF Book are recipes of `peer_losses.py`. `python docs/losses_page.py` makes the page.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peer_losses import RECIPES, SOURCES, loss_of

import vantage as vt

HERE = Path(__file__).parent
OUT = HERE / "results" / "losses.json"
SIZES = (2, 3, 4)
OF_PROBLEMS = ("reinforce_snr", "rloo_snr", "finite")  # the same for every loss, or in its verdict
COMMAND = "python benchmarks/losses.py --peer PYTHON"


def main() -> None:
    """Examine all of them, and the table's own rows beside them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", default=os.environ.get("VANTAGE_TRL_PYTHON"))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.peer is None:
        sys.exit("Name TRL's interpreter: --peer PYTHON, or VANTAGE_TRL_PYTHON=PYTHON.")
    torch.set_num_threads(1)
    began = time.perf_counter()
    trl = of_trl(given.peer)
    found = {
        "command": COMMAND,
        "num_generations": SIZES,
        "versions": trl["versions"] | {"vantage": vt.__version__},
        "sources": SOURCES,
        "losses": [{"framework": "TRL", **loss} for loss in trl["losses"]] + transcribed() + rows(),
    }
    found["seconds"] = round(time.perf_counter() - began, 1)
    losses = ",\n".join(json.dumps(short(loss), ensure_ascii=False) for loss in found.pop("losses"))
    head = json.dumps(found, indent=1, ensure_ascii=False).removesuffix("\n}")
    given.out.write_text(f'{head},\n "losses": [\n{losses}\n]\n}}\n', encoding="utf-8")


def short(value: Any) -> Any:
    """Six digits of every number: what is beyond them is rounding, and differs by machine."""
    if isinstance(value, float):
        rounded = float(f"{value:.6g}") if abs(value) > 1e-9 else 0.0
        return rounded if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: short(each) for key, each in value.items() if key not in OF_PROBLEMS}
    return [short(each) for each in value] if isinstance(value, list | tuple) else value


def of_trl(python: str) -> dict[str, Any]:
    """What TRL's interpreter finds of TRL's losses."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "trl.json"
        # models and data are of this machine: nothing is looked up elsewhere
        environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src"), "HF_HUB_OFFLINE": "1"}
        worker = [python, str(HERE / "peers" / "losses_trl.py"), str(out)]
        subprocess.run(worker, check=True, env=environment)
        return json.loads(out.read_text(encoding="utf-8"))


def transcribed() -> list[dict[str, Any]]:
    """The recipes."""
    return [
        {
            "framework": recipe.framework,
            "settings": recipe.settings,
            **vt.verify(loss_of(recipe), num_generations=SIZES, name=recipe.name).to_dict(),
        }
        for recipe in RECIPES
    ]


def rows() -> list[dict[str, Any]]:
    """The rows of this package's own table."""
    return [
        {
            "framework": "Vantage",
            "settings": "",
            **vt.verify(vt.estimators.named(name), num_generations=SIZES).to_dict(),
        }
        for name in vt.estimators.TABLE
    ]


if __name__ == "__main__":
    main()
