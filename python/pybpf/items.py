# SPDX-License-Identifier: BSD-2-Clause
"""A mapping from names, in an object's own order, that suggests names on a miss."""

from __future__ import annotations

from _collections_abc import Mapping  # collections.abc imports all of collections

from pybpf.errors import NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


class Items(Mapping["str", "Any"]):
    """Maps, programs or sections of an object by name, in its order; NotFoundError suggests."""

    def __init__(self, kind: str, items: Iterable[Any]) -> None:
        self._kind = kind
        self._items = {item.name: item for item in items}

    def __getitem__(self, name: str) -> Any:
        try:
            return self._items[name]
        except KeyError:
            raise NotFoundError(self._kind, name, self._items) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<{self._kind}s: {', '.join(self._items)}>"
