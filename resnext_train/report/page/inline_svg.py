"""A figure of matplotlib as a part of an HTML page: with the page's colours and fonts, and ids of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup

from resnext_train.report.page.canvas import LEGEND, Plot
from resnext_train.report.page.palette import LIGHT, variables

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"

_VARIABLES = {color: f"var(--{name})" for name, color in variables(LIGHT).items()}
"""The page's variables by the colours in which figures are drawn."""

_RUN = re.compile(r"run-(\d+)(-\w+)?")
_DECIMALS = re.compile(r"(\.\d)\d+")
_FONT_SIZE = re.compile(r"([\d.]+)px")


def inline_svg(plot: Plot) -> Markup:
    """Return the figure as an `svg` element without its legend, named by the caption of id `KEY-caption`.

    Its ids begin with the figure's key, so that several figures can stand in one page. A run's curves are
    `<g class="run" data-run="NUMBER">`. It has no style and no script, which a strict page refuses.
    """
    root = ElementTree.fromstring(plot.svg)
    _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
    for parent in list(root.iter()):
        for child in list(parent):
            if _is_left_out(child):
                parent.remove(child)
    ids = {name: f"{plot.key}-{i}" for i, name in enumerate(_referenced(root))}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        _rewrite(element, ids)
    root.attrib.clear()
    shown = height - plot.legend_height
    root.attrib |= {"class": "plot", "viewBox": f"0 0 {width:g} {shown:g}", "role": "img"}
    root.attrib["aria-labelledby"] = f"{plot.key}-caption"
    return Markup(_compact(ElementTree.tostring(root, encoding="unicode")))


def _is_left_out(element: Element) -> bool:
    """Return whether the page has no use of an element: metadata, matplotlib's style sheet, the legend."""
    return element.tag.endswith(("}metadata", "}style")) or element.get("id") == LEGEND


def _referenced(root: Element) -> Iterator[str]:
    """Return the ids that other elements refer to: clip paths and markers."""
    text = ElementTree.tostring(root, encoding="unicode")
    return iter(dict.fromkeys(re.findall(r'(?:url\(#|href="#)([\w.-]+)', text)))


def _rewrite(element: Element, ids: dict[str, str]) -> None:
    """Replace an element's style by attributes, its colours by variables, and its ids."""
    attributes = dict(element.attrib)
    element.attrib.clear()
    name, style = attributes.pop("id", None), attributes.pop("style", "")
    if name in ids:
        element.attrib["id"] = ids[name]
    elif name and (run := _RUN.fullmatch(name)):
        element.attrib |= {"class": "run", "data-run": run[1]}
    for key, value in (*attributes.items(), *_declarations(style)):
        if key == f"{_XLINK}href":
            element.attrib["href"] = f"#{ids[value[1:]]}"
        elif key == "clip-path":
            element.attrib[key] = f"url(#{ids[value[5:-1]]})"
        else:
            element.attrib[key] = _VARIABLES.get(value, value)


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    """Return what a style says, as attributes; the font is the page's own."""
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        key, value = (part.strip() for part in declaration.split(":", 1))
        if key == "font":  # size and weight of the short form, whatever else it has
            if size := _FONT_SIZE.search(value):
                yield "font-size", size[1]
            if re.search(r"\b(bold|700)\b", value):
                yield "font-weight", "600"
        elif key == "font-size":
            yield key, value.removesuffix("px")
        elif key == "font-weight":
            yield key, "600"
        elif not key.startswith("font"):
            yield key, value


def _compact(text: str) -> str:
    """Return the SVG with a tenth of a point in paths, and without the line ends that matplotlib sets in."""
    text = re.sub(
        r' d="[^"]*"', lambda match: _DECIMALS.sub(r"\1", match[0]).replace(" \n", " ").replace("\n", " "), text
    )
    return re.sub(r">\s+<", "><", text)
