"""Pages that the documentation site makes from code: every key of params.yaml and every command.

A hook of MkDocs (mkdocs.yml). It also adds results/, CONTRIBUTING.md and CHANGELOG.md to the site, and rewrites links
between pages, because pages have other places in the site than in the repository.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
RULES = {
    "exclusiveMinimum": "> {}",
    "minimum": "≥ {}",
    "exclusiveMaximum": "< {}",
    "maximum": "≤ {}",
    "multipleOf": "multiple of {}",
    "minItems": "at least {} entries",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minProperties": "at least {} entries",
    "pattern": "matches `{}`",
}
MOST_LINKS = 3
"""Kinds that the type of a key links to one by one."""
TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}
NAMES = {"sources": "SOURCE", "datasets": "DATASET", "runs": "RUN"}


# The site


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the generated pages and those that are outside docs/."""
    from mkdocs.structure.files import File

    for name, text in {"params.md": params_page(), "commands.md": commands_page()}.items():
        files.append(File.generated(config, name, content=text))
    for path in outside_pages():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: "Page", **_: object) -> str:
    """Return the page with links that hold in the site."""
    return site_links(markdown, page.file.src_uri)


def outside_pages() -> list[str]:
    """Return the pages of the site that are outside docs/, relative to the repository."""
    results = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "results").rglob("*.md"))
    return ["CONTRIBUTING.md", "CHANGELOG.md", *results]


def site_links(markdown: str, page: str) -> str:
    """Rewrite the links of a page to the places that files have in the site.

    A link to a file that is not in the site becomes plain text.
    """
    outside = outside_pages()
    folder = posixpath.dirname(page if page in outside else f"docs/{page}")

    def replace(link: re.Match[str]) -> str:
        image, text, target, anchor = link[1], link[2], link[3], link[4] or ""
        if ":" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        if path not in outside and not path.startswith("docs/"):
            return text
        place = posixpath.relpath(path.removeprefix("docs/"), posixpath.dirname(page) or ".")
        return f"{image}[{text}]({place}{anchor})"

    return LINK.sub(replace, markdown)


# params.yaml


@dataclass(frozen=True)
class Key:
    """A key of params.yaml as its JSON Schema has it."""

    name: str
    schema: dict[str, Any]
    required: bool
    definitions: dict[str, Any]

    @property
    def meaning(self) -> str:
        """Return the description of the key, or of the mapping that it holds."""
        referred = [_definition(self.schema, self.definitions), *(_variants(self.schema, self.definitions)[:1])]
        texts = [self.schema.get("description", ""), *(one.get("description", "") for one in referred if one)]
        return next(filter(None, texts), "").split("\n\n")[0].replace("\n", " ")

    @property
    def default(self) -> str:
        """Return the default as YAML, or that the key is required, or follows from other keys."""
        if self.required:
            return "required"
        if "default" not in self.schema:
            return "see meaning"
        value = self.schema["default"]
        if isinstance(value, dict) and value:  # The table of the mapping has the defaults of its keys.
            return f"`{value['kind']}`" if "kind" in value else "its defaults"
        return f"`{json.dumps(value)}`"

    @property
    def rule(self) -> str:
        """Return the bounds of the value; the types say the rest."""
        return ", ".join(dict.fromkeys(_rules(self.schema)))


@dataclass(frozen=True)
class Kind:
    """A mapping of params.yaml, or one of several that it may be, which `chosen_by` tells apart."""

    model: str
    chosen_by: str
    description: str
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Place:
    """The path of a mapping in params.yaml, with the kinds it may be and the keys that all of them have."""

    path: str
    kinds: tuple[Kind, ...]
    common: tuple[Key, ...]


