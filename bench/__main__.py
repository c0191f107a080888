"""Run every measurement, one after another: `python -m bench`, or those that are named.

`python -m bench budget limiters --only alone --seconds 20` prints both tables, one beneath the other. An
option goes to each of the named that knows it, and has to be known to one.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names, and the options after them."""
    first = next((place for place, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    return list(arguments[:first]), list(arguments[first:])


def unknown(modules: Sequence[ModuleType], options: Sequence[str]) -> set[str]:
    """Return the words of the options that none of the modules knows."""
    left = [
        set(module.parser().parse_known_args(options)[1]) for module in modules if hasattr(module, "parser")
    ]
    return set.intersection(*left) if left else set(options)


def run(module: ModuleType, options: Sequence[str]) -> None:
    """Run one measurement with those of the options that it knows."""
    print(f"== {module.__name__.removeprefix('bench.')}: {(module.__doc__ or '').strip().splitlines()[0]}")
    if hasattr(module, "parser"):
        module.run(module.parser().parse_known_args(options)[0])
    else:
        module.main()
    print()


def main(arguments: Sequence[str]) -> None:
    names, options = split(arguments)
    names = names or sorted(
        module.name
        for module in pkgutil.iter_modules([str(Path(__file__).parent)])
        if module.name != "__main__"
    )
    modules = [importlib.import_module(f"bench.{name}") for name in names]
    if words := unknown(modules, options):
        raise SystemExit(f"none of {', '.join(names)} knows {' '.join(sorted(words))}")
    for module in modules:
        run(module, options)


if __name__ == "__main__":
    main(sys.argv[1:])
