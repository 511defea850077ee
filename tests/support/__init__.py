"""What the tests are made with, beside fakes, the gateway and real servers."""