def params_page() -> str:
    """Return the reference of params.yaml."""
    head = [
        "# params.yaml",
        "",
        "All keys of params.yaml, from the types that `mdpipe check` validates. Unknown keys are refused."
        " `mdpipe check --resolved` prints params.yaml with all defaults filled in, and `mdpipe schema` prints this"
        " page as JSON Schema, for editors.",
        "",
    ]
    return "\n".join([*head, *(line for place in places() for line in _place_lines(place))])


def places() -> list[Place]:
    """Return every mapping of params.yaml, each once, in the order of the file."""
    from mdpipe.params import Params

    schema = Params.model_json_schema()
    definitions = schema.pop("$defs")
    found: dict[str, list[dict[str, Any]]] = {}
    seen: set[str] = set()

    def visit(path: str, models: list[dict[str, Any]]) -> None:
        new = [model for model in models if model["title"] not in seen]
        seen.update(model["title"] for model in new)
        if new:
            found.setdefault(path, []).extend(new)
        for name, value in (item for model in new for item in model["properties"].items()):
            for below, inner in _inner(value, definitions):
                entry = below.replace("NAME", NAMES.get(name, "NAME"), 1)
                visit(".".join(filter(None, [path, name, entry])).replace(".[]", "[]"), inner)

    visit("", [schema])
    return [_place(path, models, definitions) for path, models in found.items()]


def _place(path: str, models: list[dict[str, Any]], definitions: dict[str, Any]) -> Place:
    shared = [name for name in models[0]["properties"] if len(models) > 1 and _is_shared(name, models)]
    common = tuple(key for key in _keys(models[0], definitions) if key.name in shared)
    return Place(path, tuple(_kind(model, shared, definitions) for model in models), common)


def _is_shared(name: str, models: list[dict[str, Any]]) -> bool:
    versions = [(model["properties"].get(name), name in model.get("required", [])) for model in models]
    return all(version == versions[0] for version in versions)


def _kind(model: dict[str, Any], shared: list[str], definitions: dict[str, Any]) -> Kind:
    fixed = [f"{name}: {value['const']}" for name, value in model["properties"].items() if "const" in value]
    keys = tuple(key for key in _keys(model, definitions) if key.name not in shared)
    return Kind(model["title"], ", ".join(fixed), model.get("description", ""), keys)


def _keys(model: dict[str, Any], definitions: dict[str, Any]) -> Iterator[Key]:
    for name, value in model["properties"].items():
        if "const" not in value:  # It chooses the kind, and the heading has it.
            yield Key(name, value, name in model.get("required", []), definitions)


