"""The page's files: what is shipped is what was reviewed, small, and under one policy."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from api.page.files import read_page
from api.page.routes import POLICY
from tests.integration.api_rig import Rig, running_api

_ROOT = Path(__file__).parents[2]
_FOLDER = _ROOT / "api" / "page"
_OWN = sorted((_FOLDER / "js").rglob("*.js"))
_BROWSER = {"Accept": "text/html,*/*"}  # programs get Ollama's greeting at /
_MAX_LINES = 400
_MAX_FIRST_KB, _MAX_ALL_KB, _MAX_VENDOR_KB = 80, 160, 70
_MARKUP = re.compile(r"\b(innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML)\b")
_CODE = re.compile(r"\b(eval\(|new Function|document\.write|setAttribute\(\"style\")")


def _packed_kb(names: list[str]) -> float:
    return sum(len(read_page().assets[name].packed) for name in names) / 1000


@pytest.mark.parametrize("path", _OWN, ids=lambda path: path.stem)
def test_a_module_is_short_and_makes_no_markup_or_code_from_text(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= _MAX_LINES
    assert _MARKUP.findall(text) == []
    assert _CODE.findall(text) == []


def test_the_page_is_small() -> None:
    page = read_page()
    index = page.index.body.decode()
    first = re.findall(rf"/ui/-/{page.build}/([\w./-]+)", index)
    assert "js/main.js" in first
    assert _packed_kb(sorted(set(first))) + len(page.index.packed) / 1000 <= _MAX_FIRST_KB
    shipped = [name for name in page.assets if not name.endswith((".txt", ".json"))]
    assert _packed_kb(shipped) <= _MAX_ALL_KB
    vendored = [name for name in shipped if name.startswith("vendor/")]
    assert len(vendored) == 3
    assert _packed_kb(vendored) <= _MAX_VENDOR_KB


def test_the_vendored_files_are_the_recorded_ones() -> None:
    record = json.loads((_FOLDER / "vendor" / "VENDOR.json").read_text())["files"]
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (_FOLDER / "vendor").glob("*.js")
    }
    assert found == {name: entry["sha256"] for name, entry in record.items()}
    pinned = json.loads((_ROOT / "scripts" / "page_vendor" / "package.json").read_text())
    versions = {
        name: facts["version"]
        for entry in record.values()
        for name, facts in entry["packages"].items()
    }
    assert pinned["dependencies"].items() <= versions.items()


def test_git_tracks_every_file_so_that_a_wheel_has_it() -> None:
    """hatchling ships what git does not ignore: a bundle that git ignores would be missing."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "api/page"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    served = {f"api/page/{name}" for name in read_page().assets} | {"api/page/index.html"}
    assert served <= set(listed)


def test_the_index_names_this_versions_files_and_they_are_all_served(rig: Rig) -> None:
    index = rig.http.get("/ui/")
    assert index.status_code == 200
    assert index.headers["content-security-policy"] == POLICY
    assert index.headers["cache-control"] == "no-cache"
    for name, file in read_page().assets.items():
        answer = rig.http.get(f"/ui/-/{read_page().build}/{name}")
        assert answer.content == file.body, name
        assert answer.headers["content-encoding"] == "gzip"
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert rig.http.get("/", headers=_BROWSER, follow_redirects=True).content == index.content


def test_a_file_is_sent_once_and_plain_where_gzip_is_not_known(rig: Rig) -> None:
    first = rig.http.get("/ui/", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in first.headers
    again = rig.http.get("/ui/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert gzip.decompress(read_page().index.packed) == first.content


def test_files_of_another_version_are_a_404(rig: Rig) -> None:
    for path in ("/ui/-/0000000000000000/js/main.js", f"/ui/-/{read_page().build}/js/nothing.js"):
        answer = rig.http.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "file_not_found"


def test_a_path_leads_to_no_other_file(rig: Rig) -> None:
    for name in ("..%2froutes.py", "%2e%2e%2froutes.py", "routes.py", "/etc/passwd"):
        assert rig.http.get(f"/ui/-/{read_page().build}/{name}").status_code == 404


def test_with_keys_the_page_is_open_and_everything_else_is_not(
    tmp_path: Path, redis_url: str
) -> None:
    keys = {"api_key": "user-key", "management_key": "manager-key"}
    with running_api(tmp_path, redis_url, **keys) as rig:
        assert rig.http.get("/ui/").status_code == 200
        assert rig.http.get("/", headers=_BROWSER).status_code == 307
        for path in ("/v1/whoami", "/v1/live", "/uix", "/ui2/"):
            assert rig.http.get(path).status_code == 401, path
        answers = [
            rig.http.get("/v1/whoami", headers={"Authorization": f"Bearer {key}"}).json()
            for key in ("user-key", "manager-key")
        ]
        assert [answer["may_manage"] for answer in answers] == [False, True]
        assert all(answer["is_key_required"] for answer in answers)


def test_a_person_under_a_wrong_name_is_told_which_setting_to_change(rig: Rig) -> None:
    headers = {"Host": "<b>evil</b>.example", "Accept": "text/html"}
    answer = httpx.get(f"{rig.url}/ui/", headers=headers)
    assert answer.status_code == 421
    assert answer.headers["content-type"].startswith("text/html")
    assert "MGS_ALLOWED_HOSTS" in answer.text
    assert "evil" not in answer.text
    assert httpx.get(f"{rig.url}/v1/models", headers=headers).json()["error"]
