"""Work in steps over pieces and shards: in memory, in a folder that survives a kill, or on Dask.

A task is a function of a job and a number; what it makes is kept whole or not at all, and a task that is done already is not
done again. So a job goes on where it was killed, a lost worker costs the task it had in hand, and the result is the same
whoever does the work.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from tqdm import tqdm

from mobtk.errors import BadInput, MobtkError, TryAgain
from mobtk.plugins import loaded
from mobtk.storage import new_file, write_text

log = logging.getLogger("mobtk")


class Store:
    """What tasks made: tables and a note for each, in memory or in a folder.

    Args:
        folder: where; in memory by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._memory: dict[str, tuple[list[pa.Table], dict[str, Any]]] = {}

    def has(self, name: str) -> bool:
        """Whether a task is done."""
        return name in self._memory if self.folder is None else (self.folder / f"{name}.json").is_file()

    def put(self, name: str, tables: list[pa.Table], note: dict[str, Any]) -> None:
        """Keep what a task made; the note comes last and says that it is done."""
        if self.folder is None:
            self._memory[name] = (tables, note)
            return
        for kind in {tuple(t.column_names): t.schema for t in tables}.values():
            with (
                new_file(self._path(name, kind.names)) as draft,
                pa.ipc.new_file(draft, kind, options=pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)) as sink,
            ):
                for table in tables:
                    if table.column_names == kind.names:
                        batches = table.combine_chunks().to_batches()
                        sink.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], kind))
        write_text(self.folder / f"{name}.json", json.dumps(note))

    def get(self, name: str, columns: list[str], i: int = 0) -> pa.Table:
        """The ``i``-th table with these columns that a task made."""
        if self.folder is None:
            return [t for t in self._memory[name][0] if t.column_names == columns][i]
        with pa.memory_map(str(self._path(name, columns))) as source:
            return pa.Table.from_batches([pa.ipc.open_file(source).get_batch(i)])

    def note(self, name: str) -> dict[str, Any]:
        """The note of a task."""
        if self.folder is None:
            return self._memory[name][1]
        note: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        return note

    def drop(self, name: str) -> None:
        """Forget what nobody reads any more; the note stays."""
        if self.folder is None:
            self._memory[name] = ([], self._memory[name][1])
        else:
            for file in self.folder.glob(f"{name}.*.arrow"):
                file.unlink()

    def _path(self, name: str, columns: list[str]) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.{columns[0]}.arrow"


class Workers:
    """Who does the tasks: this process, or Dask.

    Args:
        workers: processes on this machine; 0 or 1 for this one alone.
        scheduler: address of a Dask scheduler whose workers see the same files.
    """

    def __init__(self, workers: int = 0, scheduler: str | None = None) -> None:
        if workers < 0:
            raise BadInput(f"--workers is 0 or more, not {workers}")
        self.workers, self.scheduler = workers, scheduler
        self._client: Any = None

    @property
    def many(self) -> bool:
        """Whether others do the work."""
        return self.workers > 1 or self.scheduler is not None

    def __enter__(self) -> "Workers":
        if not self.many:
            return self
        try:
            import distributed
        except ImportError:
            raise BadInput('several workers want Dask, which is not installed; try: pip install "mobtk[dask]"') from None
        import dask

        dask.config.set({"distributed.worker.daemon": False, "distributed.admin.tick.limit": "60s"})
        logging.getLogger("distributed").setLevel(logging.ERROR)
        if self.scheduler is not None:
            try:
                self._client = distributed.Client(self.scheduler, timeout=20)
            except (OSError, TimeoutError, ValueError) as error:
                raise BadInput(f"no Dask scheduler answers at {self.scheduler}: {error}") from None
        else:
            self._client = distributed.Client(
                n_workers=self.workers, threads_per_worker=1, memory_limit=0, dashboard_address=None,
                local_directory=os.environ.get("TMPDIR", "/tmp") if os.name == "posix" else None,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            if self.scheduler is None:
                self._client.shutdown()
            self._client.close()
            self._client = None

    def run(self, task: Callable[[Any, int], None], job: Any, numbers: list[int], title: str) -> None:
        """Do a task for each number; the first mistake of a user that one finds is raised."""
        bar = tqdm(total=len(numbers), desc=title, delay=2, leave=False, unit="part")
        with contextlib.closing(bar):
            if self._client is None:
                for number in numbers:
                    task(job, number)
                    bar.update()
                return
            from distributed import as_completed

            files = [p.origin for p in loaded().plugins if p.origin.endswith(".py")]
            futures = [self._client.submit(_told, files, task, job, n, pure=False, retries=2) for n in numbers]
            try:
                for future in as_completed(futures):
                    if mistake := future.result():
                        raise mistake
                    bar.update()
            except Exception as error:
                self._client.cancel(futures)
                if type(error).__name__ == "KilledWorker":
                    raise TryAgain(
                        f"a worker was lost again and again while it did one part ({title}): it may want more memory"
                    ) from None
                raise


def _told(files: list[str], task: Callable[[Any, int], None], job: Any, number: int) -> MobtkError | None:
    """Do a task on a worker, which gets the same single-file plugins; a mistake of the user comes back and is not tried
    again.
    """
    try:
        for file in files:
            loaded().add_file(file)
        task(job, number)
    except MobtkError as error:
        return error
    return None


@contextlib.contextmanager
def work_folder(out: Path, plan: Any) -> Iterator[Path]:
    """A folder beside ``out`` for a job on its way, found again by the same job after a kill, removed at the end.

    After a mistake of the user nothing is left; after Ctrl-C, or a full disk, it stays for the next try.
    """
    folder = out.with_name(f".{out.name}.preparing")
    written = msgspec.json.format(msgspec.json.encode(plan)).decode()
    try:
        if folder.is_dir():
            same = (folder / "job.json").is_file() and (folder / "job.json").read_text(encoding="utf-8") == written
            if same:
                log.info("%s: going on with what an interrupted run left", out)
            else:
                log.info("%s: an interrupted run of another job is thrown away", out)
                shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "job.json", written)
    except OSError as error:
        raise BadInput(
            f"cannot write {folder}: {error.strerror}; free some space or choose a folder you may write to"
        ) from None
    try:
        yield folder
    except TryAgain:
        raise
    except MobtkError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
