"""`python -m regard.cli`: the same as `regard`, where no script is installed."""

from regard.cli import main

if __name__ == "__main__":
    main()
