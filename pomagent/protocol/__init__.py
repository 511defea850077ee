"""Protocol as pure functions and small state machines: no socket, no clock, no gevent."""
