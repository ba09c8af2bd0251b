"""Components that a config picks by name: each is a dataclass of its own options, registered under that name."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from shards.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names -> dataclasses of one kind of component ("network", ...). The dataclass is the config section's schema."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that makes the class available as `name`, and names it so."""

        def add(entry: type[T]) -> type[T]:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            entry.name = name  # type: ignore[attr-defined]
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> type[T]:
        """Return the class registered as `name`; a UserError names all that there are."""
        if name not in self._entries:
            raise UserError(f"{self.kind}.name: {name!r}: no such {self.kind}; there are: {', '.join(sorted(self))}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
