import io
import threading
import time

import pytest

from licodec import progress
from licodec.progress import Bar, track, trials, watching


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
        data = licodec.encode(photo, model="adaptive")
        licodec.decode(data)
    assert heard == {"analysis", "latents", "synthesis"}


def test_a_search_tells_its_trial_and_never_falls_back():
    heard = []
    with watching(lambda stage, share: heard.append((stage, share))), trials(4) as begin:
        for _ in range(6):
            begin()
            list(track("ab", "analysis"))
            list(track("ab", "latents"))
    assert [stage for stage, _ in heard[:4]] == ["trial 1, analysis"] * 2 + ["trial 1, latents"] * 2
    assert heard[-1][0] == "trial 6, latents"
    shares = [share for _, share in heard]
    assert shares == sorted(shares) and 0 == shares[0] < shares[-1] < 1


def test_a_target_tells_its_trials(photo):
    import licodec

    heard = []
    with watching(lambda stage, share: heard.append((stage, share))):
        licodec.encode(photo, target_size=2000)
    searched = [(stage, share) for stage, share in heard if stage.startswith("trial ")]
    assert searched[0] == ("trial 1, analysis", 0.0) and len(searched) > 3
    numbers = [int(stage.split()[1].rstrip(",")) for stage, _ in searched]
    assert numbers == sorted(numbers) and numbers[-1] > 1
    shares = [share for _, share in searched]
    assert shares == sorted(shares) and shares[-1] < 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (61, "1 min"), (59.6 * 60, "1 h 00 min"), (3 * 3600 + 300, "3 h 05 min")],
)  # fmt: skip
def test_durations_are_words(seconds, text):
    assert progress.duration(seconds) == text


def test_the_time_left_is_that_of_the_stage(monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    bar = Bar("encode")
    now = 110.0
    bar.update("search", 0.25)
    assert bar._clock() == "10 s, about 30 s left"
    bar.update("latents", 0.0)
    assert bar._clock() == "10 s"
    now = 115.0
    bar.update("latents", 0.5)
    assert bar._clock() == "15 s, about 5 s left"
    bar.count(3, 4, "photo.png")
    assert bar._description == "3 of 4: photo.png" and bar._share == 0.75


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb\tc.png", r"a\nb\tc.png"),
        ("\x1b[31mred\x7f\x9b", r"\x1b[31mred\x7f\x9b"),
        (b"caf\xe9\xff".decode("utf-8", "surrogateescape"), r"caf\xe9\xff"),
        ("\u202egnp.exe\u2028\u2066", r"\u202egnp.exe\u2028\u2066"),
        ("Grüße 日本 🖼", "Grüße 日本 🖼"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(name, shown, capsys):
    assert progress.plain(name) == shown
    progress.say(name)
    with Bar("decode") as bar:
        bar.print(name)
    assert capsys.readouterr().err == f"{shown}\n" * 2


def test_a_bar_shows_any_name(monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    with Bar("[/x]\x1b]0;evil\udcff") as bar:
        end = time.monotonic() + 20
        while time.monotonic() < end and not bar._progress:
            time.sleep(0.05)
        bar.update("[/y]\x1b]0;evil\udcff", 0.5)
    assert "[/" in stderr.getvalue() and "\x1b]0;" not in stderr.getvalue()
