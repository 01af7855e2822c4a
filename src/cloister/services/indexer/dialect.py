"""The GraphQL schema of a subgraph, generated from its entities in The Graph's dialect (reference 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    FieldNode,
    GraphQLArgument,
    GraphQLArgumentMap,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLField,
    GraphQLID,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    ValueNode,
)
from graphql.language import (
    BooleanValueNode,
    ConstValueNode,
    EnumValueNode,
    FloatValueNode,
    IntValueNode,
    StringValueNode,
)

from cloister.errors import InputError
from cloister.services.indexer.entities import (
    WORDS,
    Derived,
    Entity,
    Field,
    Kind,
    Reference,
    References,
    Scalar,
    Subgraph,
)
from cloister.services.indexer.filters import CHANGE, suffixes
from cloister.services.indexer.loading import Arguments, Loader, Node


@dataclass(frozen=True, slots=True)
class QueryContext:
    """What resolvers of one request share: the loader of a block and what is known of it, for the ``block`` argument
    of a field (None is now).
    """

    loader_at: Callable[[object], Loader]
    meta: Callable[[object], dict[str, Any]]


def _parse_literal(node: ValueNode, _variables: Mapping[str, Any] | None = None) -> Any:
    """Read a literal of any scalar: clients write numbers, strings and words for one another."""
    match node:
        case StringValueNode() | EnumValueNode() | BooleanValueNode():
            return node.value
        case IntValueNode():
            # Some 78 digits are a number; more cost time to read.
            return int(node.value) if len(node.value) <= 79 else node.value
        case FloatValueNode():
            return node.value
        case _:
            raise InputError("expected a plain value")


def _lenient(name: str, description: str) -> GraphQLScalarType:
    return GraphQLScalarType(
        name,
        serialize=lambda value: value,
        parse_value=lambda value: value,
        parse_literal=_parse_literal,
        description=description,
    )


class _Words(GraphQLEnumType):
    """An enumeration whose words may also be written as strings: iExec's clients do."""

    def coerce_input_literal(self, value_node: ConstValueNode, hide_suggestions: bool = False) -> Any:
        if isinstance(value_node, StringValueNode):
            return self.coerce_input_value(value_node.value, hide_suggestions)
        return super().coerce_input_literal(value_node, hide_suggestions)


def _words(kind: Kind) -> GraphQLEnumType:
    return _Words(kind.value, {word: word for word in WORDS[kind]})


