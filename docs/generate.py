"""Pages that are made from the code when the site is built: the recipe reference and the Python page."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import surgeon

Schema = Mapping[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages; called by mkdocs."""
    for name, lines in (("recipe-reference.md", recipe_reference()), ("api.md", python_page())):
        files.append(File.generated(config, name, content="\n".join(lines) + "\n"))
    return files


def recipe_reference() -> Iterator[str]:
    """The JSON Schema of a recipe as tables, one for every object."""
    from surgeon.recipe import recipe_schema

    schema = recipe_schema()
    definitions: Schema = schema.get("$defs", {})
    yield "# Recipe reference"
    yield ""
    yield "Made from the JSON Schema that `surgeon schema` prints. An editor that reads it completes and"
    yield "checks recipes while you type. Every object refuses keys that it does not know."
    yield ""
    yield "## recipe"
    yield from _object(schema, definitions)
    for name in sorted(definitions):
        if "properties" in definitions[name]:
            yield ""
            yield f"## {name}"
            yield from _object(definitions[name], definitions)


def _object(schema: Schema, definitions: Schema) -> Iterator[str]:
    yield ""
    yield from inspect.cleandoc(schema.get("description", "")).splitlines()
    yield ""
    yield "| Key | Value | Default | |"
    yield "|---|---|---|---|"
    required = schema.get("required", ())
    for key, value in schema.get("properties", {}).items():
        default = "required" if key in required else f"`{json.dumps(value.get('default'))}`"
        said = " ".join(value.get("description", "").split())
        yield f"| `{key}` | {_kind(value, definitions)} | {_cell(default)} | {_cell(said)} |"


def _kind(value: Schema, definitions: Schema) -> str:
    """What may stand there, in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        target = definitions.get(name, {})
        return f"[{name}](#{name.lower()})" if "properties" in target else _kind(target, definitions)
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    for several in ("anyOf", "oneOf", "allOf"):
        if several in value:
            kinds = [_kind(part, definitions) for part in value[several] if part.get("type") != "null"]
            return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
    if value.get("type") == "array":
        return f"list of {_kind(value.get('items', {}), definitions) or 'values'}"
    bounds = [
        f"{sign} {value[bound]}"
        for bound, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", "&gt;"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "&lt;"),
        )
        if bound in value
    ]
    return " ".join([str(value.get("type", "")), *bounds]).strip()


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def python_page() -> Iterator[str]:
    """The verbs, from their signatures and docstrings."""
    yield "# Python"
    yield ""
    yield "The verbs of the package, loaded when first used. Where a verb and a package share a name, the"
    yield "package is imported from: `from surgeon.plan import Plan`."
    for name in sorted(surgeon.__all__):
        verb = getattr(surgeon, name)
        yield ""
        yield f"## {name}"
        yield ""
        if inspect.isfunction(verb):
            parameters = ",\n    ".join(str(part) for part in inspect.signature(verb).parameters.values())
            returns = inspect.signature(verb).return_annotation
            yield f"```text\nsurgeon.{name}(\n    {parameters}\n) -> {returns}\n```"
            yield ""
        yield from _docstring(inspect.getdoc(verb) or "")


def _docstring(text: str) -> Iterator[str]:
    """A Google-style docstring as Markdown."""
    for line in text.splitlines():
        if line in {"Args:", "Raises:", "Returns:"}:
            yield f"**{line.removesuffix(':')}**"
            yield ""
        elif line.startswith("    ") and not line.startswith("        "):
            name, colon, rest = line.strip().partition(":")
            yield f"- `{name}`:{rest}" if colon else f"- {name}"
        else:
            yield line.replace("``", "`")
