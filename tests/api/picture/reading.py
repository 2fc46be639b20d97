"""Reads a page back: its elements, what they say, and what they refer to."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "input", "hr"}


@dataclass
class Element:
    tag: str
    attrs: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str, class_: str | None = None) -> list[Element]:
        """Elements below with that tag, and one of whose classes is `class_`."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                fits = class_ is None or class_ in child.attrs.get("class", "").split()
                found += [child] if child.tag == tag and fits else []
                found += child.all(tag, class_)
        return found

    def of(self, tag: str, class_: str | None = None) -> Element:
        (found,) = self.all(tag, class_)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> where <{self.open[-1].tag}> is open"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read_page(text: str) -> Element:
    """The root; an element that is not closed where it must be is an error."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root], "elements stay open"
    return reader.root


def all_elements(root: Element) -> list[Element]:
    below = [child for child in root.children if isinstance(child, Element)]
    return [*below, *(element for child in below for element in all_elements(child))]
