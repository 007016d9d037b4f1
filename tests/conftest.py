"""What all tests share."""

import signal

pytest_plugins = ["tests.postgres", "tests.mariadb_server"]

# A test run in the background ignores Ctrl-C, and so would every program it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
