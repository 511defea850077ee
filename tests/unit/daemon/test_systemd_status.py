"""Whom the line of status is for."""

from __future__ import annotations

from typing import Any

import gevent

from pomagent.daemon.systemd_status import SystemdStatus
from pomagent.runtime.sd_notify import Notifier


def test_without_a_service_manager_no_line_is_made() -> None:
    nothing: Any = None  # whatever the line would be made of
    with gevent.Timeout(5):
        SystemdStatus(nothing, nothing, nothing, Notifier({})).run()
