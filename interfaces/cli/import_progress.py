"""How far the import of a file has come, kept beside it until it is done: an interrupted one goes on from there."""

from contextlib import suppress
from pathlib import Path

import orjson

from projections.imports import Imported
from projections.measurements import Recorded


class State:
    """`FILE.importing`. What it says is only taken for the file as it was then; without it, repeating does no harm."""

    def __init__(self, file: Path):
        self._path = file.with_name(f"{file.name}.importing")
        status = file.stat()
        self._file = [status.st_size, status.st_mtime_ns]

    def restored(self) -> Imported:
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = orjson.loads(self._path.read_bytes())
            if kept["file"] == self._file:
                return Imported(kept["rows"], Recorded(*kept["recorded"]), kept["rejected"])
        return Imported()

    def keep(self, imported: Imported) -> None:
        """In a directory that we may not write to, it is done without."""
        body = {"file": self._file, **vars(imported), "recorded": list(imported.recorded)}
        new = self._path.with_name(f"{self._path.name}.new")
        with suppress(OSError):
            new.write_bytes(orjson.dumps(body))
            new.replace(self._path)

    def forget(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
