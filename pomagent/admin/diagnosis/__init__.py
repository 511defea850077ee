"""Contents of the ``pomagent diag`` archive, which is safe to mail: versions, state and configuration, no secrets.

``redaction`` removes secrets and anything like one. ``greenlet_dump`` lists where each greenlet waits, ``versions``
what is installed. ``agent_report`` assembles the part that comes from the running agent.
"""
