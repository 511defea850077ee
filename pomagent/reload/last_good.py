"""Stores the last accepted files, for a start with invalid ones and for a preview without a running agent."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pomagent.config.default_paths import state_directory
from pomagent.config.load import InputsMissing, StoredFiles, load
from pomagent.errors import ConfigError
from pomagent.log import events
from pomagent.log.logger import Logger
from pomagent.runtime.files import read_file
from pomagent.settings import Settings

FILE_MODE, DIRECTORY_MODE = 0o600, 0o700
MAX_STORED_BYTES = 64 * 1024 * 1024
"""Maximum size of the stored copy: several files of the largest accepted size, encoded."""


class LastGood:
    """Stores one ``agent.toml`` with the files that it includes. Methods block their thread."""

    def __init__(self, config: Path, environ: Mapping[str, str], log: Logger | None = None) -> None:
        self._config = config
        self._environ = environ
        self._log = log
        name = hashlib.sha256(os.fsencode(config.absolute())).hexdigest()[:16]
        self._file = state_directory(environ) / "last-good" / f"{name}.json"

    def save(self, settings: Settings) -> None:
        """Replace the stored files by those of accepted settings, atomically. A failure is only logged."""
        try:
            self._write(settings)
        except OSError as error:
            if self._log is not None and settings.agent.boot_from_last_good:
                problem = (
                    f"the accepted files cannot be kept for the next start: {error}; give the agent a STATE_DIRECTORY"
                )
                self._log.warning(events.CONFIG_WARNED, warning=problem)

    def restore(self) -> Settings | None:
        """Load the stored files with today's tokens and certificates. Return None if they are missing or invalid."""
        files = self._read()
        try:
            return load(self._config, self._environ, files) if files else None
        except InputsMissing as error:
            return error.settings
        except ConfigError:
            return None

    def _write(self, settings: Settings) -> None:
        document = {str(path): base64.b64encode(content).decode() for path, content in settings.files}
        self._file.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        with suppress(FileNotFoundError):
            fresh.unlink()
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "w") as file:
            json.dump({"files": document}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._file)

    def _read(self) -> StoredFiles:
        """Return the stored files, the main one first. Empty if there are none."""
        try:
            document = json.loads(read_file(self._file, limit=MAX_STORED_BYTES).content)["files"]
            return [(Path(path), base64.b64decode(content)) for path, content in document.items()]
        except (OSError, ValueError, KeyError, AttributeError):
            return []
