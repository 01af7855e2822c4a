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
from graphql.language import BooleanValueNode, EnumValueNode, FloatValueNode, IntValueNode, StringValueNode

from cloister.errors import InputError
from cloister.services.indexer.entities import (
    Derived,
    Entity,
    Field,
    Kind,
    Reference,
    References,
    Scalar,
    Subgraph,
)
from cloister.services.indexer.filters import suffixes
from cloister.services.indexer.loading import Arguments, Loader, Node


@dataclass(slots=True)
class QueryContext:
    """What resolvers of one request share. ``loader_at`` gives the loader of a block (None is now)."""

    loader_at: Callable[[int | None], Loader]
    meta: Callable[[], dict[str, Any]]
    loader: Loader | None = None


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


class SchemaBuilder:
    """Builds the schema of one subgraph."""

    def __init__(self, subgraph: Subgraph) -> None:
        self._subgraph = subgraph
        self._scalars: dict[Kind, GraphQLScalarType] = {
            Kind.ID: GraphQLID,
            Kind.BYTES: _lenient("Bytes", "Lower-case 0x hex"),
            Kind.STRING: GraphQLString,
            Kind.STATUS: _lenient("TaskStatus", "UNSET, ACTIVE, REVEALING, COMPLETED or FAILLED"),
            Kind.INT: GraphQLInt,
            Kind.BIG_INT: _lenient("BigInt", "A whole number as decimal text"),
            Kind.DECIMAL: _lenient("BigDecimal", "An amount of RLC as decimal text"),
            Kind.BOOLEAN: GraphQLBoolean,
        }
        self._direction = GraphQLEnumType("OrderDirection", {"asc": "asc", "desc": "desc"})
        self._height = GraphQLInputObjectType(
            "Block_height",
            {
                "number": GraphQLInputField(GraphQLInt),
                "number_gte": GraphQLInputField(GraphQLInt),
            },
        )
        self._orders = {name: self._order_of(entity) for name, entity in subgraph.entities.items()}
        self._filters = {name: self._filter_of(entity) for name, entity in subgraph.entities.items()}
        self._types = {name: self._type_of(entity) for name, entity in subgraph.entities.items()}

    def build(self) -> GraphQLSchema:
        """Build the schema: a list and a single entity per type at the root, and ``_meta``."""
        fields: dict[str, GraphQLField] = {"_meta": _meta_field()}
        for entity in self._subgraph.entities.values():
            height = GraphQLArgument(self._height)
            fields[entity.plural] = GraphQLField(
                GraphQLNonNull(GraphQLList(GraphQLNonNull(self._types[entity.name]))),
                args={**self._list_arguments(entity.name), "block": height},
                resolve=_resolve_many(entity.name),
            )
            fields[entity.singular] = GraphQLField(
                self._types[entity.name],
                args={"id": GraphQLArgument(GraphQLNonNull(self._scalars[Kind.ID])), "block": height},
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
            return {**made, "and": both, "or": both}

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


def _meta_field() -> GraphQLField:
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
    return GraphQLField(GraphQLNonNull(meta), resolve=lambda _root, info: _context(info).meta())


def _context(info: GraphQLResolveInfo[Any]) -> QueryContext:
    context = info.context
    assert isinstance(context, QueryContext)  # noqa: S101 - we execute with nothing else
    return context


def _root_loader(info: GraphQLResolveInfo[Any], given: Mapping[str, Any]) -> Loader:
    height = given.get("block") or {}
    return _context(info).loader_at(height.get("number"))


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
