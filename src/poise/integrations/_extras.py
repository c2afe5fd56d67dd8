"""What Poise can do without, and says so where it is missing."""

from __future__ import annotations

from importlib.util import find_spec

from poise._errors import ConfigError


def need(extra: str, *packages: str) -> None:
    """Raise unless all `packages` are installed, which `extra` brings.

    Args:
        extra: Name of the extra.
        packages: Top-level names.

    Raises:
        ConfigError: If one is missing.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"This needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            repair=f'Install them with: pip install "poise[{extra}]"',
        )
