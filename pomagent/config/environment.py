"""Environment variables that override keys of the file, such as ``POMAGENT_AGENT__LOG_LEVEL=debug``."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from pomagent.config.messages import did_you_mean
from pomagent.config.model import ENV_DELIMITER, ENV_PREFIX, AgentFile
from pomagent.errors import Problem

NOT_FROM_ENVIRONMENT = "routes"
NAMED_TABLES = frozenset({"gateways", "credentials"})


class _Variables(EnvSettingsSource):
    """Reads variables from a mapping and leaves lists as text for ``_typed``."""

    def __init__(self, settings: type[BaseSettings], variables: Mapping[str, str]) -> None:
        super().__init__(settings)
        self.env_vars = {name.lower(): value for name, value in variables.items()}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ARG002
        return value


def overrides(
    environ: Mapping[str, str], token_variables: Collection[str]
) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """Return the values that variables set, by table and key, and the problems of misnamed variables."""
    ours = {n: v for n, v in environ.items() if n.upper().startswith(ENV_PREFIX) and n not in token_variables}
    problems = [Problem(None, 0, name, message) for name in sorted(ours) if (message := _misnamed(name))]
    for problem in problems:
        del ours[problem.key]
    return _typed(_Variables(AgentFile, ours)(), AgentFile), problems


def _misnamed(variable: str) -> str:
    table, *keys = variable[len(ENV_PREFIX) :].lower().split(ENV_DELIMITER)
    if table == NOT_FROM_ENVIRONMENT:
        return "routes cannot be set from the environment; expected [[routes]] in a file"
    if table in AgentFile.model_fields:
        form = "NAME__KEY" if table in NAMED_TABLES else "KEY"
        expected = f"sets a whole table; expected {ENV_PREFIX}{table.upper()}{ENV_DELIMITER}{form}"
        return "" if len(keys) > form.count(ENV_DELIMITER) else expected
    # Other programs' variables begin with POMAGENT_ too: Kubernetes sets some for a service of that name.
    return f"there is no table [{table}]{did_you_mean(table, AgentFile.model_fields)}" if keys else ""


def _typed(value: Any, annotation: Any) -> Any:
    """Convert the text of variables to the types of TOML. Validation reports values that cannot be converted."""
    if isinstance(value, dict):
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = annotation.model_fields
            return {k: _typed(v, fields[k].annotation if k in fields else str) for k, v in value.items()}
        inner = get_args(annotation)[-1] if get_origin(annotation) is dict else str
        return {k: _typed(v, inner) for k, v in value.items()}
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return _decoded(value)


def _decoded(value: Any) -> Any:
    try:
        decoded = json.loads(value)
    except (TypeError, ValueError):
        return value
    return decoded if isinstance(decoded, list) else value
