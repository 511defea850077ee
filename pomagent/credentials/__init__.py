"""Tokens: where they come from, how long they last, and the gateway's HTTP API that judges them."""
