"""Puts files of the repository into the site, so that nothing is written twice.

A line ``{{ include PATH }}`` in a page stands for the text of a file of the repository, without its
title; ``{{ include PATH#ANCHOR }}`` for one section of it. Links are turned to where their target
is on the site, and pictures come along; what is not on the site is named without a link. Notebooks
become pages with the outputs that are saved in them. A report in ``docs/report`` gets an entry in
the navigation, and the records that it links come along.
"""

import base64
import json
import os
import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORT = "report/index.html"
INCLUDE = re.compile(r"^\{\{ include ([\w./-]+)(?:#([\w-]+))? \}\}$", re.M)
DOCUMENTED = re.compile(r"^::: ([\w.]+)$", re.M)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.M | re.S)
_PICTURES = {".png", ".svg", ".jpg", ".gif"}

_pages: dict[tuple[str, str | None], str] = {}
"""(file of the repository, section or None) -> the page that shows it."""


def on_config(config):
    """Lists the report if it has been made."""
    if (ROOT / "docs" / REPORT).exists():
        config.nav.insert(-1, {"Report": REPORT})
    return config


def on_files(files, config):
    """Adds the pages of notebooks, and the pictures that pages show from elsewhere."""
    from mkdocs.structure.files import File

    _pages.clear()
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            for name, content in notebook_page(ROOT / "docs" / file.src_uri).items():
                uri = posixpath.join(posixpath.dirname(file.src_uri), name)
                files.append(File.generated(config, uri, content=content))
    pages = [file for file in files if file.is_documentation_page()]
    for file in pages:
        for path, anchor in INCLUDE.findall(file.content_string):
            _pages[path, anchor or None] = file.src_uri
    for file in pages:
        texts = {f"docs/{file.src_uri}": file.content_string}
        for path, _ in INCLUDE.findall(file.content_string):
            texts[path] = (ROOT / path).read_text()
        for source, text in texts.items():
            for _, _, target in _LINK.findall(text):
                picture = _resolved(source, target)[0]
                uri = f"files/{picture}"
                if _is_picture(picture) and files.get_file_from_path(uri) is None:
                    files.append(File.generated(config, uri, abs_src_path=str(ROOT / picture)))
    report = files.get_file_from_path(REPORT)
    if report is not None:
        text, linked = moved_report(report.content_string)
        files.remove(report)
        files.append(File.generated(config, REPORT, content=text))
        for path in linked:
            uri = f"files/{path}"
            if files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fills in the includes and turns the links."""
    here = page.file.src_uri
    markdown = _turned(markdown, f"docs/{here}", here)
    markdown = DOCUMENTED.sub(lambda match: f"::: {documented_path(match[1])}", markdown)

    def included(match):
        path, anchor = match.groups()
        text = (ROOT / path).read_text()
        text = section(text, anchor) if anchor else re.sub(r"\A# .*\n", "", text)
        return _turned(text, path, here)

    return INCLUDE.sub(included, markdown)


def moved_report(text: str) -> tuple[str, list[str]]:
    """The report with links to files of the repository turned to copies, and those files."""
    linked: dict[str, None] = {}

    def turn(match):
        path = match[2]
        if not (ROOT / path).is_file():
            return match[0]
        linked[path] = None
        return f'{match[1]}="../files/{path}"'

    return re.sub(r'\b(href|src)="\.\./\.\./([^"#]+)"', turn, text), list(linked)


def documented_path(name: str) -> str:
    """The path at which the reference looks for an object.

    ``package.fourier`` may be both a function and the module that defines it, and a tool that reads
    files takes the module.
    """
    path = name.replace(".", "/")
    return f"{name}.{name.rpartition('.')[2]}" if (ROOT / f"{path}.py").exists() else name


def section(text: str, anchor: str) -> str:
    """What stands under one heading, without the heading.

    Raises:
        ValueError: there is no such heading.
    """
    # Lines of code may begin with the sign of a heading.
    plain = _FENCE.sub(lambda fence: re.sub(r"[^\n]", " ", fence[0]), text)
    headings = list(re.finditer(r"^(#+) (.+)$", plain, re.M))
    for i, heading in enumerate(headings):
        if slug(heading[2]) == anchor:
            ends = [h.start() for h in headings[i + 1 :] if len(h[1]) <= len(heading[1])]
            return text[heading.end() : ends[0] if ends else len(text)]
    raise ValueError(f"no heading for #{anchor}")


def slug(heading: str) -> str:
    """The anchor of a heading, as forges and the site make it."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


def _resolved(source: str, target: str) -> tuple[str, str]:
    """The file of the repository that a link in `source` leads to, and the anchor."""
    if "://" in target or target.startswith(("mailto:", "#")):
        return "", ""
    path, _, anchor = target.partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path)), anchor


def _is_picture(path: str) -> bool:
    outside = path and not path.startswith(("docs/", ".."))
    return bool(outside) and Path(path).suffix in _PICTURES and (ROOT / path).is_file()


def _turned(text: str, source: str, here: str) -> str:
    """`text` of the file `source` with its links as they have to be on the page `here`."""

    def turn(match):
        mark, words, target = match.groups()
        path, anchor = _resolved(source, target)
        # Within the pages of the site mkdocs follows and checks links itself.
        if not path or (source == f"docs/{here}" and path.startswith("docs/")):
            return match[0]
        place = None
        if path.startswith("docs/"):
            place = re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))
        elif (path, anchor) in _pages:
            place, anchor = _pages[path, anchor], ""
        elif (path, None) in _pages:
            place = _pages[path, None]
        elif _is_picture(path):
            place = f"files/{path}"
        if place is None:
            return words
        place = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"{mark}[{words}]({place}{'#' + anchor if anchor else ''})"

    parts = _FENCE.split(text)
    return "".join(part if i % 2 else _LINK.sub(turn, part) for i, part in enumerate(parts))


def notebook_page(path: os.PathLike) -> dict[str, str | bytes]:
    """A notebook as a page and its pictures: name -> content."""
    path = Path(path)
    made: dict[str, str | bytes] = {}
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif "image/png" in output["data"]:
                name = f"{path.stem}_files/{len(made)}.png"
                made[name] = base64.b64decode("".join(output["data"]["image/png"]))
                parts.append(f"![Output of the code above]({name})")
            else:
                parts.append(f"```text\n{''.join(output['data']['text/plain']).rstrip()}\n```")
    made[f"{path.stem}.md"] = "\n\n".join(parts) + "\n"
    return made
