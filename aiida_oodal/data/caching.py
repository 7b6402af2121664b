"""Hashes of nodes whose content never changes."""

from __future__ import annotations

from typing import Any

from aiida.orm.nodes.caching import NodeCaching


class StoredHash(NodeCaching):
    """Hash a node once, when it is stored.

    AiiDA hashes every input of every process that it stores, and opens the object store of the profile for each file of
    each input: 36 ms for a set of structures. A campaign hands all that was labelled to every round.
    """

    def compute_hash(self, ignore_errors: bool = True, **kwargs: Any) -> str | None:
        """Return the hash that was stored with the node.

        An imported node has lost it, and gets it again. One that was cleared stays so and is computed each time.
        """
        if stored := self.get_hash():
            return str(stored)
        computed: str | None = super().compute_hash(ignore_errors=ignore_errors, **kwargs)
        if computed and self._HASH_EXTRA_KEY not in self._node.base.extras:
            self._node.base.extras.set(self._HASH_EXTRA_KEY, computed)
        return computed

    def rehash(self) -> None:
        """Compute the hash and store it."""
        self._node.base.extras.set(self._HASH_EXTRA_KEY, super().compute_hash())