class SchemaBuilder:
    """Builds the schema of one subgraph."""

    def __init__(self, subgraph: Subgraph) -> None:
        self._subgraph = subgraph
        self._scalars: dict[Kind, GraphQLScalarType | GraphQLEnumType] = {
            Kind.ID: GraphQLID,
            Kind.BYTES: _lenient("Bytes", "Lower-case 0x hex"),
            Kind.STRING: GraphQLString,
            Kind.TASK_STATUS: _words(Kind.TASK_STATUS),
            Kind.CONTRIBUTION: _words(Kind.CONTRIBUTION),
            Kind.BIG_INT: _lenient("BigInt", "A whole number as decimal text"),
            Kind.DECIMAL: _lenient("BigDecimal", "An amount of RLC as decimal text"),
            Kind.BOOLEAN: GraphQLBoolean,
        }
        self._direction = GraphQLEnumType("OrderDirection", {"asc": "asc", "desc": "desc"})
        self._height = GraphQLInputObjectType(
            "Block_height",
            {
                "hash": GraphQLInputField(self._scalars[Kind.BYTES]),
                "number": GraphQLInputField(GraphQLInt),
                "number_gte": GraphQLInputField(GraphQLInt),
            },
        )
        self._changed = GraphQLInputObjectType(
            "BlockChangedFilter", {"number_gte": GraphQLInputField(GraphQLNonNull(GraphQLInt))}
        )
        # Taken and without meaning here: a batch that fails is not indexed at all.
        self._policy = GraphQLEnumType("_SubgraphErrorPolicy_", {"allow": "allow", "deny": "deny"})
        self._orders = {name: self._order_of(entity) for name, entity in subgraph.entities.items()}
        self._filters = {name: self._filter_of(entity) for name, entity in subgraph.entities.items()}
        self._types = {name: self._type_of(entity) for name, entity in subgraph.entities.items()}

    def build(self) -> GraphQLSchema:
        """Build the schema: a list and a single entity per type at the root, and ``_meta``."""
        at: GraphQLArgumentMap = {
            "block": GraphQLArgument(self._height),
            "subgraphError": GraphQLArgument(GraphQLNonNull(self._policy), default_value="deny"),
        }
        fields: dict[str, GraphQLField] = {"_meta": _meta_field(self._height)}
        for entity in self._subgraph.entities.values():
            fields[entity.plural] = GraphQLField(
                GraphQLNonNull(GraphQLList(GraphQLNonNull(self._types[entity.name]))),
                args={**self._list_arguments(entity.name), **at},
                resolve=_resolve_many(entity.name),
            )
            fields[entity.singular] = GraphQLField(
                self._types[entity.name],
                args={"id": GraphQLArgument(GraphQLNonNull(self._scalars[Kind.ID])), **at},
                resolve=_resolve_one(entity.name),
            )
        return GraphQLSchema(GraphQLObjectType("Query", fields))

    def _type_of(self, entity: Entity) -> GraphQLObjectType:
        def fields() -> dict[str, GraphQLField]:
            return {name: self._field(name, field) for name, field in entity.fields.items()}

        return GraphQLObjectType(entity.name, fields)

    def _field(self, name: str, field: Field) -> GraphQLField:
        match field:
            case Scalar():
                kind = self._scalars[field.kind]
                return GraphQLField(GraphQLNonNull(kind) if field.required else kind, resolve=_resolve_scalar(name))
            case Reference():
                other = self._types[field.entity]
                # Nullable in any case: a neighbour that was not indexed must not void the whole answer.
                return GraphQLField(other, resolve=_resolve_reference(name))
            case Derived(single=True):
                return GraphQLField(self._types[field.entity], resolve=_resolve_only(name))
            case References() | Derived():
                return GraphQLField(
                    GraphQLNonNull(GraphQLList(GraphQLNonNull(self._types[field.entity]))),
                    args=self._list_arguments(field.entity),
                    resolve=_resolve_list(name, derived=isinstance(field, Derived)),
                )

    def _list_arguments(self, entity: str) -> GraphQLArgumentMap:
        return {
            "where": GraphQLArgument(self._filters[entity]),
            "first": GraphQLArgument(GraphQLInt),
            "skip": GraphQLArgument(GraphQLInt),
            "orderBy": GraphQLArgument(self._orders[entity]),
            "orderDirection": GraphQLArgument(self._direction),
        }

    def _order_of(self, entity: Entity) -> GraphQLEnumType:
        names = [name for name, field in entity.fields.items() if isinstance(field, Scalar | Reference)]
        return GraphQLEnumType(f"{entity.name}_orderBy", {name: name for name in names})

    def _filter_of(self, entity: Entity) -> GraphQLInputObjectType:
        def fields() -> dict[str, GraphQLInputField]:
            made: dict[str, GraphQLInputField] = {}
            for name, field in entity.fields.items():
                made |= self._filter_fields(name, field)
            both = GraphQLInputField(GraphQLList(self._filters[entity.name]))
            return {**made, CHANGE: GraphQLInputField(self._changed), "and": both, "or": both}

        return GraphQLInputObjectType(f"{entity.name}_filter", fields)

    def _filter_fields(self, name: str, field: Field) -> dict[str, GraphQLInputField]:
        made: dict[str, GraphQLInputField] = {}
        if not isinstance(field, Scalar):
            made[f"{name}_"] = GraphQLInputField(self._filters[field.entity])
        if isinstance(field, Derived):
            return made
        kind = self._scalars[field.kind] if isinstance(field, Scalar) else self._scalars[Kind.ID]
        several = GraphQLList(GraphQLNonNull(kind))
        made[name] = GraphQLInputField(several if isinstance(field, References) else kind)
        for suffix in suffixes(field):
            is_list = isinstance(field, References) or suffix in ("in", "not_in")
            made[f"{name}_{suffix}"] = GraphQLInputField(several if is_list else kind)
        return made


