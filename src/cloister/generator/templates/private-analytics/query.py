"""From a query to a plan. DuckDB parses; of what it finds, only what is named here is understood, all else is refused.

    SELECT <keys>, COUNT(*) | SUM(number) | AVG(number) FROM data
    [WHERE comparisons with constants, BETWEEN, IN, AND, OR, NOT] [GROUP BY <keys>]

The query itself is never run: main.py writes its own from the plan. Node names: DuckDB's json_serialize_sql.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import duckdb
from budget import Budget

from cloister.errors import InputError

AGGREGATES = ("COUNT(*)", "SUM", "AVG")
COMPARISONS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
DEEPEST = 20
USUAL = ({}, [], "", None, False, {"map": []}, {"type": "ORDER_MODIFIER", "orders": []}, "STANDARD_HANDLING")
"""Values of members that say nothing."""
SILENT = ("class", "alias", "query_location", "query_location_length", "qualified_name", "is_operator")

Node = dict[str, Any]


@dataclass(frozen=True)
class Output:
    """One column of the answer: ``aggregate`` is one of AGGREGATES over ``column``, or "KEY" for a key."""

    title: str
    aggregate: str
    column: str = ""


@dataclass(frozen=True)
class Plan:
    """What to compute. ``condition`` is SQL with a ? for each of ``constants``."""

    outputs: tuple[Output, ...]
    condition: str
    constants: tuple[str | float, ...]
    groups: tuple[str, ...]


def parse_query(sql: str, budget: Budget) -> Plan:
    """Understand a query. Raises InputError, which names what is not allowed."""
    try:
        (parsed,) = duckdb.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("",)
    except duckdb.Error as error:
        raise InputError("the query does not parse") from error
    tree = json.loads(parsed)
    if tree["error"]:
        raise InputError(f"the query does not parse: {tree['error_message']}")
    if len(tree["statements"]) != 1:
        raise InputError("one query at a time")
    node = tree["statements"][0]["node"]
    if node["type"] != "SELECT_NODE":
        raise _refused(node["type"])
    _only(node, "select_list", "from_table", "where_clause", "group_expressions", "group_sets")
    _check_table(node["from_table"])
    groups = tuple(_name(item, budget.keys, "a key") for item in node["group_expressions"])
    if node["group_sets"] not in ([], [list(range(len(groups)))]) or len(set(groups)) != len(groups):
        raise _refused("GROUPING SETS")
    outputs = tuple(_output(item, budget, groups) for item in node["select_list"])
    if all(output.aggregate == "KEY" for output in outputs):
        raise InputError(f"the query asks for no aggregate; there are {', '.join(AGGREGATES)}")
    where = node["where_clause"]
    condition, constants = _condition(where, budget, 0) if where else ("true", ())
    return Plan(outputs, condition, constants, groups)


def _refused(what: str) -> InputError:
    return InputError(f"{what} is not allowed")


def _only(node: Node, *members: str) -> None:
    """Refuse a node in which more is said than in ``members``."""
    for name, value in node.items():
        if name not in ("type", *SILENT, *members) and value not in USUAL:
            raise _refused(f"{name} in {node['type']}")


def _check_table(node: Node) -> None:
    if node["type"] != "BASE_TABLE":
        raise _refused(node["function"]["function_name"] if node["type"] == "TABLE_FUNCTION" else node["type"])
    _only(node, "table_name")
    if node["table_name"] != "data":
        raise InputError(f"there is no table {node['table_name']}: the table is called data")


def _name(node: Node, declared: dict[str, Any], kind: str) -> str:
    """The declared column that a node names."""
    if node["type"] != "COLUMN_REF":
        raise _refused(node.get("function_name") or node["type"])
    *table, name = node["column_names"]
    if table not in ([], ["data"]) or name not in declared:
        raise InputError(f"{name} is not {kind}; there is: {', '.join(declared)}")
    return str(name)


def _output(node: Node, budget: Budget, groups: tuple[str, ...]) -> Output:
    if node["type"] == "COLUMN_REF":
        name = _name(node, dict.fromkeys(groups), "a key of GROUP BY")
        return Output(node["alias"] or name, "KEY", name)
    function = node.get("function_name", "")
    if node["type"] != "FUNCTION" or function not in ("count_star", "sum", "avg"):
        raise _refused(function or node["type"])
    _only(node, "function_name", "arguments")
    if function == "count_star":
        return Output(node["alias"] or "count", "COUNT(*)")
    column = _name(node["arguments"][0]["expression"], budget.numbers, "a number with bounds")
    return Output(node["alias"] or f"{function}_{column}", function.upper(), column)


def _condition(node: Node, budget: Budget, depth: int) -> tuple[str, tuple[str | float, ...]]:
    """A condition in our own SQL, and its constants."""
    kind = node["type"]
    if depth > DEEPEST:
        raise _refused("so deep a WHERE")
    if kind in ("CONJUNCTION_AND", "CONJUNCTION_OR", "OPERATOR_NOT"):
        _only(node, "children")
        parts = [_condition(child, budget, depth + 1) for child in node["children"]]
        joined = (" AND " if kind == "CONJUNCTION_AND" else " OR ").join(f"({sql})" for sql, _ in parts)
        negation = "NOT " if kind == "OPERATOR_NOT" else ""
        return negation + joined, tuple(constant for _, constants in parts for constant in constants)
    if kind in COMPARISONS:
        _only(node, "left", "right")
        column, text = _column(node["left"], budget)
        return f"{column} {COMPARISONS[kind]} ?", (_constant(node["right"], text=text),)
    if kind == "COMPARE_BETWEEN":
        _only(node, "input", "lower", "upper")
        column, text = _column(node["input"], budget)
        return f"{column} BETWEEN ? AND ?", tuple(_constant(node[end], text=text) for end in ("lower", "upper"))
    if kind == "COMPARE_IN":
        _only(node, "children")
        column, text = _column(node["children"][0], budget)
        constants = tuple(_constant(child, text=text) for child in node["children"][1:])
        return f"{column} IN ({', '.join('?' * len(constants))})", constants
    raise _refused(node.get("function_name") or kind)


def _column(node: Node, budget: Budget) -> tuple[str, bool]:
    """A column as SQL, and whether it is text."""
    name = _name(node, budget.numbers | budget.keys, "a column")
    return quote(name), name in budget.keys


def _constant(node: Node, *, text: bool) -> str | float:
    if node["type"] != "VALUE_CONSTANT":
        raise _refused(node.get("function_name") or node["type"])
    kind, value = node["literal"]["kind"], node["literal"]["text"]
    if text and kind == "STRING":
        return str(value)
    if not text and kind in ("INTEGER", "NUMERIC") and math.isfinite(number := float(value)):
        return number
    raise InputError(f"{value} is not a {'text' if text else 'number'}")


def quote(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'
