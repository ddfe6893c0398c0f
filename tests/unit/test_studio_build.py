"""The studio's built page: of its sources as they are, built where they are others, and served as it was where not."""

import shutil
from pathlib import Path

import pytest

from local import studio
from local.server import NotReady


def test_the_kept_page_is_built_from_the_sources_as_they_are() -> None:
    assert studio.is_current(), "client/ has changed since the studio was built: run `make studio`, commit its result"


def test_all_of_it_is_there() -> None:
    page = (studio.PAGE / "index.html").read_text(encoding="utf-8")
    for name in ("studio.js", "studio.css", "icon.svg"):
        assert f'"studio/{name}"' in page
        assert (studio.PAGE / name).stat().st_size
    # its Content-Security-Policy lets nothing run that stands in the page itself
    assert "<script>" not in page
    assert "<style" not in page
    assert "React" not in page
    assert "MIT" in (studio.PAGE / "LICENSES.md").read_text(encoding="utf-8")


def test_what_is_not_a_source_does_not_count(tmp_path: Path) -> None:
    client = tmp_path / "client"
    shutil.copytree(studio.CLIENT / "studio", client / "studio")
    shutil.copytree(studio.CLIENT / "src", client / "src")
    shutil.copy(studio.CLIENT / "package-lock.json", client / "package-lock.json")
    assert studio.is_current(client)
    (client / "studio" / "page" / "more.js").write_text("")
    (client / "node_modules").mkdir()
    (client / "node_modules" / "x.js").write_text("")
    assert studio.is_current(client)
    source = client / "studio" / "src" / "words.ts"
    kept = source.read_text(encoding="utf-8")
    for changed in (kept + "\n", ""):
        source.write_text(changed, encoding="utf-8")
        assert not studio.is_current(client)
    source.write_text(kept, encoding="utf-8")
    # renamed, with the same content
    source.rename(source.with_name("names.ts"))
    assert not studio.is_current(client)


@pytest.mark.parametrize(("must", "status"), [(False, 0), (True, 1)])
def test_where_it_cannot_be_built_the_one_that_is_there_is_served(
    must: bool, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise NotReady("npm could not fetch the packages of client/: no network")

    assert studio.refresh(must=must, is_current=lambda: False, build=fails) == status
    said = capsys.readouterr().err
    assert "no network" in said
    assert ("as it was built last" in said) is not must


def test_a_current_one_is_not_built_again() -> None:
    def never() -> None:
        raise AssertionError

    assert studio.refresh(must=True, is_current=lambda: True, build=never) == 0