def _meta_field(height: GraphQLInputObjectType) -> GraphQLField:
    block = GraphQLObjectType(
        "_Block_",
        {
            "number": GraphQLField(GraphQLNonNull(GraphQLInt)),
            "hash": GraphQLField(GraphQLString),
            "timestamp": GraphQLField(GraphQLInt),
        },
    )
    meta = GraphQLObjectType(
        "_Meta_",
        {
            "block": GraphQLField(GraphQLNonNull(block)),
            "deployment": GraphQLField(GraphQLNonNull(GraphQLString)),
            "hasIndexingErrors": GraphQLField(GraphQLNonNull(GraphQLBoolean)),
        },
    )

    def resolve(_root: object, info: GraphQLResolveInfo[Any], **given: Any) -> dict[str, Any]:
        return _context(info).meta(given.get("block"))

    return GraphQLField(meta, args={"block": GraphQLArgument(height)}, resolve=resolve)


def _context(info: GraphQLResolveInfo[Any]) -> QueryContext:
    context = info.context
    assert isinstance(context, QueryContext)  # noqa: S101 - we execute with nothing else
    return context


def _root_loader(info: GraphQLResolveInfo[Any], given: Mapping[str, Any]) -> Loader:
    return _context(info).loader_at(given.get("block"))


def _resolve_many(entity: str) -> Callable[..., Any]:
    def resolve(_root: object, info: GraphQLResolveInfo[Any], **given: Any) -> list[_Bound]:
        loader = _root_loader(info, given)
        return [_Bound(node, loader) for node in loader.many(entity, Arguments(given))]

    return resolve


def _resolve_one(entity: str) -> Callable[..., Any]:
    def resolve(_root: object, info: GraphQLResolveInfo[Any], **given: Any) -> _Bound | None:
        loader = _root_loader(info, given)
        node = loader.one(entity, str(given["id"]))
        return None if node is None else _Bound(node, loader)

    return resolve


class _Bound:
    """A node and the loader it came from: two root fields may ask about two blocks."""

    __slots__ = ("loader", "node")

    def __init__(self, node: Node, loader: Loader) -> None:
        self.node = node
        self.loader = loader


def _resolve_scalar(name: str) -> Callable[..., Any]:
    return lambda bound, _info: bound.loader.scalar(bound.node, name)


def _resolve_reference(name: str) -> Callable[..., Any]:
    def resolve(bound: _Bound, info: GraphQLResolveInfo[Any]) -> _Bound | None:
        node = bound.loader.reference(bound.node, name, only_id=_asks_only_for_id(info))
        return None if node is None else _Bound(node, bound.loader)

    return resolve


def _resolve_list(name: str, *, derived: bool) -> Callable[..., Any]:
    def resolve(bound: _Bound, _info: GraphQLResolveInfo[Any], **given: Any) -> list[_Bound]:
        load = bound.loader.derived if derived else bound.loader.references
        return [_Bound(node, bound.loader) for node in load(bound.node, name, Arguments(given))]

    return resolve


def _resolve_only(name: str) -> Callable[..., Any]:
    def resolve(bound: _Bound, _info: GraphQLResolveInfo[Any]) -> _Bound | None:
        found = bound.loader.derived(bound.node, name, Arguments({"first": 1}))
        return _Bound(found[0], bound.loader) if found else None

    return resolve


def _asks_only_for_id(info: GraphQLResolveInfo[Any]) -> bool:
    """Tell whether an answer needs no more than the id that the parent holds."""
    return all(
        isinstance(selection, FieldNode) and selection.name.value == "id"
        for field in info.field_nodes
        if field.selection_set is not None
        for selection in field.selection_set.selections
    )


def build_schema(subgraph: Subgraph) -> GraphQLSchema:
    """Build the GraphQL schema of a subgraph."""
    return SchemaBuilder(subgraph).build()
