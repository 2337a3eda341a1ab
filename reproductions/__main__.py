"""``python -m reproductions list|models|plan|evidence|status|cancel|publish|report|check|export|evaluate``."""

import sys

from reproductions.harness.console import EXIT_FAILED, EXIT_REFUSED, abandon, complain, make_console
from reproductions.harness.record_files import PoolError


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command, *others = arguments or [""]
    try:
        if command == "status":  # often asked for: it answers before torch, which the others need, is loaded
            from reproductions.harness import status

            return status.main(others)
        from reproductions import commands

        return commands.main(arguments)
    except PoolError as error:
        complain(make_console(), str(error))
        return EXIT_REFUSED
    except OSError as error:  # a standard output that is full, say
        complain(make_console(stderr=True), f"{command}: {error}")
        abandon(sys.stdout)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
