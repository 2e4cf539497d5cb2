import click
from click.testing import CliRunner

from licodec import help


@click.command(cls=help.Command, examples=["paint wall -c red", "paint - < wall"])
@click.argument("things", nargs=-1)
@help.group(
    "Colour", click.option("-c", "--colour", help="Which."), click.option("--dark", is_flag=True)
)
@help.group("Brush", click.option("--brush", help="How wide."))
def paint(**given):
    """Paint things."""
    click.echo(sorted(given.items()))


def test_help_shows_groups_in_order_and_examples_last():
    lines = CliRunner().invoke(paint, ["--help"]).output.splitlines()
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Colour:", "Brush:", "Other:", "Examples:"]
    assert lines[-2:] == ["  paint wall -c red", "  paint - < wall"]
    colour = lines.index("Colour:")
    assert "-c, --colour" in lines[colour + 1] and "--dark" in lines[colour + 2]


def test_options_of_groups_work():
    result = CliRunner().invoke(paint, ["wall", "-c", "red", "--brush", "3"])
    assert (
        "('brush', '3'), ('colour', 'red'), ('dark', False), ('things', ('wall',))" in result.output
    )
