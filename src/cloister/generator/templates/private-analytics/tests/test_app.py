"""Run with `python -m pytest`. `rehearse` is `cloister iapp test`: the production agent and sandbox on mock data."""

from math import sinh
from pathlib import Path
from statistics import mean

import duckdb
import pytest
from budget import Number, parse_budget
from main import answer, load_table
from noise import make_count, make_sum
from query import parse_query

from cloister import rehearse
from cloister.errors import InputError

APP = Path(__file__).parent.parent
DATA = APP / "mock" / "data"
BUDGET = parse_budget((DATA / "budget.json").read_text("utf-8"))
DRAWS = 3000


def test_a_query_is_answered_with_noise() -> None:
    run = rehearse(APP)
    assert run.cause is None, run.stderr
    found = run.json("answer.json")
    assert found["columns"] == ["town", "people", "avg_income"]
    assert found["epsilon_spent"] == pytest.approx(BUDGET.epsilon)
    towns = {town: (people, income) for town, people, income in found["rows"]}
    [(people, income)] = (
        load_table(DATA / "people.parquet", BUDGET)
        .execute("SELECT COUNT(*), AVG(income) FROM data WHERE age >= 30 AND town = 'Oslo'")
        .fetchall()
    )
    assert abs(towns["Oslo"][0] - people) < 40  # 20 times the scale of the noise: farther off once in 10**8 runs
    assert towns["Oslo"][1] == pytest.approx(income, rel=0.2)
    assert "Bodø" not in towns  # declared, but nobody lives there: a group below the minimum


def test_noise_has_the_scale_that_the_budget_asks_for() -> None:
    rows = list(range(100))
    for epsilon in (0.1, 1.0):
        count, total = make_count(epsilon), make_sum(Number(0, 50, 1), epsilon)
        assert count.spent <= epsilon
        assert total.spent <= epsilon
        # How far discrete Laplace noise is off on average: 1 / sinh(1 / scale); the scale is what a row may change / epsilon.
        counts = mean(abs(count.measure(rows) - 100) for _ in range(DRAWS))
        sums = mean(abs(total.measure(rows) - sum(min(row, 50) for row in rows)) for _ in range(DRAWS))
        assert counts == pytest.approx(1 / sinh(epsilon), rel=0.15)
        assert sums == pytest.approx(1 / sinh(epsilon / 50), rel=0.15)


def test_all_that_is_measured_on_the_same_rows_shares_one_budget() -> None:
    database = load_table(DATA / "people.parquet", BUDGET)
    for query in ("COUNT(*)", "SUM(age), AVG(age)", "AVG(age), SUM(income), COUNT(*)"):
        found = answer(database, parse_query(f"SELECT {query} FROM data", BUDGET), BUDGET)
        assert found["epsilon_spent"] <= BUDGET.epsilon * (1 + 1e-9)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("SELECT * FROM data", "STAR"),
        ("SELECT income FROM data", "income is not a key"),
        ("SELECT name, COUNT(*) FROM data GROUP BY name", "name is not a key"),
        ("SELECT MIN(income) FROM data", "min"),
        ("SELECT MEDIAN(income) FROM data", "median"),
        ("SELECT SUM(income * 1000) FROM data", r"\*"),
        ("SELECT COUNT(DISTINCT income) FROM data", "count"),
        ("SELECT SUM(DISTINCT income) FROM data", "distinct"),
        ("SELECT SUM(income) FILTER (WHERE age = 41) FROM data", "filter"),
        ("SELECT SUM(income) OVER () FROM data", "sum"),
        ("SELECT COUNT(*) FROM read_text('/etc/passwd')", "read_text"),
        ("SELECT COUNT(*) FROM 'people.parquet'", "people.parquet"),
        ("SELECT COUNT(*) FROM data, data AS other", "JOIN"),
        ("SELECT COUNT(*) FROM (SELECT 1)", "SUBQUERY"),
        ("WITH x AS (SELECT 1) SELECT COUNT(*) FROM data", "cte_map"),
        ("SELECT COUNT(*) FROM data WHERE age > (SELECT 1)", "SUBQUERY"),
        ("SELECT COUNT(*) FROM data WHERE getenv('HOME') = 'x'", "getenv"),
        ("SELECT COUNT(*) FROM data WHERE town LIKE 'O%'", "~~"),
        ("SELECT COUNT(*) FROM data WHERE age = 'x'", "x is not a number"),
        ("SELECT COUNT(*) FROM data HAVING COUNT(*) > 1", "having"),
        ("SELECT COUNT(*) FROM data LIMIT 1", "modifiers"),
        ("SELECT COUNT(*) FROM data USING SAMPLE 1", "sample"),
        ("SELECT town, COUNT(*) FROM data GROUP BY ROLLUP (town)", "GROUPING SETS"),
        ("SELECT COUNT(*) FROM data UNION SELECT 1", "SET_OPERATION_NODE"),
        ("SELECT COUNT(*) FROM data; SELECT COUNT(*) FROM data", "one query"),
        ("SET memory_limit = '1TB'", "does not parse"),
        ("ATTACH 'other.db'", "does not parse"),
        ("COPY data TO 'x.csv'", "does not parse"),
        ("how rich is Ada?", "does not parse"),
    ],
)
def test_other_queries_are_refused_by_name(query: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        parse_query(query, BUDGET)


def test_conditions_mean_what_they_say() -> None:
    database = load_table(DATA / "people.parquet", BUDGET)
    where = "WHERE NOT (town = 'Oslo' OR age BETWEEN 18 AND 40) AND income > 20000 AND town IN ('Bergen', 'Tromsø')"
    plan = parse_query(f"SELECT COUNT(*) FROM data {where}", BUDGET)
    truth = database.execute(f"SELECT COUNT(*) FROM data {where}").fetchall()
    assert database.execute(f"SELECT COUNT(*) FROM data WHERE {plan.condition}", plan.constants).fetchall() == truth


@pytest.mark.parametrize(
    "statement", ["SELECT * FROM read_text('/etc/hostname')", "COPY data TO '/tmp/rows.csv'", "SET threads = 64"]
)
def test_even_sql_that_slipped_through_would_find_the_door_shut(statement: str) -> None:
    database = load_table(DATA / "people.parquet", BUDGET)
    with pytest.raises(duckdb.Error, match=r"disabled|locked"):
        database.execute(statement)


def test_a_table_without_a_budget_is_refused_in_plain_words() -> None:
    run = rehearse(APP, data=DATA / "people.parquet")
    assert run.cause == "APP_COMPUTE_FAILED"
    assert "no answer: the protected data must hold budget.json and a .parquet table" in run.stderr
