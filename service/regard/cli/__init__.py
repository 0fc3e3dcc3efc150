"""The command line: `regard`. Its parts are imported when they are needed, so that it starts fast."""


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    from regard.cli.app import main as run

    run()
