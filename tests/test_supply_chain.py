import importlib.util
import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finding(package, name):
    return {"name": package, "version": "1.0", "vulns": [{"id": name, "fix_versions": ["1.1"]}]}


def test_a_finding_passes_only_if_it_is_listed():
    audit, clean = script("audit"), {"name": "good", "version": "2", "vulns": []}
    packages = [clean, finding("bad", "CVE-1")]
    code, text = audit.judge(packages, [])
    assert code == 1
    assert "not listed: bad 1.0: CVE-1, mended in 1.1" in text
    code, text = audit.judge(packages, [{"package": "bad", "id": "CVE-1", "reason": "unused"}])
    assert code == 0
    assert "2 packages looked up, 1 findings, 0 not listed" in text
    code, text = audit.judge([clean], [{"package": "bad", "id": "CVE-1", "reason": "unused"}])
    assert code == 0
    assert "not found any more: bad CVE-1" in text


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ("", 0, "NOTHING WAS AUDITED"),
        ('{"dependencies": [{"name": "a", "skip_reason": "unknown"}]}', 0, "NOTHING WAS AUDITED"),
        (json.dumps({"dependencies": [finding("bad", "CVE-1")]}), 1, "not listed: bad"),
    ],
)
def test_a_database_that_is_away_is_told_from_one_that_finds_nothing(
    answer, code, said, monkeypatch, capsys
):
    audit = script("audit")
    monkeypatch.setattr(
        audit.subprocess, "run", lambda *_, **__: type("Done", (), {"stdout": answer})
    )
    assert audit.main() == code
    assert said in capsys.readouterr().out


def test_every_listed_finding_has_a_reason():
    for entry in json.loads((ROOT / ".ci" / "audit.json").read_text(encoding="utf-8")):
        assert sorted(entry) == ["id", "package", "reason"]
        assert len(entry["reason"]) > 10


def test_every_dependency_has_a_reason_and_a_lower_bound_that_holds_here():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    for line in project["dependencies"]:
        assert re.search(rf'"{re.escape(line)}",\s+# .{{10}}', text), f"{line} has no reason"
    bounds = dict(
        line.split("==") for line in script("oldest").lower_bounds(ROOT / "pyproject.toml")
    )
    names = [re.match(r"[\w.-]+", line)[0] for line in project["dependencies"]]
    assert set(names) <= set(bounds), "a dependency without a lower bound"
    for name in names:
        assert Version(version(name)) >= Version(bounds[name])
