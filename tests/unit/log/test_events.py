"""Names of events are unique and of one shape."""

import re

from pomagent.log import events

NAMES = {name: value for name, value in vars(events).items() if name.isupper()}


def test_every_name_is_a_noun_and_what_happened_to_it():
    assert [
        value for value in NAMES.values() if not re.fullmatch(r"[a-z]+\.([a-z_]+(ed|ing)|lost|bound|progress)", value)
    ] == []


def test_every_constant_is_spelled_like_its_event():
    assert {name: value.upper().replace(".", "_") for name, value in NAMES.items()} == {name: name for name in NAMES}
