from licodec import signals


def main() -> None:
    """Where both `licodec` and `python -m licodec` begin."""
    from licodec.cli import main

    signals.run(main.main)


if __name__ == "__main__":
    main()
