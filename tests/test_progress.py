import io
import threading
import time

import pytest

from licodec import progress
from licodec.progress import Bar, track, watching


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_listener_hears_how_far_a_loop_is():
    heard = []
    with watching(lambda stage, share: heard.append((stage, share))):
        assert list(track("abcd", "letters")) == list("abcd")
    assert heard == [("letters", i / 4) for i in range(4)]
    assert list(track("ab", "letters")) == ["a", "b"] and len(heard) == 4


def test_a_loop_of_another_thread_is_not_heard():
    heard = []
    with watching(lambda stage, share: heard.append(stage)):
        thread = threading.Thread(target=lambda: list(track("ab", "elsewhere")))
        thread.start()
        thread.join()
    assert not heard


def test_a_listener_can_stop_a_loop():
    def stop(stage, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watching(stop):
        list(track("ab", "letters"))


@pytest.mark.parametrize(
    ("terminal", "quiet", "seconds", "shown"),
    [(True, False, 20, True), (True, False, 0, False), (True, True, 1, False), (False, False, 1, False)],
)  # fmt: skip
def test_a_bar_is_shown_on_a_terminal_for_what_takes_long(
    monkeypatch, terminal, quiet, seconds, shown
):
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE", 0.2)
    with Bar("encode", quiet) as bar:
        bar.update("photo.png: analysis", 0.4)
        end = time.monotonic() + seconds  # rich is imported on the way
        while time.monotonic() < end and not stderr.getvalue():
            time.sleep(0.05)
        bar.update("photo.png: latents", 0.7)
    assert ("photo.png" in stderr.getvalue()) == shown


def test_the_bar_waits_two_seconds():
    assert progress.PATIENCE == 2.0


def test_lines_are_printed_with_and_without_a_bar(monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr(progress, "PATIENCE", 0.1)
    with Bar("encode") as bar:
        bar.print("before [the] bar")
        end = time.monotonic() + 20
        while time.monotonic() < end and not bar._progress:
            time.sleep(0.05)
        bar.print("while [it] stands")
    assert "before [the] bar" in stderr.getvalue() and "while [it] stands" in stderr.getvalue()


def test_every_long_loop_of_a_codec_is_heard(photo):
    import licodec

    heard = set()
    with watching(lambda stage, share: heard.add(stage)):
        data = licodec.encode(photo)
        licodec.decode(data)
    assert heard == {"analysis", "latents", "synthesis"}
