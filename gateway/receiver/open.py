"""The store that a configuration asks for."""

from gateway.clock import Clock
from gateway.receiver.dialects import postgresql, sqlite
from gateway.receiver.lines import LinesStore
from gateway.receiver.settings import CONNINFO, Output, ReceiverConfig
from gateway.receiver.sql import SqlStore
from gateway.receiver.store import Store
from gateway.tables import ConfigError, Fault


def open_store(config: ReceiverConfig, clock: Clock) -> Store:
    """Opens files; a database is connected to when something comes.

    Raises:
        ConfigError: PostgreSQL is asked for, and its driver is not installed, or cannot read what to connect to.
        OSError: a file cannot be used.
        PayloadError: the state file is damaged.
    """
    if config.output is Output.POSTGRESQL and config.database is not None:
        try:
            return SqlStore(postgresql(config.database), clock)
        except ImportError as error:
            expected = "psycopg; install wardlink[postgresql]"
            raise ConfigError((Fault("receiver.output", str(error), expected),)) from error
        except ValueError as error:
            raise ConfigError(
                (Fault("receiver.database", "something else", CONNINFO.expected),)
            ) from error
    if config.output_file is None:
        raise ConfigError((Fault("receiver.output_file", "nothing", "a path"),))
    if config.output is Output.SQLITE:
        return SqlStore(sqlite(config.output_file), clock)
    return LinesStore(config.output_file, config.state_dir / "received.json", clock)
