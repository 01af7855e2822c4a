"""Answers one SQL query over a protected table with noise, within the budget that the table's owner set.

The query is requester secret 1, so that it is not on the chain. ``answer.json`` is all that leaves the enclave.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
from budget import Budget, parse_budget
from noise import Measurement, make_count, make_sum, total_spent
from query import Output, Plan, parse_query, quote

from cloister import iapp
from cloister.errors import CloisterError, InputError, NotFound

BUDGET_NAME = "budget.json"
MOST_GROUPS = 1000


def load_table(path: Path, budget: Budget) -> duckdb.DuckDBPyConnection:
    """The declared columns in memory: numbers within bounds, an empty or odd cell as the lower one. Then shut the door."""
    database = duckdb.connect(config={"memory_limit": "512MB", "threads": 2, "autoload_known_extensions": False})
    numbers = [
        f"least({one.upper * one.step!r}, greatest({one.lower * one.step!r}, "
        f"coalesce(try_cast({quote(name)} AS DOUBLE), {one.lower * one.step!r}))) AS {quote(name)}"
        for name, one in budget.numbers.items()
    ]
    keys = [f"coalesce(try_cast({quote(name)} AS VARCHAR), '') AS {quote(name)}" for name in budget.keys]
    try:
        database.execute(f"CREATE TABLE data AS SELECT {', '.join(numbers + keys)} FROM read_parquet(?)", [str(path)])
    except duckdb.Error as error:
        raise InputError(f"the table is not what {BUDGET_NAME} says: {str(error).splitlines()[0]}") from error
    database.execute("SET enable_external_access = false; SET lock_configuration = true")
    return database


def answer(database: duckdb.DuckDBPyConnection, plan: Plan, budget: Budget) -> dict[str, Any]:
    """The answer. Groups hold different rows, so each may spend the whole of epsilon (parallel composition)."""
    columns = sorted({output.column for output in plan.outputs if output.aggregate in ("SUM", "AVG")})
    share = budget.epsilon / (1 + len(columns))
    count = make_count(share)
    sums = {column: make_sum(budget.numbers[column], share) for column in columns}
    groups = list(itertools.product(*(budget.keys[name] for name in plan.groups)))
    if len(groups) > MOST_GROUPS:
        raise InputError(f"the query makes {len(groups)} groups; at most {MOST_GROUPS}")
    rows = []
    for group in groups:
        found = _values(database, plan, budget, columns, group)
        people = max(0, count.measure(found[0]))
        if people < budget.minimum_group:  # looks at the noisy number: the true one would give itself away
            continue
        totals = {
            column: one.measure(values) * budget.numbers[column].step
            for (column, one), values in zip(sums.items(), found[1:], strict=True)
        }
        rows.append(
            [_cell(output, dict(zip(plan.groups, group, strict=True)), people, totals) for output in plan.outputs]
        )
    return {
        "columns": [output.title for output in plan.outputs],
        "rows": rows,
        "groups_too_small": len(groups) - len(rows),
        "epsilon_spent": total_spent([count, *sums.values()]),
        "off_by_at_most_95_of_100": _accuracy(count, sums, budget),
    }


def _values(
    database: duckdb.DuckDBPyConnection, plan: Plan, budget: Budget, columns: list[str], group: tuple[str, ...]
) -> list[list[int]]:
    """One group's rows as lists: a one for each row, and each column in whole steps."""
    steps = [f"round({quote(name)} / {budget.numbers[name].step!r})::BIGINT" for name in columns]
    wanted = "".join(f" AND {quote(name)} = ?" for name in plan.groups)
    query = f"SELECT {', '.join(['1', *steps])} FROM data WHERE ({plan.condition}){wanted}"
    rows = database.execute(query, [*plan.constants, *group]).fetchall()
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(1 + len(columns))]


def _cell(output: Output, keys: dict[str, str], people: int, totals: dict[str, float]) -> str | float:
    match output.aggregate:
        case "KEY":
            return keys[output.column]
        case "COUNT(*)":
            return people
        case "SUM":
            return totals[output.column]
        case _:
            return round(totals[output.column] / max(1, people), 4)


def _accuracy(count: Measurement, sums: dict[str, Measurement], budget: Budget) -> dict[str, float]:
    accuracy = {f"SUM({name})": one.off_by * budget.numbers[name].step for name, one in sums.items()}
    return {name: round(value, 2) for name, value in ({"COUNT(*)": count.off_by} | accuracy).items()}


def main() -> None:
    """Read the query, the budget and the table; write the answer."""
    sql = iapp.secret(1)
    with iapp.data() as data, tempfile.TemporaryDirectory() as folder:
        names = [entry.path for entry in data.entries()]
        table = next((name for name in names if name.endswith(".parquet")), None)
        if BUDGET_NAME not in names or table is None:
            raise NotFound(
                f"the protected data must hold {BUDGET_NAME} and a .parquet table; it holds {', '.join(names)}"
            )
        budget = parse_budget(data.read_bytes(BUDGET_NAME).decode())
        plan = parse_query(sql, budget)
        path = Path(folder) / "table.parquet"
        with data.open(table) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
        database = load_table(path, budget)
    iapp.write("answer.json", answer(database, plan, budget))


if __name__ == "__main__":
    try:
        main()
    except CloisterError as error:
        sys.exit(f"no answer: {error.message}")
