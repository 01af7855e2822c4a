"""``cloister iapp mock ADDRESS``: what stands on the chain of protected data is enough to rehearse on its like."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Town

from cloister.datasets.reader import ProtectedDataReader


def test_the_public_schema_of_protected_data_is_mocked(town: Town, tmp_path: Path) -> None:
    real = tmp_path / "records"
    (real / "notes").mkdir(parents=True)
    (real / "notes" / "plain").write_text("the patient's record")
    (real / "scan").write_bytes(b"%PDF-1.4 the patient's scan")
    data = town.terminal.json("data", "protect", real, "--name", "records", "--as", "hospital")
    project = tmp_path / "project"
    project.mkdir()
    (project / "iapp.toml").write_text("")
    made = town.terminal.json("iapp", "mock", data["address"], "--project", project, "--name", "like-it")
    assert made["named_in_run_toml"] is True
    (path,) = (Path(file) for file in made["files"])
    shown = town.terminal.json("data", "show", data["address"])["schema"]
    assert shown == {"notes": {"plain": "application/octet-stream"}, "scan": "application/pdf"}
    assert b"patient" not in path.read_bytes()
    with ProtectedDataReader(path) as mocked:
        assert mocked.schema == shown
    missing = town.terminal.run("iapp", "mock", "0x" + "5" * 40, "--project", project, code=66)
    assert "no protected data at" in missing.stderr
