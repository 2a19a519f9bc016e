import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.cli.go_flags import BadFlag, Flag, describe_flags, parse_flags

FLAGS = [
    Flag("m", str, "model", "Modell"),
    Flag("n", int, "count", "Anzahl"),
    Flag("T", float, "warmth", "Wärme"),
    Flag("q", bool, "quiet", "leise"),
    Flag("http-port", int, "port", "Port"),
]


@pytest.mark.parametrize(
    ("line", "values", "rest"),
    [
        ("", {}, []),
        ("-m gpt41", {"m": "gpt41"}, []),
        ("-m=gpt41", {"m": "gpt41"}, []),
        ("--m gpt41", {"m": "gpt41"}, []),
        ("--m=a=b", {"m": "a=b"}, []),
        ("-m=", {"m": ""}, []),
        ("-m -q", {"m": "-q"}, []),
        ("-T -1", {"T": -1.0}, []),
        ("-T .5", {"T": 0.5}, []),
        ("-q", {"q": True}, []),
        ("-q=false", {"q": False}, []),
        ("-q=T", {"q": True}, []),
        ("-q false", {"q": True}, ["false"]),
        ("-http-port 9080 --http-port=9081", {"http-port": 9081}, []),
        ("-n 5 What -m is", {"n": 5}, ["What", "-m", "is"]),
        ("-q -- -m x", {"q": True}, ["-m", "x"]),
        ("- -m x", {}, ["-", "-m", "x"]),
    ],
)
def test_flags_are_read_as_go_reads_them(line, values, rest):
    assert parse_flags(FLAGS, line.split()) == (values, rest)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("-x", "flags.unknown"),
        ("-mgpt41", "flags.unknown"),
        ("---m x", "flags.malformed"),
        ("-=x", "flags.malformed"),
        ("-m", "flags.no_value"),
        ("-n many", "flags.bad_value"),
        ("-n 1.5", "flags.bad_value"),
        ("-n=", "flags.bad_value"),
        ("-n ٣", "flags.bad_value"),
        ("-T nan", "flags.bad_value"),
        ("-T 1e999", "flags.bad_value"),
        ("-q=maybe", "flags.bad_value"),
    ],
)
def test_what_go_refuses_is_refused(line, key):
    with pytest.raises(BadFlag) as caught:
        parse_flags(FLAGS, line.split())
    assert caught.value.key == key


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_arguments_are_read_or_refused(arguments):
    try:
        _, rest = parse_flags(FLAGS, arguments)
    except BadFlag:
        return
    assert rest == arguments[len(arguments) - len(rest) :]


def test_the_help_has_a_line_for_each_flag(monkeypatch):
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    lines = describe_flags(FLAGS).splitlines()
    assert lines[0].split() == ["-m", "TEXT", "Modell"]
    assert lines[3].split() == ["-q", "leise"]
    assert len({line.index(flag.german) for line, flag in zip(lines, FLAGS, strict=True)}) == 1
