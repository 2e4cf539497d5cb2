from licodec import process


def main() -> None:
    """Where both `licodec` and `python -m licodec` begin."""
    from licodec import cli

    process.run(cli.main)


if __name__ == "__main__":
    main()
