"""A tagged field: its own name chooses the class, a bare word takes the defaults."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest
from pydantic import ValidationError

from surgeon.graph.strict import Strict
from surgeon.plan import Amount, tagged_field
from surgeon.registry import Registry

shapes: Registry[type[Strict]] = Registry("shape", "surgeon.graph")


@shapes.register("circle")
class Circle(Strict):
    shape: Literal["circle"] = "circle"
    radius: int = 1


@shapes.register("square")
class Square(Strict):
    shape: Literal["square"] = "square"
    side: Amount


class Drawing(Strict):
    shape: Annotated[Strict, tagged_field(shapes, "shape")]


def draw(shape: object) -> Strict:
    return Drawing.model_validate({"shape": shape}).shape


def test_a_word_is_short_for_the_tag_with_defaults():
    assert draw("circle") == draw({"shape": "circle"}) == draw(Circle()) == Circle(radius=1)
    assert draw({"shape": "circle", "radius": 3}) == Circle(radius=3)


def test_dumped_and_read_again():
    drawing = Drawing.model_validate({"shape": {"shape": "square", "side": {"count": 2}}})
    dumped = drawing.model_dump(mode="json", exclude_none=True)
    assert dumped == {"shape": {"shape": "square", "side": {"count": 2, "multiple_of": 1}}}
    assert Drawing.model_validate(dumped) == drawing


@pytest.mark.parametrize(
    ("shape", "path", "message"),
    [
        ("circel", ("shape",), "no shape is called 'circel'; try 'circle' "),
        ({"shape": "ring"}, ("shape",), "no shape is called 'ring'"),
        ({"radius": 1}, ("shape",), "shape is one of circle, square"),
        (5, ("shape",), "expected a word or a mapping with 'shape'"),
        ("square", ("shape", "side"), "Field required"),
        ({"shape": "circle", "radius": "1"}, ("shape", "radius"), "valid integer"),
        ({"shape": "circle", "r": 1}, ("shape", "r"), "Extra inputs"),
    ],
)
def test_errors_point_into_the_object(shape, path, message):
    with pytest.raises(ValidationError) as caught:
        draw(shape)
    (error,) = caught.value.errors()
    assert error["loc"] == path
    assert message in error["msg"]


def test_what_is_registered_later_counts():
    with pytest.raises(ValidationError):
        draw("line")

    @shapes.register("line")
    class Line(Strict):
        shape: Literal["line"] = "line"

    assert draw("line") == Line()
    assert "line" in str(Drawing.model_json_schema())


def test_schema_has_words_and_objects():
    (words, circle, *_rest) = Drawing.model_json_schema()["properties"]["shape"]["anyOf"]
    assert "circle" in words["enum"]
    assert "square" not in words["enum"]
    assert circle["required"] == ["shape"]


def test_the_schema_of_a_choice_that_holds_a_choice_ends():
    @shapes.register("frame")
    class Frame(Strict):
        shape: Literal["frame"] = "frame"
        inner: Annotated[Strict, tagged_field(shapes, "shape")] = Circle()

    outer = Drawing.model_json_schema()["properties"]["shape"]["anyOf"]
    assert {"circle", "frame"} <= set(outer[0]["enum"])
    assert "frame" in json.dumps(outer[1:])
    nested = {"shape": "frame", "inner": {"shape": "frame", "inner": "circle"}}
    assert draw(nested) == Frame(inner=Frame(inner=Circle()))
