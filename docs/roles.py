"""Docstrings name other objects by roles such as ``:class:`.Block```; the site links them."""

import importlib.util
import re
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parent.parent
_ROLE = re.compile(r":(?:class|func|meth|attr|data|mod|exc):`[~.]?([\w.]+)`")


def documented() -> dict[str, str]:
    """The last part of a name -> the path under which the reference has it."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    pages = (ROOT / "docs" / "api").glob("*.md")
    names = [name for page in sorted(pages) for name in hooks.DOCUMENTED.findall(page.read_text())]
    return {name.rpartition(".")[2]: hooks.documented_path(name) for name in reversed(names)}


class Roles(griffe.Extension):
    """Turns roles into links to the reference, or into code if it does not have the object."""

    def __init__(self):
        self._names = documented()

    def on_object(self, *, obj, **kwargs):
        """Changes the docstring of every object that is read."""
        del kwargs
        if obj.docstring is None:
            return
        text = _ROLE.sub(self._link, obj.docstring.value)
        # A literal block of reStructuredText is one of Markdown without its colons.
        obj.docstring.value = re.sub(
            r"::$", ":", re.sub(r"^::\n\n", "", text, flags=re.M), flags=re.M
        )

    def _link(self, match):
        name = match[1].rpartition(".")[2]
        whole = self._names.get(name)
        return f"[`{name}`][{whole}]" if whole else f"`{match[1].lstrip('.')}`"
