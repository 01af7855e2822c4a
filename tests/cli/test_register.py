"""``cloister iapp register``: an image on a registry becomes an app under its digest."""

from __future__ import annotations

from tests.cli.conftest import Town

DIGEST = "ab" * 32


def test_an_image_on_a_registry_is_registered_by_its_digest(town: Town) -> None:
    image = f"docker.io/user/hello-world:1.0@sha256:{DIGEST}"
    app = town.terminal.json("iapp", "register", image, "--as", "company")
    assert (app["multiaddr"], app["checksum"], app["name"]) == (image, f"0x{DIGEST}", "hello-world")
    assert town.terminal.json("iapp", "register", image, "--as", "company") == app, "again is the same app"
    shown = town.terminal.json("iapp", "show", app["address"])
    assert (shown["multiaddr"], shown["manifest"]) == (image, None)
    for words, said in (
        (("docker.io/user/app:1.0",), "a tag may move"),
        (("not an image", "--digest", f"0x{DIGEST}"), "is not the name of an image"),
        ((image, "--digest", f"sha256:{'cd' * 32}"), "says another digest"),
    ):
        assert said in town.terminal.run("iapp", "register", *words, "--as", "company", code=2).stderr
