"""Runs the code of a notebook and saves its outputs in it.

python docs/execute.py docs/tutorial.ipynb

Every cell runs in one namespace. What it prints becomes its text, and the figures that Matplotlib
holds when it ends become its pictures.
"""

import argparse
import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """Runs the cells from top to bottom, saves their outputs in `notebook`, and gives the names.

    Raises:
        Exception: the first that a cell raises.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    names: dict[str, Any] = {"__name__": "__main__"}
    number = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        number += 1
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        outputs: list[dict[str, Any]] = []
        if told.getvalue():
            text = told.getvalue().splitlines(keepends=True)
            outputs.append({"output_type": "stream", "name": "stdout", "text": text})
        for figure in map(plt.figure, plt.get_fignums()):
            drawn = io.BytesIO()
            figure.savefig(drawn, dpi=110, bbox_inches="tight")
            picture = base64.b64encode(drawn.getvalue()).decode()
            outputs.append(
                {"output_type": "display_data", "data": {"image/png": picture}, "metadata": {}}
            )
        plt.close("all")
        cell["outputs"], cell["execution_count"] = outputs, number
    return names


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    path = parser.parse_args().notebook
    notebook = json.loads(path.read_text())
    execute(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
