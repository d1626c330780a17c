"""Run one of the small jobs on a small disk, and then with room enough: `small_disk.py OPTIONS JOB INPUTS DISK`.

`OPTIONS` are tmpfs's, with `ro` for a disk that cannot be written to. Prints what the first run said and left, and what the
second one has finished, as JSON, since nobody else sees the disk.
"""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
from forked import mount_small_disk

JOBS = Path(__file__).parent / "small_jobs.py"


def run(arguments: list[str], said: Path) -> int:
    """Run the job in a fork of this process, which alone sees the disk; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        import multiprocessing
        import runpy

        from pixio_robot.common import workers

        # Of the server that workers are forked from elsewhere, none would see this disk.
        workers.start_server = lambda _: multiprocessing.get_context("fork")  # type: ignore[assignment]
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(descriptor, number)
        sys.argv = [str(JOBS), *arguments]
        code = 0
        try:
            runpy.run_path(str(JOBS), run_name="__main__")
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(options: str, name: str, inputs: str, disk: Path) -> dict[str, object]:
    mount_small_disk(disk, "size=400m" if options == "ro" else options)
    if options == "ro":
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    said = Path(inputs) / "said.txt"
    code = run([name, inputs, str(disk)], said)
    found: dict[str, object] = {"code": code, "said": said.read_text()}
    used = os.statvfs(disk)
    found["used"] = (used.f_blocks - used.f_bfree) * used.f_frsize
    subprocess.run(["mount", "-o", "remount,rw,size=400m,nr_inodes=100000", str(disk)], check=True)
    # A process of its own, so that nothing that a library keeps in memory is in the way.
    child = os.fork()
    if child == 0:
        from small_jobs import WRITERS

        left = [str(path.relative_to(disk)) for path in sorted(disk.rglob("*")) if path.is_file()]
        (Path(inputs) / "found.json").write_text(
            json.dumps({"left": left, "finished": WRITERS[name].finished(disk / "results")})
        )
        os._exit(0)
    os.waitpid(child, 0)
    found |= json.loads((Path(inputs) / "found.json").read_text())
    found["again"] = run([name, inputs, str(disk)], said)
    found["said again"] = said.read_text()
    left = [str(path.relative_to(disk)) for path in sorted(disk.rglob("*")) if path.is_file()]
    return found | {"left at last": left}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4], Path(sys.argv[4]))))