def _definition(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else {}
    return found


def _variants(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the mappings that a value may be, without looking into lists and mappings of names."""
    if "$ref" in schema:
        found = _definition(schema, definitions)
        return [found] if "properties" in found else []
    choices = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    return [model for choice in choices for model in _variants(choice, definitions)]


def _inner(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the mappings below a key, with the part of the path between: nothing, names or an index of a list."""
    yield "", _variants(schema, definitions)
    for choice in (schema, *schema.get("anyOf", []), *schema.get("oneOf", [])):
        if "items" in choice:
            yield "[]", _variants(choice["items"], definitions)
        for value in [*choice.get("patternProperties", {}).values(), choice.get("additionalProperties")]:
            if isinstance(value, dict):
                for below, inner in _inner(value, definitions):
                    yield ".".join(filter(None, ["NAME", below])), inner


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"`{value if isinstance(value, str) else json.dumps(value)}`" for value in values)
    choices = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    if models := _variants(schema, definitions):
        links = [_link(model) for model in models]
        mapping = (
            f"one of {len(links)} [kinds](#{_anchor(models[0])})" if len(links) > MOST_LINKS else " or ".join(links)
        )
        # A mapping without a reference is a kind that a user adds.
        plain = [one for one in choices if not _variants(one, definitions) and one.get("type") != "object"]
        return " or ".join([mapping, *(_type(one, definitions) for one in plain)])
    if choices:
        return " or ".join(dict.fromkeys(_type(choice, definitions) for choice in choices))
    if schema.get("type") == "array":
        parts = schema.get("prefixItems") or [schema.get("items", {})]
        return "list of " + ", ".join(dict.fromkeys(_type(part, definitions) for part in parts))
    if schema.get("type") == "object":
        values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        return "names with " + _type(next(value for value in values if isinstance(value, dict)), definitions)
    return TYPES[schema["type"]]


def _rules(schema: dict[str, Any]) -> Iterator[str]:
    for name, text in RULES.items():
        if name in schema and "prefixItems" not in schema:
            bound = schema[name]
            yield text.format("2^63" if bound == 2**63 else bound)
    inner = [*schema.get("anyOf", []), *schema.get("oneOf", []), schema.get("items")]
    for part in inner:
        if isinstance(part, dict) and "properties" not in part:
            yield from _rules(part)


def _anchor(model: dict[str, Any]) -> str:
    return re.sub(r"\W", "-", model["title"]).lower()


def _link(model: dict[str, Any]) -> str:
    fixed = [f"{value['const']}" for value in model["properties"].values() if "const" in value]
    return f"[{', '.join(fixed) or 'mapping'}](#{_anchor(model)})"


def _place_lines(place: Place) -> Iterator[str]:
    level = "##" if place.path.count(".") <= 1 else "###"
    single = place.kinds[0] if len(place.kinds) == 1 else None
    anchor = f" {{ #{_anchor({'title': single.model})} }}" if single else ""
    yield from (f"{level} {f'`{place.path}`' if place.path else 'Sections'}{anchor}", "")
    if single:
        yield from (single.description, "", *_table(single.keys))
        return
    if place.common:
        yield from ("Every kind has these keys:", "", *_table(place.common))
    for kind in place.kinds:
        title = f"`{kind.chosen_by}`" if kind.chosen_by else kind.model
        yield from (f"{level}# {title} {{ #{_anchor({'title': kind.model})} }}", "", kind.description, "")
        yield from _table(kind.keys)


def _table(keys: tuple[Key, ...]) -> Iterator[str]:
    if keys:
        yield from ("| key | type | default | rule | meaning |", "|---|---|---|---|---|")
        for key in keys:
            cells = [f"`{key.name}`", _type(key.schema, key.definitions), key.default, key.rule, key.meaning]
            yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
        yield ""


# The command line


def commands_page() -> str:
    """Return the reference of the command line."""
    import typer

    from mdpipe.cli import app

    lines = ["# Commands", "", "The same text is shown by `mdpipe --help` and `mdpipe COMMAND --help`.", ""]
    return "\n".join([*lines, *_command_lines("mdpipe", typer.main.get_command(app))])


def _command_lines(name: str, command: Any) -> Iterator[str]:
    yield from (f"## {name}", "", _plain(command.help or ""), "")
    if subcommands := getattr(command, "commands", {}):
        for below, inner in subcommands.items():
            yield from _command_lines(f"{name} {below}", inner)
        return
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    words = [one.metavar or one.name.upper() for one in arguments]
    usage = [word if one.required else f"[{word}]" for word, one in zip(words, arguments, strict=True)]
    options = ["[OPTIONS]"] if len(command.params) > len(arguments) else []
    yield from ("```", " ".join([name, *usage, *options]), "```", "")
    rows = [*zip(words, arguments, strict=True)]
    rows += [(", ".join([*one.opts, *one.secondary_opts]), one) for one in command.params if one not in arguments]
    if rows:
        yield from ("| argument or option | default | meaning |", "|---|---|---|")
        for shown, one in rows:
            yield f"| `{shown}` | {_default(one)} | {_plain(one.help or '')} |"
        yield ""


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if value is None or value == "" or value == [] or callable(value) or value is False:
        return ""
    return f"`{' '.join(map(str, value)) if isinstance(value, list | tuple) else value}`"


def _plain(text: str) -> str:
    return text.replace("\\[", "[").replace("|", "&#124;").strip()
