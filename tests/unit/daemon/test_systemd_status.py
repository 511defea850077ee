"""The status line is built for a service manager only."""

from __future__ import annotations

from typing import Any

import gevent

from pomagent.daemon.systemd_status import SystemdStatus
from pomagent.runtime.sd_notify import Notifier


def test_no_line_is_built_without_a_service_manager() -> None:
    nothing: Any = None  # the objects that the line would be built from
    with gevent.Timeout(5):
        SystemdStatus(nothing, nothing, nothing, Notifier({})).run()
