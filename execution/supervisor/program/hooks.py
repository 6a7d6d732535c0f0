"""Changes that modules get when a program, or a library, imports them."""

import sys

from tracebacks import OURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec

    from typing import Any, Optional

    Change = Callable[[Any], None]

OURS.append(globals())


class ImportHooks:
    """A finder that changes modules after they are loaded, and provides some that an image may lack."""

    def __init__(self) -> None:
        self.changes: "dict[str, list[Change]]" = {}
        self.provided: "dict[str, Change]" = {}  # what fills a module that is ours

    def change(self, name: str, change: "Change") -> None:
        """Changes a module, now or when it is imported."""
        self.changes.setdefault(name, []).append(change)
        if name in sys.modules:
            self.apply(sys.modules[name])

    def apply(self, module: "Any") -> None:
        """Makes the changes of a module. A module of another version that they do not fit stays as it is."""
        for change in self.changes[module.__name__]:
            try:
                change(module)
            except Exception:
                pass

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Optional[ModuleSpec]":
        """Finds the modules that have changes as the other finders do, and those that are provided."""
        if name not in self.changes and name not in self.provided:
            return None
        found = None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            if found := finder.find_spec(name, path, target):
                break
        if name in self.provided:
            new_spec: "Any" = type(sys.__spec__)
            spec: "ModuleSpec" = new_spec(name, Provider(self.provided[name]), is_package=True)
            spec.submodule_search_locations = (found and found.submodule_search_locations) or []
            return spec
        if found is not None:
            self.watch(found.loader)
        return found

    def watch(self, loader: "Any") -> None:
        """Makes a loader apply the changes after it has loaded its module. Each import has a loader of its own."""
        load = loader.exec_module

        def exec_module(module: "Any") -> None:
            load(module)
            self.apply(module)

        loader.exec_module = exec_module


class Provider:
    """The loader of a module that is ours."""

    def __init__(self, fill: "Change") -> None:
        self.fill = fill

    def create_module(self, _: "ModuleSpec") -> None:
        """Leaves it to the import system to create the module."""

    def exec_module(self, module: "Any") -> None:
        """Fills the module."""
        self.fill(module)


def wrapping(original: "Any", replacement: "Callable[..., Any]") -> "Callable[..., Any]":
    """Returns a function that replaces another, with the other's names: libraries look at them."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(replacement, name, getattr(original, name))
    setattr(replacement, "__wrapped__", original)
    return replacement
