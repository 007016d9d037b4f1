"""What can be wrong with the settings."""


class ConfigError(Exception):
    """A setting cannot be used. The text names file, key, what is wrong and what to do; stop and show it.

    It never holds a secret's value.
    """
