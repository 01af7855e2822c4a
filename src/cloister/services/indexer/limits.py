"""What a query may cost, judged before it runs."""

from __future__ import annotations

from graphql import DocumentNode, FieldNode, FragmentDefinitionNode, FragmentSpreadNode, SelectionSetNode

from cloister.errors import InputError

MAX_QUERY = 32 * 1024
"""Longest query text in characters."""
MAX_TOKENS = 4000
MAX_DEPTH = 10
MAX_INTROSPECTION_DEPTH = 20
MAX_FIELDS = 500
"""Most fields, counted with fragments spread out."""


def check_cost(document: DocumentNode) -> None:
    """Refuse documents that are too deep or too broad. Fragments count wherever they are spread.

    Raises: InputError.
    """
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    counter = _Counter(fragments)
    for definition in document.definitions:
        selections = getattr(definition, "selection_set", None)
        if selections is not None and not isinstance(definition, FragmentDefinitionNode):
            counter.walk(selections, 1, MAX_DEPTH, ())


class _Counter:
    def __init__(self, fragments: dict[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._fields = 0

    def walk(self, selections: SelectionSetNode, depth: int, limit: int, inside: tuple[str, ...]) -> None:
        if depth > limit:
            raise InputError(f"the query is nested deeper than {limit}")
        for selection in selections.selections:
            if isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                fragment = self._fragments.get(name)
                if fragment is not None and name not in inside:
                    self.walk(fragment.selection_set, depth, limit, (*inside, name))
                continue
            if isinstance(selection, FieldNode):
                self._fields += 1
                if self._fields > MAX_FIELDS:
                    raise InputError(f"the query asks for more than {MAX_FIELDS} fields")
            inner = getattr(selection, "selection_set", None)
            if inner is not None:
                introspects = isinstance(selection, FieldNode) and selection.name.value in ("__schema", "__type")
                step = 1 if isinstance(selection, FieldNode) else 0
                self.walk(inner, depth + step, MAX_INTROSPECTION_DEPTH if introspects else limit, inside)
