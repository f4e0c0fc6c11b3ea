"""Options of commands that are fields of dataclasses. Nothing here loads typer before a command line is built."""

from collections.abc import Callable, Collection
from dataclasses import field, fields
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

Command = Callable[..., None]


def option(default: Any, help: str, *, choices: Collection[str] = (), name: str | None = None, **rules: Any) -> Any:
    """Return a field that is an option of a command.

    Args:
        default: Default of the option. A list makes an option that may be given several times; the field has one value.
        help: The beginning of the option's help, which goes on with the choices.
        choices: All values.
        name: Name of the option, if it is not the field's.
        **rules: Further arguments of `typer.Option`, such as `min`.
    """
    listed = f": {', '.join(choices)}" if choices else ""
    rules["help"] = f"{help}{listed}{'; may be given several times' if isinstance(default, list) else ''}."
    metadata = {"default": default, "choices": choices, "name": name, "rules": rules}
    return field(default=default[0] if isinstance(default, list) else default, metadata=metadata)


def with_options(kind: type, *names: str) -> Callable[[Command], Command]:
    """Give a command the options of a dataclass, or those of these names, in place of its argument `**options`."""
    import typer

    added = []
    for one in fields(kind):
        if one.metadata and (not names or one.name in names):
            default, flag = one.metadata["default"], one.metadata["name"] or one.name.replace("_", "-")
            annotation: Any = list[one.type] if isinstance(default, list) else one.type  # type: ignore[name-defined]
            described = Annotated[annotation, typer.Option(f"--{flag}", **one.metadata["rules"])]
            added.append(Parameter(one.name, Parameter.KEYWORD_ONLY, default=default, annotation=described))

    def add(command: Command) -> Command:
        own = [one for one in signature(command).parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
        command.__signature__ = Signature([*own, *added])  # type: ignore[attr-defined]
        return command

    return add
