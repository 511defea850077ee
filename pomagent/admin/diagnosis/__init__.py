"""What ``pomagent diag`` puts into its archive, so that it may be mailed: what runs, how it is, and no secret.

``redaction`` takes out whatever is or may be secret. ``greenlets`` says where each one waits, ``versions`` what is
installed; ``account`` puts the agent's part together.
"""
