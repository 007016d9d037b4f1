"""`edge-agent simulate …`: a PBX for trying things out, loaded only when it is asked for."""

from typing import Any

import typer
from typer.core import TyperGroup


class _Simulators(TyperGroup):
    """Commands whose options are known only once the simulator is imported."""

    def list_commands(self, ctx: Any) -> list[str]:  # Any: typer keeps its own copy of click, whose types are private
        return ["ami"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name != "ami":
            return None
        from agent.simulator.command import simulate_ami

        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command("ami")(simulate_ami)
        return typer.main.get_command(alone)


app = typer.Typer(
    cls=_Simulators, help="Play a PBX, for trying things out.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def simulate() -> None:
    """Play a PBX, for trying things out."""
