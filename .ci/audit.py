"""Look the installed packages up in a database of known vulnerabilities, with pip-audit.

    python .ci/audit.py        # or: make audit

Fails on a finding that is not listed in .ci/audit.json with a reason. Where no database answers, it
says so and passes: a network that is away is no finding.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LISTED = Path(__file__).parent / "audit.json"
SERVICES = ("pypi", "osv")
AUDIT = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
Finding = tuple[str, str]


def look_up(service: str) -> list[dict[str, Any]] | None:
    """Packages that a service knows, with their vulnerabilities; None where it does not answer."""
    command = [*AUDIT, "--timeout", "15", "--skip-editable", "--vulnerability-service", service]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    # A mirror without the database calls every package unknown.
    return [package for package in packages if "skip_reason" not in package] or None


def findings(packages: list[dict[str, Any]]) -> dict[Finding, str]:
    """(package, vulnerability) to a line for a person."""
    return {
        (package["name"], found["id"]): (
            f"{package['name']} {package['version']}: {found['id']}, "
            f"mended in {', '.join(found['fix_versions']) or 'no release'}"
        )
        for package in packages
        for found in package["vulns"]
    }


def judge(packages: list[dict[str, Any]], listed: list[dict[str, str]]) -> tuple[int, str]:
    """Exit code, and what to say."""
    known = {(entry["package"], entry["id"]) for entry in listed}
    found = findings(packages)
    lines = [f"not listed: {line}" for name, line in found.items() if name not in known]
    gone = [f"listed, but not found any more: {' '.join(name)}" for name in known - found.keys()]
    summary = f"{len(packages)} packages looked up, {len(found)} findings, {len(lines)} not listed"
    return int(bool(lines)), "\n".join([*lines, *gone, summary])


def main() -> int:
    """Ask one service after the other."""
    listed = json.loads(LISTED.read_text(encoding="utf-8"))
    for service in SERVICES:
        packages = look_up(service)
        if packages is not None:
            code, text = judge(packages, listed)
            sys.stdout.write(f"{text} (service: {service})\n")
            return code
    sys.stdout.write(
        f"not reachable: none of {', '.join(SERVICES)} answers here; NOTHING WAS AUDITED\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
