"""Whether a package that is installed here has a known vulnerability, and a release without it.

    python pipelines/audit.py [--url URL]

asks the OSV database through pip-audit. Exits 1 where a package is to be updated, and 3 where
nobody answered: nothing was audited then. A vulnerability that no release mends is told alone.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

OUTDATED, UNANSWERED = 1, 3


def main() -> None:
    """Prints a line for each vulnerability, or that there is none."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", help="of another database with OSV's interface")
    args = parser.parse_args()
    packages = asked(args.url)
    if packages is None:
        sys.exit(UNANSWERED)
    found = [(p, v) for p in packages for v in p.get("vulns", [])]
    for package, known in found:
        mended = ", ".join(known["fix_versions"])
        remedy = f"update it to {mended}" if mended else "no release mends it yet"
        print(f"{package['name']} {package['version']}: {known['id']}; {remedy}")
    print(f"{len(packages)} packages audited, {len(found)} vulnerabilities known")
    sys.exit(OUTDATED if any(known["fix_versions"] for _, known in found) else 0)


def asked(url: str | None) -> list[dict[str, Any]] | None:
    """What pip-audit says of each package; None, and why on stderr, where it has no answer."""
    command = [sys.executable, "-m", "pip_audit", "-s", "osv", "--skip-editable", "-f", "json"]
    command += ["--progress-spinner", "off", *(["--osv-url", url] if url else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = done.stderr.strip().splitlines()[-1:]
        print("nothing is audited: the database gave no answer;", *last, file=sys.stderr)
        return None
    return packages


if __name__ == "__main__":
    main()
