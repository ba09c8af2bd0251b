"""Components that a config picks by name: each is a dataclass of its own options, registered under that name."""

from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Generic, TypeVar

from shards import plugins
from shards.errors import UserError

T = TypeVar("T")


class UnknownComponent(UserError):
    """A name that no component of its kind is registered under; `what` says which, as in "network 'stripes'"."""

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(message)
        self.what = f"{kind} {name!r}"


class Registry(Generic[T]):
    """Names -> dataclasses of one kind of component ("network", ...). The dataclass is the config section's schema."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that makes the class available as `name`, and names it so.

        Raises:
            UserError: as `shards.plugins.check_name` and `registering`; or the class is no dataclass.
        """
        plugins.check_name(self.kind, name)

        def add(entry: type[T]) -> type[T]:
            ours = entry.__module__.startswith(f"{__package__}.")
            plugins.registering(self.kind, name, entry, self._entries.get(name), ours=ours)
            if not is_dataclass(entry):
                raise UserError(f"{self.kind} {name!r}: {entry.__qualname__} must be a dataclass of its options")
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
