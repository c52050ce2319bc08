"""`make bench`: every benchmark after the other, each beside its rival in one run."""

import subprocess
import sys

NAMES = ("scan_speed", "cuts", "tae_speed", "dit_speed")


def main() -> int:
    statuses = []
    for name in NAMES:
        print(f"\n== {name} ==", flush=True)
        # a process each: peak memory is a property of a process
        statuses.append(subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode)
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
