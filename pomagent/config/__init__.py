"""``agent.toml``: its keys, its problems with their lines, and the settings that it means.

``load`` reads and validates; ``model`` declares the keys; ``tables`` validates shapes; ``gateways``, ``references`` and
``resolve`` check meanings and build ``pomagent.settings``. All of it blocks: it belongs into a thread pool.
"""

from pomagent.config.load import CONFIG_VARIABLE, StoredFiles, find_config, load
from pomagent.config.resolve import default_control_socket
from pomagent.config.schema import json_schema
from pomagent.config.secrets import read_token

__all__ = [
    "CONFIG_VARIABLE",
    "StoredFiles",
    "default_control_socket",
    "find_config",
    "json_schema",
    "load",
    "read_token",
]
