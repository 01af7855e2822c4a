"""Every template of ``cloister iapp init``: made, its own tests run, rehearsed, deployed, granted, run, its result read.

The templates with large dependencies run nightly: ``.venv/bin/pytest -m nightly tests/e2e/test_templates.py``.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

import pytest
from tests.support.base_images import python_base
from tests.support.network import LiveNetwork, live_network, wait_for
from tests.support.workshop import Workshop

from cloister.generator.init import TEMPLATES

pytestmark = pytest.mark.xdist_group("templates")


@pytest.fixture(scope="module")
def web_api() -> Iterator[str]:
    """The mock API of the template web-api, up; its host and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with as_file(files("cloister.generator") / "templates" / "web-api" / "mock" / "api.py") as program:
        process = subprocess.Popen([sys.executable, program, str(port)])
        try:
            wait_for("the mock API", lambda: _listens(port))
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, web_api: str) -> Iterator[LiveNetwork]:
    """One network for all templates, which leads an app that asks for the web API to its mock."""
    with live_network(tmp_path_factory.mktemp("templates"), connect_to={"rates.example.org:443": web_api}) as network:
        yield network


@pytest.fixture
def workshop(live: LiveNetwork, tmp_path: Path) -> Workshop:
    """A place to work."""
    return Workshop(live, tmp_path)


def test_hello_world(workshop: Workshop) -> None:
    # Its way to the opened result is the tutorial's, which test_hello_world.py walks.
    workshop.begin("hello-world").own_tests()


def test_javascript(workshop: Workshop) -> None:
    project = workshop.begin("javascript")
    project.own_tests()
    assert "hello.txt" in [file["name"] for file in project.rehearse()["files"]]
    app, data = project.deploy(), project.protect("message.txt")
    project.grant(data, app)
    result = project.run(app, "--data", data, "--args", "Grace Hopper")
    assert result.text("hello.txt") == (
        "Hello, Grace Hopper!\nThe protected message has 30 letters. Only this enclave has read them.\n"
    )
    # What the app would print about protected data stays inside.
    assert set(result.names) == {"hello.txt", "computed.json"}


def test_web_api(workshop: Workshop) -> None:
    project = workshop.begin("web-api")
    project.own_tests()
    project.rehearse()
    key = project.folder / "api.key"
    key.write_text("mock-key")
    app = project.deploy("--app-secret", f"@{key}")
    conversion = project.run(app, "--args", "250 EUR JPY").json("conversion.json")
    assert conversion == {"amount": "250", "from": "EUR", "to": "JPY", "rate": "163.25", "converted": "40812.50"}


@pytest.mark.nightly
def test_container(workshop: Workshop) -> None:
    base = python_base()
    project = workshop.begin("container")
    with (project.folder / "iapp.toml").open("a") as settings:
        settings.write(f'\n[container]\narguments = {{ BASE = "{base}" }}\n')
    project.own_tests()
    project.rehearse()
    app, data = project.deploy(), project.protect("message.txt")
    project.grant(data, app)
    result = project.run(app, "--data", data, "--args", "Grace Hopper")
    assert result.text("words.txt") == "Hello, Grace Hopper!\nThe longest words: abracadabra, magician, opens.\n"


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_private_training(workshop: Workshop) -> None:
    project = workshop.begin("private-training")
    project.own_tests(project.install())
    told = project.rehearse()
    assert told["progress"][-1]["message"] == "epoch 20 of 20"
    app, data = project.deploy(), project.protect("loans.parquet")
    project.grant(data, app, "--purpose", "research")
    result = project.run(app, "--data", data, "--args", "--target defaulted", "--purpose", "research")
    metrics = result.json("metrics.json")
    assert (metrics["rows"], metrics["rows_scored"]) == (400, 100)
    assert 0.8 < metrics["roc_auc"] < 0.87
    assert metrics == json.loads((project.folder / "output" / "metrics.json").read_text("utf-8")), "fixed seeds"
    assert (result.folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    # What it makes is what the template for inference reads.
    assert set(result.json("model.json")) == {"columns", "mean", "scale", "weights", "intercept", "classes"}


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_private_inference(workshop: Workshop, live: LiveNetwork) -> None:
    project = workshop.begin("private-inference")
    project.own_tests(project.install())
    project.rehearse()
    app, data = project.deploy(), project.protect("model")
    project.grant(data, app, "--purpose", "prediction")
    applicants = project.folder / "mock" / "applicants.csv"
    result = project.run(app, "--data", data, "--private-file", applicants, "--purpose", "prediction")
    assert [one["class"] for one in result.json("predictions.json")] == [0, 1, 0]
    model = json.loads((project.folder / "mock" / "model" / "model.json").read_text("utf-8"))
    told = "".join(path.read_bytes().decode("latin-1") for path in result.folder.iterdir())
    assert not any(str(weight)[:6] in told for weight in model["weights"]), "the model stays inside"
    stored = [path.read_bytes() for path in live.home.rglob("*") if path.is_file() and path.stat().st_size < 1 << 20]
    assert len(stored) > 10
    assert not any(b"52,61000,4000,22,0" in content for content in stored), "nobody stores the rows in the clear"


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_private_analytics(workshop: Workshop) -> None:
    project = workshop.begin("private-analytics")
    project.own_tests(project.install())
    project.rehearse()
    app, data = project.deploy(), project.protect("data")
    project.grant(data, app, "--purpose", "statistics", "--accesses", "2")
    query = project.folder / "query.sql"
    query.write_text("SELECT town, COUNT(*) AS people FROM data WHERE age BETWEEN 18 AND 89 GROUP BY town")
    asked = ("--data", data, "--secret", f"1=@{query}", "--purpose", "statistics")
    found = project.run(app, *asked).json("answer.json")
    people = dict(found["rows"])
    # The whole budget goes to the count: noise of scale 1, farther off than 20 once in 10**8 runs.
    assert people == {
        town: pytest.approx(truth, abs=20) for town, truth in {"Bergen": 944, "Oslo": 1612, "Tromsø": 444}.items()
    }
    assert found["epsilon_spent"] == pytest.approx(1.0)
    assert found["groups_too_small"] == 1
    query.write_text("SELECT MAX(income) FROM data")
    assert "APP_COMPUTE_FAILED" in project.refused_run(app, *asked, code=1).stdout
    query.write_text("SELECT COUNT(*) FROM data")
    project.refused_run(app, *asked, code=77)  # both accesses are used: a refused query costs one too


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_private_qa(workshop: Workshop) -> None:
    project = workshop.begin("private-qa")
    project.own_tests(project.install())
    project.rehearse()
    app, data = project.deploy(), project.protect("documents")
    project.grant(data, app)
    questions = project.folder / "questions.txt"
    questions.write_text("Who approves early payment of a supplier?\nHow much holiday do I get each year?\n")
    payment, holiday = project.run(app, "--data", data, "--secret", f"1=@{questions}").json("answers.json")
    assert (payment["source"], holiday["heading"]) == ("finance.txt", "Holidays")
    assert "the head of finance" in payment["answer"]
    assert "30 days of paid holiday a year" in holiday["answer"]


def test_every_template_is_tested_here() -> None:
    tested = Path(__file__).read_text("utf-8")
    assert [name for name in TEMPLATES if f'"{name}"' not in tested] == []
