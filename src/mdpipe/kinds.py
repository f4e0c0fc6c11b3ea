"""Kinds by name: a schedule, objective, sampler or network NAME is the class in the file NAME.py of its package.

So a new one is one file: nothing else has to be told of it.
"""

import inspect
import pkgutil
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

Base = TypeVar("Base")


def find_kind(package: str, kind: str, base: type[Base], key: str) -> type[Base]:
    """The class of a kind: the one subclass of `base` that the module `kind` of the package defines.

    Raises:
        ValueError: there is no such module or no such class in it, or more than one; names `key`, of params.yaml.
    """
    found = classes_in(package, kind, base) if is_module(package, kind) else []
    if len(found) != 1:
        if found:
            raise ValueError(
                f"{key} is {kind!r}, and {len(found)} classes in {kind}.py could be it; leave one in there"
            )
        raise ValueError(f"{key} is {kind!r}; it must be one of {', '.join(sorted(kinds_of(package, base)))}")
    return found[0]


def kinds_of(package: str, base: type[Base]) -> dict[str, type[Base]]:
    """All kinds of a package, by name."""
    modules = [module.name for module in pkgutil.iter_modules(import_module(package).__path__)]
    classes = {name: classes_in(package, name, base) for name in modules}
    return {name: found[0] for name, found in classes.items() if len(found) == 1}


def is_module(package: str, name: str) -> bool:
    """Whether the package has a module of this name, which is not loaded to find out."""
    return name.isidentifier() and find_spec(f"{package}.{name}") is not None


def classes_in(package: str, name: str, base: type[Base]) -> list[type[Base]]:
    """Return the classes of a module of the package that inherit `base` and are not abstract."""
    module = import_module(f"{package}.{name}")
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, base)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
    ]
