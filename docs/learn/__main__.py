"""The course from one end to the other: ``python docs/learn``, or ``python docs/learn 3 7`` for some chapters."""

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
CHAPTERS = sorted(HERE.glob("[0-9][0-9]_*.py"))


def main(wanted: list[str]) -> int:
    """Run chapters as scripts, one after the other; the number of those that failed."""
    failed, whole = 0, time.perf_counter()
    for chapter in CHAPTERS:
        if wanted and str(int(chapter.name[:2])) not in wanted:
            continue
        began = time.perf_counter()
        done = subprocess.run([sys.executable, str(chapter)], capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        told = lines[-2] if done.returncode == 0 else f"failed:\n{done.stderr}"
        failed += done.returncode != 0
        print(f"{chapter.stem:<24}{time.perf_counter() - began:5.0f} s   {told}", flush=True)
    print(f"{'in all':<24}{time.perf_counter() - whole:5.0f} s")
    return failed


if __name__ == "__main__":
    if not all(word.isdigit() and 0 < int(word) <= len(CHAPTERS) for word in sys.argv[1:]):
        sys.exit(f"chapters are 1 to {len(CHAPTERS)}, not {' '.join(sys.argv[1:])}")
    sys.exit(main([str(int(word)) for word in sys.argv[1:]]))
