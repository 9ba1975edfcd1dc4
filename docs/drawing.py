"""
A Sphinx directive that draws boxes and arrows from text, as SVG, with no other program.

::

    .. drawing:: A server between its clients and a broker

       .       | service/: the command twistd realtime | =      | .
       clients | server.py: one service                | =      | broker: Redis

       clients <-> server.py: WebSocket
       server.py -> broker: IBus

Each line with ``|`` is a row of boxes, from the top down. A box is a name and, after a colon, a line of text.
``.`` leaves a place empty, and ``=`` widens the box to its left by one place. Each line with an arrow joins
two boxes that stand beside or above each other. Mistakes are errors of the build.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.application import Sphinx

WIDTH, HEIGHT = 132, 46
"Pixels of a box that is one place wide."

GAP_ACROSS, GAP_DOWN = 76, 38
"Pixels between two boxes: the label of an arrow needs this much room."

ARROW = re.compile(r"(?P<source>.+?) (?P<kind><->|->) (?P<target>[^:]+)(?:: (?P<label>.+))?")

STYLE = (
    "text{font:12px sans-serif;fill:currentColor;text-anchor:middle}"
    "text.name{font-weight:bold}"
    "text.label{font-size:10px;font-style:italic}"
    "rect{fill:currentColor;fill-opacity:.06;stroke:currentColor}"
    "line{stroke:currentColor;stroke-width:1.4}"
    "path{fill:currentColor}"
)


@dataclass(frozen=True)
class Box:
    """
    A box, in pixels from the upper left corner of the drawing.
    """

    name: str
    text: str
    left: int
    top: int
    width: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + HEIGHT

    @property
    def middle(self) -> int:
        return self.left + self.width // 2


@dataclass(frozen=True)
class Arrow:
    """
    An arrow; `kind` is `->` or `<->`.
    """

    source: Box
    kind: str
    target: Box
    label: str


def read(lines: list[str]) -> tuple[list[Box], list[Arrow]]:
    """
    Read the text of a drawing.

    :raises ValueError: if a line is neither a row nor an arrow, two boxes have one name, or an arrow names
        no box.
    """
    boxes: dict[str, Box] = {}
    arrows = []
    rows = 0
    for line in filter(None, map(str.strip, lines)):
        if "|" in line:
            for box in _row(line, rows * (HEIGHT + GAP_DOWN) + 1):
                if box.name in boxes:
                    raise ValueError(f"two boxes are called {box.name!r}")
                boxes[box.name] = box
            rows += 1
            continue
        found = ARROW.fullmatch(line)
        if found is None:
            raise ValueError(f"neither a row of boxes nor an arrow: {line!r}")
        for name in found["source"], found["target"]:
            if name not in boxes:
                raise ValueError(f"an arrow to {name!r}, but the boxes are {', '.join(boxes)}")
        arrows.append(
            Arrow(boxes[found["source"]], found["kind"], boxes[found["target"]], found["label"] or "")
        )
    return list(boxes.values()), arrows


def _row(line: str, top: int) -> Iterator[Box]:
    cells = [cell.strip() for cell in line.split("|")]
    for place, cell in enumerate(cells):
        if cell in (".", "="):
            continue
        span = 1
        while cells[place + span : place + span + 1] == ["="]:
            span += 1
        name, _, text = cell.partition(":")
        left = place * (WIDTH + GAP_ACROSS) + 1
        yield Box(name.strip(), text.strip(), left, top, span * WIDTH + (span - 1) * GAP_ACROSS)


def draw(title: str, lines: list[str]) -> str:
    """
    Draw the text of a drawing as an SVG element.

    :raises ValueError: as :func:`read` does, and if an arrow would have to bend.
    """
    boxes, arrows = read(lines)
    width = max(box.right for box in boxes) + 1
    height = max(box.bottom for box in boxes) + 1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}" '
        f'style="max-width:{width}px;width:100%">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
    ]
    for box in boxes:
        line = box.top + (19 if box.text else 28)
        parts.append(f'<rect x="{box.left}" y="{box.top}" width="{box.width}" height="{HEIGHT}" rx="5"/>')
        parts.append(f'<text class="name" x="{box.middle}" y="{line}">{escape(box.name)}</text>')
        if box.text:
            parts.append(f'<text x="{box.middle}" y="{box.top + 36}">{escape(box.text)}</text>')
    for arrow in arrows:
        parts += _drawn(arrow)
    return "\n".join([*parts, "</svg>"])


def _drawn(arrow: Arrow) -> Iterator[str]:
    source, target = arrow.source, arrow.target
    label = f'<text class="label" x="{{}}" y="{{}}"{{}}>{escape(arrow.label)}</text>'
    if source.top == target.top:
        first, last = (
            (source.right, target.left) if source.left < target.left else (source.left, target.right)
        )
        ends = (first, source.top + HEIGHT // 2), (last, source.top + HEIGHT // 2)
        yield label.format((first + last) // 2, source.top + HEIGHT // 2 - 6, "")
    else:
        left, right = max(source.left, target.left), min(source.right, target.right)
        if left >= right:
            raise ValueError(f"{source.name!r} and {target.name!r} stand neither beside nor above each other")
        middle = (left + right) // 2
        down = source.top < target.top
        first, last = (source.bottom, target.top) if down else (source.top, target.bottom)
        ends = (middle, first), (middle, last)
        yield label.format(middle + 7, (first + last) // 2 + 4, ' style="text-anchor:start"')
    yield '<line x1="{}" y1="{}" x2="{}" y2="{}"/>'.format(*ends[0], *ends[1])
    yield _head(*ends[0], *ends[1])
    if arrow.kind == "<->":
        yield _head(*ends[1], *ends[0])


def _head(fromX: int, fromY: int, x: int, y: int) -> str:
    """
    Draw the head of an arrow that comes from one point and ends at another.
    """
    if fromY == y:
        back = x - 8 if fromX < x else x + 8
        return f'<path d="M{x} {y} L{back} {y - 4} L{back} {y + 4} Z"/>'
    back = y - 8 if fromY < y else y + 8
    return f'<path d="M{x} {y} L{x - 4} {back} L{x + 4} {back} Z"/>'


class Drawing(Directive):
    """
    The directive: an SVG in HTML, the text itself in all other formats.
    """

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        try:
            svg = draw(self.arguments[0], list(self.content))
        except ValueError as error:
            raise self.error(str(error)) from None
        text = "\n".join(self.content)
        other = addnodes.only("", nodes.literal_block(text, text), expr="not html")
        return [nodes.raw("", svg, format="html"), other]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("drawing", Drawing)
    return {"version": "1", "parallel_read_safe": True}
