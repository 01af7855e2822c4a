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
"""Most fields and fragments, counted wherever they are spread."""
MAX_SAME = 32
"""Most fields of one name in the answer side by side: the rule that they must agree compares all pairs of them."""
MAX_DEFINITIONS = 50
MAX_INTROSPECTIONS = 3
"""Most ``__schema`` and ``__type`` in one query: each may answer with the whole schema."""


def check_cost(document: DocumentNode) -> None:
    """Refuse documents that are too deep or too broad. Fragments count wherever they are spread.

    Raises: InputError.
    """
    if len(document.definitions) > MAX_DEFINITIONS:
        raise InputError(f"the query has more than {MAX_DEFINITIONS} operations and fragments")
    fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
    counter = _Counter(fragments)
    for definition in document.definitions:
        selections = getattr(definition, "selection_set", None)
        if selections is not None and not isinstance(definition, FragmentDefinitionNode):
            counter.walk(selections, 1, MAX_DEPTH, ())


class _Counter:
    def __init__(self, fragments: dict[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._seen = 0
        self._introspections = 0

    def walk(self, selections: SelectionSetNode, depth: int, limit: int, inside: tuple[str, ...]) -> None:
        if depth > limit:
            raise InputError(f"the query is nested deeper than {limit}")
        same: dict[str, int] = {}
        for selection in selections.selections:
            self._seen += 1
            if self._seen > MAX_FIELDS:
                raise InputError(f"the query asks for more than {MAX_FIELDS} fields")
            if isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                fragment = self._fragments.get(name)
                if fragment is not None and name not in inside:
                    self.walk(fragment.selection_set, depth, limit, (*inside, name))
                continue
            if isinstance(selection, FieldNode):
                name = (selection.alias or selection.name).value
                same[name] = same.get(name, 0) + 1
                if same[name] > MAX_SAME:
                    raise InputError(f"the query asks for one field more than {MAX_SAME} times")
            inner = getattr(selection, "selection_set", None)
            if inner is not None:
                introspects = isinstance(selection, FieldNode) and selection.name.value in ("__schema", "__type")
                self._introspections += introspects
                if self._introspections > MAX_INTROSPECTIONS:
                    raise InputError(f"the query asks for the schema more than {MAX_INTROSPECTIONS} times")
                step = 1 if isinstance(selection, FieldNode) else 0
                self.walk(inner, depth + step, MAX_INTROSPECTION_DEPTH if introspects else limit, inside)
