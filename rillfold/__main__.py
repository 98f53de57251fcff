"""`python -m rillfold` and the console script."""

from rillfold.cli import main

if __name__ == "__main__":
    main()
